/* pack.c: held clients become rows, which another process makes clients of: see row.h. Nothing changes here but that nothing
 * can be sent to them any more: where they don't move after all, they are served from where they were. */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "base/wire.h"
#include "conn/cut.h"
#include "conn/queue.h"
#include "moving/pack.h"
#include "moving/row.h"
#include "table/backlog.h"
#include "table/table.h"
#include "table/timers.h"
#include "table/via.h"

/* -- bytes; where there was no memory once, all else is left out -------------------------------------------------------- */

static uint8_t *pack_room(ps_packed *to, size_t size)
{
    if (to->size + size > to->room) {
        size_t room = 2 * to->room > to->size + size ? 2 * to->room : to->size + size + 4096;
        uint8_t *data = ps_sys.resize(to->data, room);
        if (!data)
            return NULL;
        to->data = data;
        to->room = room;
    }
    to->size += size;
    return to->data + to->size - size;
}

static bool pack_bytes(ps_packed *to, const void *data, size_t size)
{
    uint8_t *at = pack_room(to, size);
    if (at && size)
        memcpy(at, data, size);
    return at;
}

static bool pack_head(ps_packed *to, unsigned number, size_t size)
{
    uint8_t head[6];
    ps__putle(head, ps__row_tag(number), 2);
    ps__putle(head + 2, size, 4);
    return pack_bytes(to, head, sizeof head);
}

static bool pack_value(ps_packed *to, unsigned number, const void *data, size_t size)
{
    return pack_head(to, number, size) && pack_bytes(to, data, size);
}

static bool put_needed(ps_packed *to, unsigned number, uint64_t value, unsigned size)
{
    uint8_t bytes[8];
    ps__putle(bytes, value, size);
    return pack_value(to, number, bytes, size);
}

static bool pack_number(ps_packed *to, unsigned number, uint64_t value, unsigned size)
{
    return !value || put_needed(to, number, value, size);
}

static bool pack_string(ps_packed *to, unsigned number, const char *text)
{
    return !*text || pack_value(to, number, text, strlen(text));
}

/* -- where a client came from ------------------------------------------------------------------------------------------ */

static uint8_t packed_family(int family)
{
    return family == AF_INET6 ? PS_ROW_IPV6 : family == AF_INET ? PS_ROW_IPV4 : PS_ROW_UNIX;
}

static size_t address_size(int family)
{
    return family == AF_INET6 ? 16 : family == AF_INET ? 4 : 0;
}

static bool put_origin(ps_packed *to, const ps_conn *conn)
{
    uint8_t value[PS_ROW_ADDRESS] = {packed_family(conn->origin)};
    if (conn->origin != AF_INET && conn->origin != AF_INET6)
        return true;
    ps__putle(value + 1, conn->peer_port, 2);
    memcpy(value + 3, conn->peer, address_size(conn->origin));
    return pack_value(to, PS_ROW_ORIGIN, value, sizeof value);
}

static bool put_via(ps_packed *to, const ps_via *via)
{
    uint8_t value[PS_ROW_VIA_HEAD] = {packed_family(via->family), via->has_path ? PS_ROW_HAS_PATH : 0};
    bool is_unix = via->family == AF_UNIX;
    ps__putle(value + 2, is_unix ? 0 : via->port, 2);
    memcpy(value + 4, via->peer, address_size(via->family));
    return pack_head(to, PS_ROW_VIA, sizeof value + via->size) && pack_bytes(to, value, sizeof value) &&
           pack_bytes(to, via->header, via->size);
}

static bool put_proxied(const ps_engine *engine, ps_packed *to, const ps_conn *conn)
{
    const ps_via_row *row = ps__via_row(engine, conn);
    const ps_via *via = row ? row->via : NULL;
    if (!via)
        return true;
    bool named = memcmp(via->peer, conn->peer, sizeof via->peer) != 0 || via->port != conn->peer_port ||
                 conn->origin != via->family;
    return (via->has_path || !named || put_origin(to, conn)) && put_via(to, via);
}

/* -- what was read and what is to be sent ------------------------------------------------------------------------------- */

