/* conn.c: one connection of the load generator: opening it, making and sending requests, receiving.
 *
 * Nothing that waits for the kernel is copied anywhere: a request differs from the prepared ones by its id at most,
 * so how many bytes of it are gone is all there is to remember. */
#include <errno.h>
#include <string.h>

#include "base/socket.h"
#include "base/sys.h"
#include "load/load.h"

enum { PIECES_MAX = 64 };

static uint32_t index_of(const ps_load *load, const ps_load_conn *conn)
{
    return (uint32_t)(conn - load->conns);
}

/* Edge-triggered, which saves the kernel a look at each connection for each of its events. What was not done to the end
 * is told again after EPOLL_CTL_MOD, though nothing else has changed. */
static void wait_for(ps_load *load, ps_load_conn *conn, int operation, unsigned interest)
{
    struct epoll_event event = {.events = interest | EPOLLRDHUP | EPOLLET, .data.u32 = index_of(load, conn)};
    conn->interest = (uint8_t)interest;
    int error = ps_sys.epoll_ctl(load->poll, operation, conn->fd, &event);
    if (error < 0)
        ps__load_fail(load, PS_LOAD_SYSTEM, error);
}

/* -- opening ------------------------------------------------------------------------------------------------------- */

static void begin(ps_load_conn *conn, int fd, uint64_t now_ns)
{
    ps_flight *flights = conn->flights;
    *conn = (ps_load_conn){.fd = fd, .phase = PS_LOAD_CONNECTING, .opened_ns = now_ns, .flights = flights};
}

static int cannot_open(ps_load *load, ps_load_conn *conn, int error)
{
    ps__load_close(conn);
    if (error == -EAGAIN || error == -EADDRNOTAVAIL)
        return -EAGAIN;
    ps__load_fail(load, PS_LOAD_CONNECT, error);
    return 0;
}

int ps__load_open(ps_load *load, ps_load_conn *conn)
{
    const struct sockaddr *name = (const struct sockaddr *)(const void *)load->address;
    int fd = ps_sys.socket(name->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        ps__load_fail(load, PS_LOAD_SYSTEM, fd);
        return 0;
    }
    if (name->sa_family != AF_UNIX)
        ps__no_delay(fd);
    begin(conn, fd, ps__now_ns());
    int error = ps_sys.connect(fd, name, load->options.address_size);
    if (error < 0 && error != -EINPROGRESS)
        return cannot_open(load, conn, error);
    wait_for(load, conn, EPOLL_CTL_ADD, error ? EPOLLOUT : EPOLLIN);
    if (!error && ps__load_runs(load))
        load->framing->connected(load, conn);
    return 0;
}

/* A connect() that could not be done at once has ended. */
static void finish_connect(ps_load *load, ps_load_conn *conn)
{
    int error = 0;
    socklen_t size = sizeof error;
    int failed = ps_sys.getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (failed || error) {
        ps__load_fail(load, PS_LOAD_CONNECT, failed ? failed : -error);
        return;
    }
    wait_for(load, conn, EPOLL_CTL_MOD, EPOLLIN);
    if (ps__load_runs(load))
        load->framing->connected(load, conn);
}

void ps__load_admitted(ps_load *load, ps_load_conn *conn)
{
    conn->phase = PS_LOAD_READY;
    load->scouted = true;
    load->heard_ns = load->now_ns;
    load->opening--;
    load->ready++;
    ps__load_count(&load->result.connections, 1);
    if (load->mode->admitted)
        load->mode->admitted(load, conn);
}

void ps__load_close(ps_load_conn *conn)
{
    if (conn->phase != PS_LOAD_SHUT)
        ps_sys.close(conn->fd);
    conn->phase = PS_LOAD_SHUT;
}

/* -- sending ------------------------------------------------------------------------------------------------------- */

void ps__load_make(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t at_ns)
{
    load->made += count;
    load->framing->make(load, conn, count, at_ns);
}

