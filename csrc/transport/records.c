/* records.c: the bytes of a client that has been greeted: out of records, and into them; and the row of the transport.
 *
 * As many records as there are are opened by one call, and as many replies as there are are sealed into one: so a pipelined
 * client costs a record now and then, not one a message. Pieces that are smaller than a record are put together first. */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "table/table.h"
#include "transport/sessions.h"
#include "transport/tls.h"

/* -- reading ---------------------------------------------------------------------------------------------------------- */

/* OpenSSL has nothing more for us: what receive says from now on, or 1: that is for later to be seen. */
static int why_not(ps_tls_session *session)
{
    int why = ps_libssl.SSL_get_error(session->ssl, 0);
    ps_libssl.ERR_clear_error();
    if (why == PS_SSL_ERROR_ZERO_RETURN)
        return 0;
    if (why == PS_SSL_ERROR_WANT_READ && session->starved && !session->at_end && !session->error)
        return 1;
    if (why == PS_SSL_ERROR_WANT_READ && !session->starved && ++session->quiet <= PS_TLS_QUIET)
        return 1;
    if (session->at_end && session->starved && !session->error)
        return PS_CUT_SHORT; /* it may take replies still */
    session->stage = PS_TLS_BROKEN;
    return session->error ? session->error : PS_GARBLED;
}

/* Open what was read, into the pieces: how many bytes that are. */
static size_t open_records(ps_tls_session *session, struct iovec *iov, size_t count)
{
    size_t total = 0, got;
    for (size_t i = 0; i < count;) {
        session->starved = false;
        got = 0;
        if (iov[i].iov_len && ps_libssl.SSL_read_ex(session->ssl, iov[i].iov_base, iov[i].iov_len, &got) == 1) {
            session->quiet = 0;
            total += got;
            iov[i].iov_base = (uint8_t *)iov[i].iov_base + got;
            iov[i].iov_len -= got;
        } else if (iov[i].iov_len) {
            session->result = (int16_t)why_not(session);
            if (session->result != 1 || session->starved)
                break;
        }
        i += iov[i].iov_len == 0;
    }
    return total;
}

size_t ps__room_in(const struct iovec *iov, size_t count)
{
    size_t room = 0;
    for (size_t i = 0; i < count; i++)
        room += iov[i].iov_len;
    return room;
}

static ssize_t read_records(ps_tls_session *session, struct iovec *iov, size_t count)
{
    ssize_t total = 0, got;
    do {
        got = ps__tls_fill(session);
        if (got == -EAGAIN || got == -EINTR)
            break;
        total += (ssize_t)open_records(session, iov, count);
    } while (got == PS_TLS_IN && session->result == 1 && ps__room_in(iov, count) >= PS_READ_MAX);
    session->engine->tls->in_used = 0; /* behind the end there may be something, which is nobody else's */
    return total;
}

static ssize_t tls_receive(ps_engine *engine, ps_conn *conn, struct iovec *iov, size_t count)
{
    ps_tls_session *session = ps__session(engine, conn);
    if (session->stage == PS_TLS_GREETS)
        return ps__tls_greet(engine, session);
    if (session->stage == PS_TLS_DEAF)
        return ps__tls_ignore(session);
    if (session->result != 1)
        return session->result;
    if (ps_libssl.ERR_peek_error())
        ps_libssl.ERR_clear_error(); /* somebody else's */
    ssize_t total = read_records(session, iov, count);
    ps__tls_flush(session); /* what OpenSSL answers by itself */
    if (session->result == 1 && session->error)
        session->result = (int16_t)session->error;
    if (session->result == 1)
        return total ? total : -EAGAIN;
    if (!total)
        return session->result;
    conn->more = 1;
    ps__mark_dirty(engine, conn);
    return total;
}

/* -- writing ---------------------------------------------------------------------------------------------------------- */

size_t ps__copy_pieces(ps_pieces *from, uint8_t *to, size_t room)
{
    size_t copied = 0;
    while (from->count && copied < room) {
        size_t left = from->iov->iov_len - from->at, here = left < room - copied ? left : room - copied;
        memcpy(to + copied, (const uint8_t *)from->iov->iov_base + from->at, here);
        copied += here;
        from->at += here;
        if (from->at < from->iov->iov_len)
            break;
        from->iov++, from->count--, from->at = 0;
    }
    return copied;
}

