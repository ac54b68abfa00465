/* greeting.c: how a session begins and ends: the handshake, and the word that nothing follows.
 *
 * A step of it is a good part of a millisecond of computing, which nobody else is served in: so a turn has one, when all who have
 * been let in are served. Who isn't dealt with in one turn is told of by the poll again in the next, the one who has waited
 * longest first. One that fails is counted, by what was wrong. */
#include <errno.h>
#include <string.h>

#include "base/causes.h"
#include "base/sys.h"
#include "transport/sessions.h"
#include "transport/tls.h"

/* Of a session that never was, or was taken back: it isn't in the table. */
static void free_session(ps_tls_session *session)
{
    if (session->ssl)
        ps_libssl.SSL_free(session->ssl); /* and its BIO */
    if (session->object)
        session->engine->hooks.tls_end(session->engine->hooks.context, session->object);
    ps__free(session->held);
    ps__free(session->facts);
    ps__free(session);
}

static int connect_to_socket(ps_tls_session *session)
{
    ps_BIO *bio = ps__tls_bio(session);
    if (!bio)
        return -ENOMEM;
    session->ssl = ps_libssl.SSL_new(session->security->context);
    if (!session->ssl) {
        ps_libssl.BIO_free(bio);
        return -ENOMEM;
    }
    ps_libssl.SSL_set_bio(session->ssl, bio, bio);
    ps_libssl.SSL_set_accept_state(session->ssl);
    return 0;
}

int ps__tls_open(ps_engine *engine, ps_conn *conn)
{
    ps_tls_session *session = ps_sys.allocate(sizeof *session);
    if (!session)
        return -ENOMEM;
    *session = (ps_tls_session){.engine = engine, .conn = conn, .result = 1, .stage = PS_TLS_GREETS};
    pthread_mutex_lock(&engine->lock);
    session->security = ps__listener(engine, conn)->security;
    session->security->users++;
    pthread_mutex_unlock(&engine->lock);
    int error = connect_to_socket(session);
    if (error == 0)
        error = ps__session_set(engine, conn, session);
    if (error == 0)
        return 0;
    ps_libssl.ERR_clear_error();
    pthread_mutex_lock(&engine->lock);
    ps__security_drop(session->security);
    pthread_mutex_unlock(&engine->lock);
    free_session(session);
    return error;
}

void ps__tls_forget(ps_engine *engine, ps_conn *conn)
{
    ps_tls_session *session = ps__session(engine, conn);
    if (!session)
        return;
    ps__session_set(engine, conn, NULL);
    conn->holds = conn->more = 0;
    pthread_mutex_lock(&engine->lock);
    ps__security_drop(session->security);
    pthread_mutex_unlock(&engine->lock);
    free_session(session);
}

void ps__tls_finish(ps_engine *engine, ps_conn *conn)
{
    ps_tls_session *session = ps__session(engine, conn);
    if (!session || session->has_finished || session->stage != PS_TLS_OPEN)
        return;
    session->has_finished = true;
    if (ps_libssl.SSL_shutdown(session->ssl) < 0)
        ps_libssl.ERR_clear_error();
    ps__tls_flush(session);
}

/* -- the handshake ---------------------------------------------------------------------------------------------------- */

bool ps__tls_may_step(const ps_tls_session *session)
{
    ps_tls_room *room = session->engine->tls;
    uint64_t id = ps__id(session->conn);
    if (room->steps == id) {
        room->steps = 0;
        return true;
    }
    if (!room->asks)
        room->asks = id;
    return false;
}

uint64_t ps__next_to_shake(ps_engine *engine)
{
    ps_tls_room *room = engine->tls;
    if (!room)
        return 0;
    room->steps = room->asks;
    room->asks = 0;
    return room->steps;
}

static void remember(ps_tls_room *room, const ps_tls_session *session)
{
    unsigned long error = ps_libssl.ERR_peek_last_error();
    long verified = ps_libssl.SSL_get_verify_result(session->ssl);
    room->last = (ps_handshake){.reason = error ? ps_libssl.ERR_reason_error_string(error) : NULL};
    if (verified == PS_X509_V_OK)
        return;
    room->last.verified = ps_libssl.X509_verify_cert_error_string(verified);
    room->last.verify_code = verified;
}

void ps_engine_handshake(const ps_engine *engine, ps_handshake *failed)
{
    *failed = engine->tls ? engine->tls->last : (ps_handshake){.reason = NULL};
}

/* Who leaves in the middle has done nothing wrong. Another one is told by an alert; if this end closed first, with something
 * unread, a reset could overtake it (RFC 2525, 2.17): so what else comes is thrown away until the client closes, which has the
 * deadline of the CIR for it. */
ssize_t ps__tls_not_greeted(ps_engine *engine, ps_tls_session *session)
{
    static const uint8_t protocol_version[] = {21, 3, 3, 0, 2, 2, 70}; /* a fatal alert: RFC 8446, 6 */
    session->stage = PS_TLS_BROKEN;
    if (session->error || session->at_end)
        return session->error ? session->error : -ECONNRESET;
    PS_ADD(engine->stats.refused, 1u);
    if (session->is_plain) /* of whom OpenSSL says nothing */
        ps_sys.sendto(session->conn->fd, protocol_version, sizeof protocol_version, MSG_NOSIGNAL);
    int shut = session->held ? -EAGAIN : ps_sys.shutdown(session->conn->fd, SHUT_WR);
    session->stage = shut < 0 ? PS_TLS_BROKEN : PS_TLS_DEAF;
    ps__note(engine, session->is_plain ? PS_CAUSE_NO_TLS : PS_CAUSE_TLS);
    return shut < 0 ? PS_NOT_GREETED : -EAGAIN;
}

ssize_t ps__tls_ignore(ps_tls_session *session)
{
    ssize_t got = ps__tls_fill(session);
    session->engine->tls->in_used = 0;
    return got > 0 || got == -EAGAIN || got == -EINTR ? -EAGAIN : PS_NOT_GREETED;
}

/* One step: as far as what has come allows. It waits for more only if it has asked for more: what has come and isn't taken would
 * be told of again and again. */
static bool shake(ps_engine *engine, ps_tls_session *session, bool *waits)
{
    ps_libssl.ERR_clear_error();
    session->starved = false;
    int result = ps_libssl.SSL_do_handshake(session->ssl);
    *waits = result != 1 && session->starved && ps_libssl.SSL_get_error(session->ssl, result) == PS_SSL_ERROR_WANT_READ;
    if (result != 1 && !*waits)
        remember(engine->tls, session);
    ps_libssl.ERR_clear_error();
    return result == 1;
}

ssize_t ps__tls_greet(ps_engine *engine, ps_tls_session *session)
{
    bool waits;
    if (!ps__tls_may_step(session))
        return -EAGAIN;
    bool done = shake(engine, session, &waits);
    ps__tls_flush(session);
    if (session->error == -ENOMEM)
        return -ENOMEM;
    if (!done && waits && !session->error && !session->at_end)
        return -EAGAIN;
    if (!done)
        return ps__tls_not_greeted(engine, session);
    session->stage = PS_TLS_OPEN;
    return ps__tls_learn(session) < 0 ? -ENOMEM : PS_GREETED;
}