/* The head of a frame that is half received, as it came; a deadline is told anew, with what is left of it. */
static size_t packed_head(const ps_engine *engine, const ps_conn *conn, uint8_t *head)
{
    const ps_framing_facts *framing = ps__framing(engine, conn);
    const ps_frame *frame = &conn->part->head;
    if (framing->name == PS_U32) {
        ps__put32(head, frame->size);
        return 4;
    }
    if (framing->name != PS_PYSOCK)
        return 0;
    bool taken = frame->deadline_ns && !(frame->flags & PS_DEADLINE);
    uint32_t before = taken ? PS_DEADLINE_SIZE : 0;
    uint64_t left = frame->deadline_ns > engine->now_ns ? (frame->deadline_ns - engine->now_ns) / 1000 : 0;
    ps__write_header(head, frame->size + before, frame->kind, frame->flags | (taken ? PS_DEADLINE : 0), frame->code,
                     frame->request_id);
    if (taken)
        ps__put32(head + PS_HEADER_SIZE, left < UINT32_MAX ? (uint32_t)left : UINT32_MAX);
    return PS_HEADER_SIZE + before;
}

static bool put_input(const ps_engine *engine, ps_packed *to, const ps_conn *conn)
{
    uint8_t head[PS_HEADER_SIZE + PS_DEADLINE_SIZE];
    const ps_part *part = conn->part;
    const ps_unread *unread = conn->unread;
    const ps_via_row *via = conn->awaits_header ? ps__via_row(engine, conn) : NULL;
    bool skips = conn->flags & PS_IS_SKIPPING;
    size_t head_size = part ? packed_head(engine, conn, head) : 0, stashed = skips ? 0 : conn->stash_size;
    size_t size = (part ? head_size + part->have : 0) + stashed + (unread ? unread->size : 0) + (via ? via->have : 0);
    if (size > UINT32_MAX)
        return false;
    bool good = !size || pack_head(to, PS_ROW_INPUT, size);
    if (via && via->have)
        good = good && pack_bytes(to, via->part, via->have);
    if (part)
        good = good && pack_bytes(to, head, head_size) && pack_bytes(to, part->data, part->have);
    if (stashed)
        good = good && pack_bytes(to, conn->stash, stashed);
    if (unread)
        good = good && pack_bytes(to, unread->data, unread->size);
    return good && (!skips || pack_number(to, PS_ROW_SKIP, conn->skip, 4));
}

static bool put_output(ps_packed *to, const ps_conn *conn)
{
    uint64_t size = conn->queued;
    if (!size)
        return true;
    bool good = size <= UINT32_MAX && pack_head(to, PS_ROW_OUTPUT, (size_t)size);
    for (const ps_chunk *chunk = conn->out_head; good && chunk; chunk = chunk->next) {
        struct iovec iov[2];
        uint8_t mark[PS_MARKED_HEAD];
        size_t count = ps__put_chunk(chunk, iov, mark);
        for (size_t i = 0; good && i < count; i++)
            good = pack_bytes(to, iov[i].iov_base, iov[i].iov_len);
    }
    return good;
}

/* -- a row -------------------------------------------------------------------------------------------------------------- */

static bool put_counters(const ps_engine *engine, ps_packed *to, const ps_conn *conn)
{
    const ps_tally *tally = ps__tally(&engine->table, conn);
    const uint64_t counters[6] = {conn->connected_at_ns, conn->requests, conn->bytes_in, conn->bytes_out,
                                  tally->frames_in, tally->frames_out};
    uint8_t value[sizeof counters];
    for (unsigned i = 0; i < 6; i++)
        ps__putle(value + 8 * i, counters[i], 8);
    return pack_value(to, PS_ROW_COUNTERS, value, sizeof value);
}

static bool put_deadlines(const ps_engine *engine, ps_packed *to, const ps_conn *conn)
{
    uint8_t value[PS_TIMER_LINKS * PS_ROW_DEADLINE_SIZE];
    size_t size = 0;
    for (int link = 0; link < PS_TIMER_LINKS; link++) {
        uint32_t ran;
        int list = ps__timer_resting(conn, (enum ps_timer_link)link, &ran);
        if (list < 0)
            continue;
        value[size] = (uint8_t)list;
        ps__putle(value + size + 1, ps__timer_left_ms(engine, (enum ps_timer_list)list, ran), 4);
        size += PS_ROW_DEADLINE_SIZE;
    }
    return !size || pack_value(to, PS_ROW_DEADLINES, value, size);
}

