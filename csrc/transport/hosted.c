/* hosted.c: the driver `ssl`: TLS by sessions of the host's, which are Python's module ssl over memory. It takes the contexts
 * that a program has made, and needs no OpenSSL of the system's.
 *
 * Bytes of the network move here, as with the other driver: many records by one call into the room that all sessions share,
 * and what is sealed by one call out of it. The host is asked once for all that has come, and once for a slice of what is to
 * be sent. A session is made with its client's first byte: who says nothing costs no Python. */
#include <errno.h>
#include <string.h>

#include "base/host.h"
#include "base/sys.h"
#include "table/table.h"
#include "transport/sessions.h"
#include "transport/tls.h"

/* -- the host --------------------------------------------------------------------------------------------------------- */

/* What ends the loop isn't this client's doing, but its session is of no use either. */
static int host_failed(ps_tls_session *session, int error)
{
    if (error != -ENOMEM)
        ps__fail(session->engine, error);
    session->stage = PS_TLS_BROKEN;
    return -ENOMEM;
}

static int begin_hosted(ps_tls_session *session)
{
    const ps_hooks *hooks = &session->engine->hooks;
    if (session->object)
        return 0;
    ps__enter(session->engine);
    int error = hooks->tls_begin(hooks->context, session->conn, &session->object);
    return error < 0 ? host_failed(session, error) : 0;
}

/* Into the pieces, of which the first are full then. */
static void fill_pieces(struct iovec *iov, const uint8_t *data, size_t size)
{
    for (; size; iov++) {
        size_t here = size < iov->iov_len ? size : iov->iov_len;
        memcpy(iov->iov_base, data, here);
        iov->iov_base = (uint8_t *)iov->iov_base + here;
        iov->iov_len -= here;
        data += here;
        size -= here;
    }
}

/* One step. What it opens goes into the pieces, how much that is to *opened; what it seals, into the room. What it says, as
 * enum ps_tls_said, or -ENOMEM. */
static int step_hosted(ps_tls_session *session, enum ps_tls_step what, const uint8_t *data, size_t size, struct iovec *iov,
                       size_t count, size_t *opened)
{
    const ps_hooks *hooks = &session->engine->hooks;
    ps_tls_made made;
    ps__enter(session->engine);
    int error = hooks->tls_step(hooks->context, session->object, what, data, size, ps__room_in(iov, count), &made);
    if (error < 0)
        return host_failed(session, error);
    fill_pieces(iov, made.opened, made.opened_size);
    *opened += made.opened_size;
    ps__tls_put(session, made.sealed, made.sealed_size);
    hooks->object_unref(hooks->context, made.object);
    return (int)made.said;
}

/* -- the handshake ---------------------------------------------------------------------------------------------------- */

static int hosted_open(ps_engine *engine, ps_conn *conn)
{
    ps_tls_session *session = ps_sys.allocate(sizeof *session);
    if (!session)
        return -ENOMEM;
    *session = (ps_tls_session){.engine = engine, .conn = conn, .result = 1, .stage = PS_TLS_GREETS};
    int error = ps__session_set(engine, conn, session);
    if (error < 0)
        ps__free(session);
    return error;
}

static ssize_t greeting_failed(ps_engine *engine, ps_tls_session *session, int said)
{
    session->is_plain = said & PS_TLS_STRANGE;
    engine->tls->last = (ps_handshake){.hosted = 1};
    return ps__tls_not_greeted(engine, session);
}

static void ask_again(ps_tls_session *session)
{
    session->conn->more = 1;
    ps__mark_dirty(session->engine, session->conn);
}

static ssize_t shake_hosted(ps_engine *engine, ps_tls_session *session)
{
    ps_tls_room *room = engine->tls;
    size_t opened = 0;
    int said = step_hosted(session, PS_TLS_SHAKE, room->in, room->in_used, NULL, 0, &opened);
    room->in_used = 0;
    if (said < 0)
        return said;
    ps__tls_flush(session);
    if (session->error == -ENOMEM)
        return -ENOMEM;
    if (session->error || said & PS_TLS_FAILED)
        return greeting_failed(engine, session, said);
    if (!(said & PS_TLS_DONE))
        return -EAGAIN;
    session->stage = PS_TLS_OPEN;
    session->has_more = said & PS_TLS_MORE;
    if (session->has_more)
        ask_again(session); /* what came behind the handshake, of which no poll tells */
    return PS_GREETED;
}

static ssize_t greet_hosted(ps_engine *engine, ps_tls_session *session)
{
    if (!ps__tls_may_step(session))
        return -EAGAIN;
    ssize_t got = ps__tls_fill(session);
    if (got == -EAGAIN || got == -EINTR)
        return -EAGAIN;
    if (got <= 0)
        return ps__tls_not_greeted(engine, session);
    return begin_hosted(session) < 0 ? -ENOMEM : shake_hosted(engine, session);
}