static void advance(const ps_load *load, ps_load_conn *conn, size_t count)
{
    size_t gone = conn->out_at + count;
    conn->sent += gone / load->frame;
    conn->out_at = (uint32_t)(gone % load->frame);
}

/* One large request, or what is left of it, from pieces that are alike. *size: how much that was. */
static ssize_t send_pieces(const ps_load *load, const ps_load_conn *conn, size_t *size)
{
    struct iovec iov[PIECES_MAX];
    struct msghdr message = {.msg_iov = iov};
    size_t at = conn->out_at;
    while (at < load->frame && message.msg_iovlen < PIECES_MAX) {
        size_t piece = load->frame - at;
        void *data = (void *)(uintptr_t)ps__load_piece(load, at, &piece);
        iov[message.msg_iovlen++] = (struct iovec){data, piece};
        at += piece;
    }
    *size = at - conn->out_at;
    return ps_sys.sendmsg(conn->fd, &message, MSG_NOSIGNAL);
}

/* As many as fit in one call. False: the kernel takes no more now. */
static bool send_some(ps_load *load, ps_load_conn *conn)
{
    uint64_t count = conn->made - conn->sent;
    if (count > load->out_frames)
        count = load->out_frames;
    if (load->framing->write_ids)
        load->framing->write_ids(load, conn, count);
    size_t size = count * load->frame - conn->out_at;
    ssize_t taken = load->large ? send_pieces(load, conn, &size)
                                : ps_sys.sendto(conn->fd, load->out + conn->out_at, size, MSG_NOSIGNAL);
    if (taken == -EPIPE || taken == -ECONNRESET)
        conn->deaf = true; /* the reason may still be read */
    else if (taken < 0 && taken != -EAGAIN && taken != -EINTR)
        ps__load_fail(load, PS_LOAD_SYSTEM, (int)taken);
    if (taken > 0)
        advance(load, conn, (size_t)taken);
    return taken == (ssize_t)size;
}

void ps__load_flush(ps_load *load, ps_load_conn *conn)
{
    while (conn->sent < conn->made && !conn->deaf && send_some(load, conn))
        continue;
    if (conn->sent < conn->made && !conn->deaf)
        wait_for(load, conn, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    else if (conn->interest & EPOLLOUT)
        wait_for(load, conn, EPOLL_CTL_MOD, EPOLLIN);
}

/* -- receiving ----------------------------------------------------------------------------------------------------- */

void ps__load_answered(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t now_ns)
{
    load->answered += count;
    load->heard_ns = now_ns;
    load->mode->answered(load, conn, count, now_ns);
}

/* Once. That it was all, a read that fills its room doesn't say, nor that the end follows (epoll(7), question 9). */
static void receive(ps_load *load, ps_load_conn *conn, bool ends)
{
    ssize_t got = ps_sys.recvfrom(conn->fd, load->in, load->in_room, 0);
    if (got == -EAGAIN)
        return;
    if (got <= 0 && got != -EINTR) {
        ps__load_fail(load, PS_LOAD_HUNG_UP, (int)got);
        return;
    }
    if (got > 0)
        load->framing->take(load, conn, load->in, (size_t)got, ps__now_ns());
    bool more = got < 0 || (size_t)got == load->in_room || ends;
    if (more && conn->phase != PS_LOAD_SHUT && ps__load_runs(load))
        wait_for(load, conn, EPOLL_CTL_MOD, conn->interest);
}

void ps__load_event(ps_load *load, ps_load_conn *conn, uint32_t events)
{
    bool ends = events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR);
    if (conn->phase == PS_LOAD_SHUT)
        return;
    if (conn->phase == PS_LOAD_CONNECTING) {
        finish_connect(load, conn);
        return;
    }
    if ((events & EPOLLIN) || ends)
        receive(load, conn, ends);
    if ((events & EPOLLOUT) && conn->phase == PS_LOAD_READY && ps__load_runs(load))
        ps__load_flush(load, conn);
}
