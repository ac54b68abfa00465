/* bio.c: between OpenSSL, or the host's sessions, and the kernel. OpenSSL reads and writes by a BIO of ours, which calls no
 * function of the system's but sys.c's: its own socket BIO would have write() raise SIGPIPE.
 *
 * Records are read into the room that all sessions share, many by one call, and handed to OpenSSL in the pieces that it asks
 * for: a header, then what belongs to it. What it has got of a record that isn't whole it keeps itself. In a handshake it
 * reads from the kernel what it asks for, and no more: what follows may be anything. What it writes is gathered and goes to
 * the kernel by one call; only what the kernel doesn't take becomes memory of the session. So OpenSSL never has to wait before
 * it can write, and never has to be called again with the same bytes. */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "table/table.h"
#include "transport/tls.h"

enum { AN_ALERT = 21, A_HANDSHAKE = 22, PS_HELD_MAX = 4 * PS_TLS_OUT };

static void socket_failed(ps_tls_session *session, int error)
{
    if (!session->error)
        session->error = error;
}

/* -- what waits ----------------------------------------------------------------------------------------------------- */

static void hold(ps_tls_session *session, const uint8_t *data, size_t size)
{
    ps_held *held = session->held;
    size_t before = held ? held->size - held->sent : 0;
    if (held && held->sent) {
        memmove(held->data, held->data + held->sent, before);
        held->size = before;
        held->sent = 0;
    }
    /* What is sent isn't sealed before nothing is held: so these are answers to records that make OpenSSL answer by itself. */
    ps_held *grown = before + size > PS_HELD_MAX ? NULL : ps_sys.resize(held, sizeof *held + before + size);
    if (!grown) {
        socket_failed(session, -ENOMEM);
        return;
    }
    if (!held)
        grown->sent = 0;
    memcpy(grown->data + before, data, size);
    grown->size = before + size;
    session->held = grown;
    session->conn->holds = 1;
    ps__mark_dirty(session->engine, session->conn);
}

static void drop_held(ps_tls_session *session)
{
    ps__free(session->held);
    session->held = NULL;
    session->conn->holds = 0;
}

/* How many bytes the kernel has taken: 0, as well, where it wants to be asked later. */
static size_t to_kernel(ps_tls_session *session, const uint8_t *data, size_t size)
{
    ssize_t sent = ps_sys.sendto(session->conn->fd, data, size, MSG_NOSIGNAL);
    if (sent >= 0)
        return (size_t)sent;
    if (sent != -EAGAIN && sent != -EINTR)
        socket_failed(session, (int)sent);
    return 0;
}

/* As often as something is taken: the buffer of a socket may be smaller than what is held. */
static ssize_t send_sealed(ps_tls_session *session)
{
    ps_held *held = session->held;
    ssize_t total = 0;
    while (held && held->sent < held->size && !session->error) {
        size_t sent = to_kernel(session, held->data + held->sent, held->size - held->sent);
        if (!sent)
            break;
        held->sent += sent;
        total += (ssize_t)sent;
    }
    if (held && held->sent == held->size)
        drop_held(session);
    return total;
}

/* The kernel is short of memory: that passes, and what is sealed already can't be sealed again. */
static bool passes(int error)
{
    return error == -ENOBUFS || error == -ENOMEM;
}

ssize_t ps__tls_flush(ps_tls_session *session)
{
    ps_tls_room *room = session->engine->tls;
    ssize_t total = send_sealed(session);
    size_t sent = 0, size = room->out_used;
    room->out_used = 0;
    if (size && !session->held && !session->error)
        sent = to_kernel(session, room->out, size);
    int error = session->error;
    if (passes(error))
        session->error = 0;
    if (sent < size && !session->error)
        hold(session, room->out + sent, size - sent);
    if (session->error)
        return session->error;
    return passes(error) ? error : total;
}

void ps__tls_put(ps_tls_session *session, const uint8_t *data, size_t size)
{
    ps_tls_room *room = session->engine->tls;
    while (size) {
        size_t left = sizeof room->out - room->out_used, here = size < left ? size : left;
        memcpy(room->out + room->out_used, data, here);
        room->out_used += here;
        data += here;
        size -= here;
        if (size)
            ps__tls_flush(session);
    }
}

/* -- what OpenSSL calls ---------------------------------------------------------------------------------------------- */