/* -- reading ---------------------------------------------------------------------------------------------------------- */

/* What receive says from now on, as soon as it has nothing else. */
static void note_said(ps_tls_session *session, int said)
{
    session->has_more = said >= 0 && said & PS_TLS_MORE;
    if (said < 0) {
        session->result = (int16_t)said;
    } else if (said & PS_TLS_FAILED) {
        session->stage = PS_TLS_BROKEN;
        session->result = PS_GARBLED;
    } else if (said & PS_TLS_ENDED) {
        session->result = 0;
    } else if (session->at_end && !session->has_more) {
        session->result = PS_CUT_SHORT; /* it may take replies still */
    }
}

static size_t read_hosted(ps_tls_session *session, struct iovec *iov, size_t count)
{
    ps_tls_room *room = session->engine->tls;
    size_t total = 0;
    ssize_t got;
    do {
        got = ps__tls_fill(session);
        int said = 0;
        if (got > 0 || session->has_more)
            said = step_hosted(session, PS_TLS_UNSEAL, room->in, room->in_used, iov, count, &total);
        room->in_used = 0;
        note_said(session, said);
    } while (got == PS_TLS_IN && session->result == 1 && ps__room_in(iov, count) >= PS_READ_MAX);
    return total;
}

static ssize_t hosted_receive(ps_engine *engine, ps_conn *conn, struct iovec *iov, size_t count)
{
    ps_tls_session *session = ps__session(engine, conn);
    if (session->stage == PS_TLS_GREETS)
        return greet_hosted(engine, session);
    if (session->stage == PS_TLS_DEAF)
        return ps__tls_ignore(session);
    if (session->result != 1)
        return session->result;
    size_t total = read_hosted(session, iov, count);
    ps__tls_flush(session); /* what the session answers by itself */
    if (session->result == 1 && session->error && !session->has_more)
        session->result = (int16_t)session->error;
    if (session->has_more || (total && session->result != 1))
        ask_again(session);
    if (total)
        return (ssize_t)total;
    return session->result == 1 ? -EAGAIN : session->result;
}

/* -- writing ---------------------------------------------------------------------------------------------------------- */

/* One piece is sealed where it lies; several are put together, in the room's part for what comes, which is free now. */
static bool seal_slice(ps_tls_session *session, ps_pieces *from, size_t *sealed)
{
    ps_tls_room *room = session->engine->tls;
    const uint8_t *data = room->in;
    size_t size, opened = 0;
    if (from->count == 1) {
        size_t left = from->iov->iov_len - from->at;
        data = (const uint8_t *)from->iov->iov_base + from->at;
        size = left < PS_TLS_SLICE ? left : PS_TLS_SLICE;
        from->at += size;
        from->count = size < left;
    } else {
        size = ps__copy_pieces(from, room->in, PS_TLS_SLICE);
    }
    *sealed = size;
    int said = size ? step_hosted(session, PS_TLS_SEAL, data, size, NULL, 0, &opened) : 0;
    return said >= 0 && !(said & PS_TLS_FAILED);
}

static ssize_t hosted_send(ps_engine *engine, ps_conn *conn, struct iovec *iov, size_t count)
{
    ps_tls_session *session = ps__session(engine, conn);
    ps_pieces from = {iov, count, 0};
    ssize_t said, total = 0;
    if (!ps__tls_ready(session, iov, count, &said))
        return said;
    while (from.count && !session->held) {
        size_t sealed = 0;
        bool good = seal_slice(session, &from, &sealed);
        ps__tls_flush(session);
        if (!good && !session->error)
            session->error = -EPROTO; /* how much of it was sealed nobody knows */
        if (session->error)
            return session->error;
        total += (ssize_t)sealed;
    }
    return total;
}

static void hosted_finish(ps_engine *engine, ps_conn *conn)
{
    ps_tls_session *session = ps__session(engine, conn);
    size_t opened = 0;
    if (!session || session->has_finished || session->stage != PS_TLS_OPEN)
        return;
    session->has_finished = true;
    step_hosted(session, PS_TLS_CLOSE, NULL, 0, NULL, 0, &opened);
    ps__tls_flush(session);
}

/* What is known of the other end the host knows itself. */
const ps_transport ps__hosted = {
    .receive = hosted_receive,
    .send = hosted_send,
    .last_words = ps__tls_last_words,
    .open = hosted_open,
    .finish = hosted_finish,
    .forget = ps__tls_forget,
};
