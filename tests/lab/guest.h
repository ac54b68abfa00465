/* guest.h: clients that live with a server whose system calls fail. What a guest gets is right to the last byte; or its
 * connection ended, and nothing came that shouldn't have; or it was told why. Anything else fails the check. */
#ifndef PYSOCK_GUEST_H
#define PYSOCK_GUEST_H

#include "fault.h"

typedef struct guest {
    int fd;
    bool in;   /* it was let in */
    bool lost; /* its connection has ended, or it was refused */
    bool late; /* nothing came for so long that it gave up */
    uint64_t told; /* the counters that tell of losses, when it was last seen well */
} guest;

enum { ROOM = 4 << 20 };

typedef struct stream {
    size_t size;
    uint8_t data[ROOM];
} stream;

static stream asked, wanted; /* what the next transfer sends, and what must come back */
static uint32_t guest_framing;
static int guest_patience_ms;
static unsigned guests_so_far; /* that the kernel has let connect */
static const uint8_t *pattern; /* payloads are pieces of it */

enum { PATTERN = 1 << 20 };

/* -- composing ----------------------------------------------------------------------------------------------------- */

static void add_flagged(stream *s, uint8_t kind, uint8_t flags, uint32_t id, const void *data, size_t size)
{
    uint8_t *to = s->data + s->size;
    CHECK(s->size + PS_HEADER_SIZE + size <= ROOM);
    if (guest_framing == PS_PYSOCK)
        ps__write_header(to, (uint32_t)size, kind, flags, 0, id);
    else
        ps__put32(to, (uint32_t)size);
    s->size += guest_framing == PS_PYSOCK ? PS_HEADER_SIZE : 4;
    if (size)
        memcpy(s->data + s->size, data, size);
    s->size += size;
}

static void add_message(stream *s, uint8_t kind, uint32_t id, const void *data, size_t size)
{
    add_flagged(s, kind, 0, id, data, size);
}

/* What the server asks its unnamed service. */
static void add_ask(uint32_t id, const void *data, size_t size)
{
    uint8_t *payload = wanted.data + wanted.size + PS_HEADER_SIZE;
    add_message(&wanted, PS_ASK, id, data, size + 1);
    payload[0] = 0;
    memcpy(payload + 1, data, size);
}

static void add_request(uint32_t id, size_t from, size_t size)
{
    add_message(&asked, PS_SRM, id, pattern + from, size);
    add_message(&wanted, PS_REPLY, id, pattern + from, size);
}

static void start_over(void)
{
    asked.size = wanted.size = 0;
}

/* -- receiving ----------------------------------------------------------------------------------------------------- */

static uint8_t got[ROOM];

/* Where the frame begins that the byte at `at` of what is wanted belongs to. */
static size_t frame_start(size_t at)
{
    size_t start = 0;
    while (start + PS_HEADER_SIZE + ps__get32(wanted.data + start) <= at)
        start += PS_HEADER_SIZE + ps__get32(wanted.data + start);
    return start;
}

static bool is_a_reason(uint8_t kind)
{
    return kind == PS_ERROR || kind == PS_CIR_REFUSED || kind == PS_GOAWAY;
}

/* Is it what was wanted so far, behind the *right bytes that were? Or else, in the place of a frame of it, the server's
 * reason for giving up, which makes the guest lost. */
static void compare(guest *g, size_t *right, size_t have)
{
    if (memcmp(got + *right, wanted.data + *right, have - *right) == 0) {
        *right = have;
        return;
    }
    CHECK(guest_framing == PS_PYSOCK);
    while (got[*right] == wanted.data[*right])
        ++*right;
    size_t start = frame_start(*right);
    if (have - start > 4) {
        CHECK(is_a_reason(got[start + 4]));
        g->lost = true;
    }
}

/* More bytes, 0 at the end of the connection, -1 if none are there. */
static ssize_t receive_more(guest *g, size_t have, size_t room)
{
    ssize_t count = recv(g->fd, got + have, room, MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN)
        return -1;
    if (count <= 0) {
        CHECK(count == 0 || errno == ECONNRESET || errno == EPIPE);
        g->lost = true;
        return 0;
    }
    return count;
}

static void send_more(guest *g, size_t *sent)
{
    ssize_t count = send(g->fd, asked.data + *sent, asked.size - *sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count >= 0)
        *sent += (size_t)count;
    else if (errno != EAGAIN)
        *sent = asked.size; /* the end is read, with the reason in front of it perhaps */
}

/* Send what is asked, receive what is wanted. A slow guest looks at replies only when nothing more is taken from it. */
static void transfer(guest *g, bool slow)
{
    size_t sent = 0, have = 0, right = 0;
    while (!g->lost && (sent < asked.size || have < wanted.size)) {
        bool reads = have < wanted.size && (!slow || sent == asked.size);
        struct pollfd p = {.fd = g->fd};
        p.events = (short)((sent < asked.size ? POLLOUT : 0) | (reads ? POLLIN : 0));
        int ready = poll(&p, 1, reads ? guest_patience_ms : 5);
        if (ready == 0 && !reads) {
            slow = false;
        } else if (ready == 0) {
            g->late = g->lost = true;
            return;
        }
        if (p.revents & (POLLIN | POLLHUP | POLLERR)) {
            ssize_t count = receive_more(g, have, wanted.size - have);
            have += count > 0 ? (size_t)count : 0;
            compare(g, &right, have);
        }
        if (p.revents & POLLOUT)
            send_more(g, &sent);
    }
}