static bool seal(ps_tls_session *session, const void *data, size_t size)
{
    size_t written = 0;
    if (ps_libssl.SSL_write_ex(session->ssl, data, size, &written) == 1 && written == size)
        return true;
    ps_libssl.ERR_clear_error();
    session->stage = PS_TLS_BROKEN;
    if (!session->error)
        session->error = -EPROTO;
    return false;
}

/* A piece that fills a record, or is the last, is sealed where it lies. */
static size_t seal_some(ps_tls_session *session, ps_pieces *from, size_t most)
{
    ps_tls_room *room = session->engine->tls;
    size_t here = from->iov->iov_len - from->at;
    if (from->count == 1 || here >= PS_TLS_RECORD) {
        const uint8_t *data = (const uint8_t *)from->iov->iov_base + from->at;
        size_t whole = from->count == 1 ? here : here - here % PS_TLS_RECORD, size = whole < most ? whole : most;
        if (!seal(session, data, size))
            return 0;
        from->at += size;
        if (from->at == from->iov->iov_len)
            from->iov++, from->count--, from->at = 0;
        return size;
    }
    size_t size = ps__copy_pieces(from, room->mixed, most < sizeof room->mixed ? most : sizeof room->mixed);
    return seal(session, room->mixed, size) ? size : 0;
}

static ssize_t send_slices(ps_tls_session *session, struct iovec *iov, size_t count)
{
    ps_pieces from = {iov, count, 0};
    ssize_t total = 0;
    while (from.count) {
        size_t slice = 0;
        while (from.count && slice < PS_TLS_SLICE && !session->error)
            slice += seal_some(session, &from, PS_TLS_SLICE - slice);
        ps__tls_flush(session);
        if (session->error)
            return session->error;
        total += (ssize_t)slice;
        if (session->held)
            break;
    }
    return total;
}

/* Before the handshake is over, and where it has failed, nothing can be said: it is as if it were. */
bool ps__tls_ready(ps_tls_session *session, const struct iovec *iov, size_t count, ssize_t *said)
{
    *said = ps__tls_flush(session);
    if (*said < 0 || !count)
        return false;
    *said = session->held ? -EAGAIN : (ssize_t)ps__room_in(iov, count);
    return !session->held && session->stage == PS_TLS_OPEN;
}

static ssize_t tls_send(ps_engine *engine, ps_conn *conn, struct iovec *iov, size_t count)
{
    ps_tls_session *session = ps__session(engine, conn);
    ssize_t said;
    if (!ps__tls_ready(session, iov, count, &said))
        return said;
    if (ps_libssl.ERR_peek_error())
        ps_libssl.ERR_clear_error();
    return send_slices(session, iov, count);
}

/* -- the row ---------------------------------------------------------------------------------------------------------- */

/* Before a handshake a text can't be said, but an alert can (RFC 8446, 6.2): access_denied to who isn't allowed, else
 * internal_error, which is for good in nobody's eyes. No handshake is paid for it. */
void ps__tls_last_words(int fd, const uint8_t *data, size_t size)
{
    bool denied = size >= PS_HEADER_SIZE && ps__get16(data + 6) == PS_REFUSED_NOT_ALLOWED;
    const uint8_t alert[] = {21, 3, 3, 0, 2, 2, denied ? 49 : 80};
    ps_sys.sendto(fd, alert, sizeof alert, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static size_t tls_facts(const ps_engine *engine, const ps_conn *conn, uint8_t *to, size_t room)
{
    const ps_tls_session *session = ps__session(engine, conn);
    const ps_facts *facts = session ? session->facts : NULL;
    if (facts)
        memcpy(to, facts->data, facts->size < room ? facts->size : room);
    return facts ? facts->size : 0;
}

const ps_transport ps__libssl = {
    .receive = tls_receive,
    .send = tls_send,
    .last_words = ps__tls_last_words,
    .open = ps__tls_open,
    .finish = ps__tls_finish,
    .forget = ps__tls_forget,
    .facts = tls_facts,
};