static int take_read(ps_tls_room *room, char *to, int size)
{
    size_t left = room->in_used - room->in_at, taken = (size_t)size < left ? (size_t)size : left;
    memcpy(to, room->in + room->in_at, taken);
    room->in_at += taken;
    return (int)taken;
}

/* Into the room, all of which has been taken: as recv(). */
ssize_t ps__tls_fill(ps_tls_session *session)
{
    ps_tls_room *room = session->engine->tls;
    ssize_t got = ps_sys.recvfrom(session->conn->fd, room->in, sizeof room->in, 0);
    room->in_at = 0;
    room->in_used = got > 0 ? (size_t)got : 0;
    if (got == 0)
        session->at_end = true;
    else if (got < 0 && got != -EAGAIN && got != -EINTR)
        socket_failed(session, (int)got);
    return got;
}

static int read_directly(ps_tls_session *session, char *to, int size)
{
    ssize_t got = ps_sys.recvfrom(session->conn->fd, to, (size_t)size, 0);
    if (got > 0 && !session->has_heard) {
        session->has_heard = true;
        session->is_plain = *to != A_HANDSHAKE && *to != AN_ALERT;
    }
    if (got == 0)
        session->at_end = true;
    else if (got < 0 && got != -EAGAIN && got != -EINTR)
        socket_failed(session, (int)got);
    return got > 0 ? (int)got : 0;
}

static int bio_read(ps_BIO *bio, char *to, int size)
{
    ps_tls_session *session = ps_libssl.BIO_get_data(bio);
    ps_tls_room *room = session->engine->tls;
    ps_libssl.BIO_clear_flags(bio, PS_BIO_FLAGS_RWS | PS_BIO_FLAGS_SHOULD_RETRY);
    int got = 0;
    if (size <= 0)
        return 0;
    if (session->stage == PS_TLS_GREETS)
        got = read_directly(session, to, size);
    else if (room->in_at < room->in_used)
        got = take_read(room, to, size);
    if (got)
        return got;
    session->starved = true;
    if (session->error)
        return -1;
    if (session->at_end)
        return 0;
    ps_libssl.BIO_set_flags(bio, PS_BIO_FLAGS_READ | PS_BIO_FLAGS_SHOULD_RETRY);
    return -1;
}

/* Whatever becomes of it later, it is taken. */
static int bio_write(ps_BIO *bio, const char *from, int size)
{
    ps_libssl.BIO_clear_flags(bio, PS_BIO_FLAGS_RWS | PS_BIO_FLAGS_SHOULD_RETRY);
    if (size > 0)
        ps__tls_put(ps_libssl.BIO_get_data(bio), (const uint8_t *)from, (size_t)size);
    return size;
}

static long bio_ctrl(ps_BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == PS_BIO_CTRL_FLUSH; /* there is nothing that isn't on its way */
}

ps_BIO *ps__tls_bio(ps_tls_session *session)
{
    ps_BIO *bio = ps_libssl.BIO_new(session->engine->tls->method);
    if (!bio)
        return NULL;
    ps_libssl.BIO_set_data(bio, session);
    ps_libssl.BIO_set_init(bio, 1);
    return bio;
}

/* -- the room -------------------------------------------------------------------------------------------------------- */

static ps_BIO_METHOD *make_method(void)
{
    ps_BIO_METHOD *method = ps_libssl.BIO_meth_new(PS_BIO_TYPE_SOURCE_SINK, "pysock");
    if (method && ps_libssl.BIO_meth_set_read(method, bio_read) && ps_libssl.BIO_meth_set_write(method, bio_write) &&
        ps_libssl.BIO_meth_set_ctrl(method, bio_ctrl))
        return method;
    if (method)
        ps_libssl.BIO_meth_free(method);
    return NULL;
}

int ps__tls_room(ps_engine *engine)
{
    if (engine->tls)
        return 0;
    ps_tls_room *room = ps_sys.allocate(sizeof *room);
    if (!room)
        return -ENOMEM;
    memset(room, 0, offsetof(ps_tls_room, in));
    engine->tls = room;
    return 0;
}

int ps__tls_method(ps_engine *engine)
{
    if (!engine->tls->method)
        engine->tls->method = make_method();
    return engine->tls->method ? 0 : -ENOMEM;
}

void ps__tls_room_free(ps_engine *engine)
{
    if (engine->tls && engine->tls->method)
        ps_libssl.BIO_meth_free(engine->tls->method);
    ps__free(engine->tls);
    engine->tls = NULL;
}
