/* proxied.c: a connection that a proxy has made begins with a header that says for whom. Until that is whole, the connection
 * is ACCEPTED, its descriptor is in the poll by a key of its own (PS_HEADER_KEY), and nobody else reads from it. So whoever
 * needs no header doesn't know of this.
 *
 * No byte behind the header is taken: what isn't known to be of it is only looked at (MSG_PEEK). So what reads next, the
 * framing or TLS, finds its own beginning in the socket. Nothing is believed before all of the header is there. */
#include <errno.h>
#include <string.h>

#include "base/causes.h"
#include "base/proxy.h"
#include "base/sys.h"
#include "conn/admit.h"
#include "conn/dismiss.h"
#include "conn/input.h"
#include "conn/life.h"
#include "conn/proxied.h"
#include "table/access.h"
#include "table/table.h"
#include "table/via.h"
#include "transport/transport.h"

static void header_failed(ps_engine *engine, ps_conn *conn, const ps_via_row *row, ssize_t result)
{
    if (result == -EAGAIN || result == -EINTR)
        return;
    if (result == -ENOMEM || result == -ENOBUFS) {
        ps__no_memory(engine, conn);
        return;
    }
    if (row->have) /* else it only wanted to see whether somebody is there, as proxies do */
        ps__note(engine, PS_CAUSE_HEADER);
    ps__lost(engine, conn, PS_CLOSED_BY_PEER);
}

/* Takes so many bytes, which are known to be of the header; how many there were. */
static size_t take(ps_engine *engine, ps_conn *conn, ps_via_row *row, uint8_t *to, size_t size)
{
    ssize_t got = ps_sys.recvfrom(conn->fd, to, size, 0);
    if (got <= 0) {
        header_failed(engine, conn, row, got);
        return 0;
    }
    PS_ADD(conn->bytes_in, (size_t)got);
    PS_ADD(engine->stats.bytes_in, (size_t)got);
    __atomic_store_n(&ps__tally(&engine->table, conn)->heard_ns, engine->now_ns, __ATOMIC_RELAXED);
    if (ps__via_add(row, to, (size_t)got))
        return (size_t)got;
    ps__no_memory(engine, conn);
    return 0;
}

/* How long it is isn't known: look at what is there, behind what has come before. Returns as ps_proxy_read; -EAGAIN: it isn't
 * read any more in this turn. */
static int begin_header(ps_engine *engine, ps_conn *conn, ps_via_row *row, ps_proxy_header *header)
{
    uint8_t *behind = engine->in + row->have;
    int versions = ps__listener(engine, conn)->proxy;
    if (row->have)
        memcpy(engine->in, row->part, row->have);
    ssize_t got = ps_sys.recvfrom(conn->fd, behind, PS_READ_MAX - row->have, MSG_PEEK);
    if (got <= 0) {
        header_failed(engine, conn, row, got);
        return -EAGAIN;
    }
    int whole = ps_proxy_read(engine->in, row->have + (size_t)got, versions, header);
    if (whole < 0)
        return whole;
    size_t mine = whole ? header->size - row->have : (size_t)got;
    return take(engine, conn, row, behind, mine) == mine ? whole : -EAGAIN;
}

static int read_header(ps_engine *engine, ps_conn *conn, ps_via_row *row, ps_proxy_header *header)
{
    int versions = ps__listener(engine, conn)->proxy;
    if (row->have)
        ps_proxy_read(row->part, row->have, versions, header);
    if (!row->have || !header->size)
        return begin_header(engine, conn, row, header);
    size_t missing = header->size - row->have;
    size_t got = take(engine, conn, row, engine->in, missing < PS_READ_MAX ? missing : PS_READ_MAX);
    return got == missing ? ps_proxy_read(row->part, row->have, versions, header) : -EAGAIN;
}

/* Whoever it is, it has come in as others do now. */
static void come_in(ps_engine *engine, ps_conn *conn)
{
    conn->awaits_header = 0;
    if (engine->poll->change(engine->poll_handle, conn->fd, ps__id(conn), PS_POLL_IN) < 0) {
        ps__no_memory(engine, conn);
        return;
    }
    if (!ps__framing(engine, conn)->has_cir && !ps__listener(engine, conn)->transport->open)
        ps__let_in(engine, conn);
    if (ps__reads(engine, conn))
        ps__readable(engine, conn); /* mostly there is more: it came with the header */
}

static void introduce(ps_engine *engine, ps_conn *conn, ps_via_row *row, const ps_proxy_header *header)
{
    bool told = header->is_local || ps__via_tell(engine, conn, header, row->part);
    ps__free(row->part);
    row->part = NULL;
    row->have = row->room = 0;
    if (told && header->family && ps__has_its_share(engine, conn))
        ps__dismiss(engine, conn, PS_END_ORIGIN, 0, NULL);
    else if (!told || (header->family && ps__count_peer(engine, conn) < 0))
        ps__no_memory(engine, conn);
    else
        come_in(engine, conn);
}

void ps__take_header(ps_engine *engine, ps_conn *conn)
{
    ps_proxy_header header = {.wrong = NULL};
    ps_via_row *row = ps__via(engine, conn);
    if (!row) {
        ps__no_memory(engine, conn);
        return;
    }
    int whole = read_header(engine, conn, row, &header);
    if (whole == 1)
        introduce(engine, conn, row, &header);
    else if (whole == -EBADMSG)
        ps__dismiss(engine, conn, PS_END_HEADER, 0, header.wrong);
}