/* Exactly so many bytes into got; false: the guest is lost. */
static bool receive_exactly(guest *g, size_t size)
{
    size_t have = 0;
    while (have < size) {
        struct pollfd p = {.fd = g->fd, .events = POLLIN};
        if (poll(&p, 1, guest_patience_ms) == 0) {
            g->late = g->lost = true;
            return false;
        }
        ssize_t count = receive_more(g, have, size - have);
        if (count == 0)
            return false;
        have += count > 0 ? (size_t)count : 0;
    }
    return true;
}

/* Everything up to the end of the connection, whatever it is; false: it does not end. */
static bool receive_end(guest *g)
{
    for (;;) {
        struct pollfd p = {.fd = g->fd, .events = POLLIN};
        if (poll(&p, 1, guest_patience_ms) == 0)
            return false;
        if (receive_more(g, 0, ROOM) == 0)
            return true;
    }
}

/* -- coming and going ---------------------------------------------------------------------------------------------- */

static bool guests_have_a_proxy;

/* What a proxy says of whom it connects for: the PROXY protocol's version 2, IPv4, and a NOOP that makes it long. */
static void say_origin(int fd)
{
    enum { HEAD = 28, NOOP = 300 };
    static const uint8_t start[HEAD] = {'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n', 0x21, 0x11,
                                        (12 + 3 + NOOP) >> 8, (12 + 3 + NOOP) & 0xFF, 192, 0, 2, 1, 192, 0, 2, 2, 1, 1, 1, 2};
    uint8_t header[HEAD + 3 + NOOP] = {0};
    memcpy(header, start, HEAD);
    memcpy(header + HEAD, (const uint8_t[]){4, NOOP >> 8, NOOP & 0xFF}, 3);
    send(fd, header, sizeof header, MSG_NOSIGNAL); /* if the server has ended, that is seen soon */
}

static guest guest_connect(const struct sockaddr_storage *address, socklen_t size)
{
    const int on = 1;
    guest g = {.fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    CHECK(g.fd >= 0);
    if (address->ss_family != AF_UNIX)
        CHECK_EQ(setsockopt(g.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
    if (connect(g.fd, (const struct sockaddr *)address, size) < 0) {
        CHECK(errno == ECONNREFUSED || errno == ECONNRESET); /* the server has ended */
        g.lost = true;
    }
    guests_so_far += !g.lost;
    if (guests_have_a_proxy && !g.lost)
        say_origin(g.fd);
    return g;
}

/* Is there a key, which is that of echo.h? */
static bool guests_prove;

static size_t put_proof(uint8_t *to, const uint8_t *mac)
{
    size_t size = ps__put_field(to + PS_HEADER_SIZE, PS_TAG_MAC, mac, PS_MAC_SIZE);
    ps__write_header(to, (uint32_t)size, PS_PROOF, 0, 0, 0);
    return PS_HEADER_SIZE + size;
}

static void add_cir(const char *name)
{
    static const uint8_t nonce[PS_NONCE_SIZE] = "a new number, each time";
    static const uint8_t features[] = {0, 0, 0, PS_FEATURE_CANCEL | PS_FEATURE_STREAM | PS_FEATURE_ASK};
    uint8_t payload[4 + 3 + PS_NAME_MAX + 3 + PS_NONCE_SIZE + 3 + sizeof features] = "PSK1";
    size_t size = 4;
    if (guests_prove)
        size += ps__put_field(payload + size, PS_TAG_NONCE, nonce, sizeof nonce);
    if (*name) {
        size += ps__put_field(payload + size, PS_TAG_NAME, name, (uint16_t)strlen(name));
        size += ps__put_field(payload + size, PS_TAG_FEATURES, features, sizeof features);
    }
    ps__write_header(asked.data, (uint32_t)size, PS_CIR, 0, 1, 0);
    memcpy(asked.data + PS_HEADER_SIZE, payload, size);
    asked.size = PS_HEADER_SIZE + size;
    if (guests_prove)
        asked.size += put_proof(asked.data + asked.size, nonce);
    wanted.size = 0;
}

/* The answer to the CIR: the client id, or 0 if the guest wasn't let in. */
static uint64_t receive_welcome(guest *g)
{
    ps_frame head;
    ps_field field;
    const uint8_t *at = got;
    do {
        if (g->lost || !receive_exactly(g, PS_HEADER_SIZE))
            return 0;
        ps__read_header(got, &head);
        CHECK(head.kind == PS_CIR_ACCEPTED || head.kind == PS_CIR_REFUSED || (guests_prove && head.kind == PS_CHALLENGE));
        CHECK(head.size < 4096);
        if (!receive_exactly(g, head.size))
            return 0;
    } while (head.kind == PS_CHALLENGE);
    g->lost = head.kind == PS_CIR_REFUSED;
    if (g->lost)
        return 0;
    CHECK_EQ(ps__next_field(&at, got + head.size, &field), 1);
    CHECK(field.tag == PS_TAG_CLIENT_ID && field.size == 8);
    g->in = true;
    return (uint64_t)ps__get32(field.value) << 32 | ps__get32(field.value + 4);
}

static void guest_leave(guest *g)
{
    if (g->fd >= 0)
        CHECK_EQ(close(g->fd), 0);
    g->fd = -1;
}

#endif
