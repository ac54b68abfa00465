/* plug.h: plain blocking clients that speak the wire by hand. Whatever takes longer than PATIENCE_S fails. */
#ifndef PYSOCK_PLUG_H
#define PYSOCK_PLUG_H

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "check.h"
#include "pysock.h"
#include "base/sys.h"
#include "base/wire.h"

enum { PATIENCE_S = 20 }; /* long enough for a busy machine under a sanitizer */

#define WAIT_FOR(condition) \
    do { \
        uint64_t end_ = ps__now_ns() + (uint64_t)PATIENCE_S * 1000000000; \
        while (!(condition)) { \
            CHECK(ps__now_ns() < end_ && #condition); \
            poll(NULL, 0, 1); \
        } \
    } while (0)

static inline int plug(const struct sockaddr_storage *address, socklen_t size)
{
    const struct timeval patience = {.tv_sec = PATIENCE_S};
    const int on = 1;
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience), 0);
    if (address->ss_family != AF_UNIX) /* what was sent has left */
        CHECK_EQ(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
    CHECK_EQ(connect(fd, (const struct sockaddr *)address, size), 0);
    return fd;
}

static inline void send_all(int fd, const void *data, size_t size)
{
    for (const uint8_t *at = data, *end = at + size; at < end;) {
        ssize_t sent = send(fd, at, (size_t)(end - at), MSG_NOSIGNAL);
        CHECK(sent > 0);
        at += sent;
    }
}

/* Fewer bytes than asked for: the other end has closed. */
static inline size_t receive(int fd, void *data, size_t size)
{
    size_t have = 0;
    while (have < size) {
        ssize_t got = recv(fd, (uint8_t *)data + have, size - have, 0);
        if (got == 0 || (got < 0 && errno == ECONNRESET))
            break;
        CHECK(got > 0);
        have += (size_t)got;
    }
    return have;
}

static inline void expect(int fd, const void *data, size_t size)
{
    uint8_t *got = malloc(size ? size : 1);
    CHECK(got);
    CHECK_EQ(receive(fd, got, size), size);
    CHECK(memcmp(got, data, size) == 0);
    free(got);
}

static inline void expect_end(int fd)
{
    uint8_t byte;
    CHECK_EQ(receive(fd, &byte, 1), 0);
}

static inline void send_frame(int fd, ps_frame frame)
{
    uint8_t *whole = malloc(PS_HEADER_SIZE + frame.size); /* in one piece: a header alone would have to be kept */
    CHECK(whole);
    ps__write_header(whole, frame.size, frame.kind, frame.flags, frame.code, frame.request_id);
    if (frame.size)
        memcpy(whole + PS_HEADER_SIZE, frame.payload, frame.size);
    send_all(fd, whole, PS_HEADER_SIZE + frame.size);
    free(whole);
}

static inline void send_srm(int fd, uint32_t request_id, const void *data, size_t size)
{
    send_frame(fd, (ps_frame){.kind = PS_SRM, .request_id = request_id, .payload = data, .size = (uint32_t)size});
}

/* The next frame, its payload in room; kind 0: the connection has ended. */
static inline ps_frame receive_frame(int fd, void *room, size_t size)
{
    uint8_t head[PS_HEADER_SIZE];
    ps_frame frame = {0};
    if (receive(fd, head, sizeof head) < sizeof head)
        return frame;
    ps__read_header(head, &frame);
    CHECK(frame.size <= size);
    CHECK_EQ(receive(fd, room, frame.size), frame.size);
    frame.payload = room;
    return frame;
}

static inline void expect_frame(int fd, uint8_t kind, uint16_t code, uint32_t request_id, const void *data, size_t size)
{
    uint8_t *room = malloc(size + 1);
    CHECK(room);
    ps_frame frame = receive_frame(fd, room, size);
    CHECK_EQ(frame.kind, kind);
    CHECK_EQ(frame.code, code);
    CHECK_EQ(frame.request_id, request_id);
    CHECK_EQ(frame.size, size);
    CHECK(size == 0 || memcmp(room, data, size) == 0);
    free(room);
}

/* A frame with a text for people, whatever it says. */
static inline void expect_text(int fd, uint8_t kind, uint16_t code, uint32_t request_id)
{
    char text[256];
    ps_frame frame = receive_frame(fd, text, sizeof text);
    CHECK_EQ(frame.kind, kind);
    CHECK_EQ(frame.code, code);
    CHECK_EQ(frame.request_id, request_id);
    CHECK(frame.size > 0 && ps__is_utf8((const uint8_t *)text, frame.size));
}

static inline void send_cir(int fd, const char *name)
{
    uint8_t payload[4 + 3 + PS_NAME_MAX] = "PSK1";
    size_t size = 4;
    if (*name)
        size += ps__put_field(payload + size, PS_TAG_NAME, name, (uint16_t)strlen(name));
    send_frame(fd, (ps_frame){.kind = PS_CIR, .code = 1, .payload = payload, .size = (uint32_t)size});
}

/* A CIR, which must be accepted: returns the client id. */
static inline uint64_t hello(int fd, const char *name)
{
    uint8_t fields[512];
    send_cir(fd, name);
    ps_frame frame = receive_frame(fd, fields, sizeof fields);
    CHECK_EQ(frame.kind, PS_CIR_ACCEPTED);
    const uint8_t *at = fields;
    ps_field field;
    CHECK_EQ(ps__next_field(&at, fields + frame.size, &field), 1);
    CHECK(field.tag == PS_TAG_CLIENT_ID && field.size == 8);
    return (uint64_t)ps__get32(field.value) << 32 | ps__get32(field.value + 4);
}

#endif