static uint64_t ms_since(const ps_engine *engine, uint64_t moment_ns)
{
    uint64_t ms = moment_ns && moment_ns < engine->now_ns ? (engine->now_ns - moment_ns) / 1000000u : 0;
    return ms < UINT32_MAX ? ms : UINT32_MAX;
}

static bool put_who(const ps_engine *engine, ps_packed *to, const ps_conn *conn)
{
    const char *name = conn->name ? conn->name : "", *software = conn->name ? name + strlen(name) + 1 : "";
    return put_needed(to, PS_ROW_ID, ps__id(conn), 8) && put_needed(to, PS_ROW_STATE, conn->state, 1) &&
           pack_number(to, PS_ROW_LISTENER, conn->listener, 1) && pack_number(to, PS_ROW_FEATURES, conn->features, 1) &&
           pack_string(to, PS_ROW_NAME, name) && pack_string(to, PS_ROW_SOFTWARE, software) &&
           put_needed(to, PS_ROW_MAX_REPLY, conn->max_reply, 4) &&
           (conn->state != PS_CONN_CHALLENGED || pack_value(to, PS_ROW_EXPECTED, conn->expected, PS_MAC_SIZE)) &&
           put_proxied(engine, to, conn) && put_counters(engine, to, conn) && put_deadlines(engine, to, conn);
}

static bool put_what(const ps_engine *engine, ps_packed *to, const ps_conn *conn)
{
    const ps_backlog *backlog = ps__backlog_row(engine, conn);
    return put_input(engine, to, conn) && put_output(to, conn) &&
           pack_number(to, PS_ROW_WINDOW, conn->stream_window, 4) &&
           pack_number(to, PS_ROW_GAP, backlog ? backlog->lost : 0, 4) &&
           pack_number(to, PS_ROW_HEARD, ms_since(engine, ps__tally(&engine->table, conn)->heard_ns), 4) &&
           pack_number(to, PS_ROW_GAVE_UP, !!(conn->flags & PS_GAVE_UP), 1) &&
           pack_number(to, PS_ROW_AWAITS_HEADER, conn->awaits_header, 1) &&
           pack_number(to, PS_ROW_WAITED, conn->unread ? ms_since(engine, conn->unread->read_ns) : 0, 4) &&
           pack_number(to, PS_ROW_DROPPED, backlog ? backlog->dropped : 0, 8);
}

static bool put_row(const ps_engine *engine, ps_packed *to, const ps_conn *conn)
{
    size_t at = to->size;
    if (!pack_room(to, 4) || !put_who(engine, to, conn) || !put_what(engine, to, conn))
        return false;
    ps__putle(to->data + at, to->size - at - 4, 4);
    to->fds[to->count++] = conn->fd;
    return true;
}

int ps__pack(ps_engine *engine, const uint64_t *ids, size_t count, ps_packed *packed)
{
    *packed = (ps_packed){.fds = ps_sys.allocate(count * sizeof *packed->fds + 1)};
    bool good = packed->fds;
    for (size_t i = 0; good && i < count; i++) {
        ps_conn *conn = ps__table_find(&engine->table, ids[i]);
        if (conn && ps__is_held(conn))
            good = put_row(engine, packed, conn);
    }
    if (!good) {
        ps__packed_free(packed);
        return -ENOMEM;
    }
    pthread_mutex_lock(&engine->lock);
    for (size_t i = 0; i < count; i++) {
        ps_conn *conn = ps__table_find(&engine->table, ids[i]);
        if (conn && ps__is_held(conn))
            __atomic_store_n(&conn->attached, conn->attached | PS_PACKED, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&engine->lock);
    return 0;
}

void ps__packed_free(ps_packed *packed)
{
    ps__free(packed->data);
    ps__free(packed->fds);
}
