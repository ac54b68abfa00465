/* add.c: rows become clients, which sleep, as those do that are held: until they are woken nothing of them is read or
 * written. What was read of them is cut then, as it would have been. */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "base/sys.h"
#include "conn/life.h"
#include "conn/queue.h"
#include "moving/add.h"
#include "moving/row.h"
#include "table/access.h"
#include "table/backlog.h"
#include "table/table.h"
#include "table/timers.h"
#include "table/via.h"
#include "transport/transport.h"

static bool has_field(const ps_moved_row *row, unsigned number)
{
    return row->value[number] && row->size[number];
}

/* Why this engine can't have it; NULL: it can. */
static const char *check_client(const ps_engine *engine, const ps_moved_row *row)
{
    uint64_t listener = ps__row_number(row, PS_ROW_LISTENER), state = ps__row_number(row, PS_ROW_STATE);
    if (listener >= engine->listener_count)
        return "there is no such listener";
    const ps_listener *at = &engine->listeners[listener];
    if (at->transport != &ps__plain)
        return "its listener speaks TLS";
    if (ps__row_number(row, PS_ROW_FEATURES) & ~(uint64_t)PS_FEATURES)
        return "it speaks of more than there is here";
    if (state == PS_CONN_CHALLENGED && row->size[PS_ROW_EXPECTED] != PS_MAC_SIZE)
        return "its MAC has another size";
    if (state != PS_CONN_ESTABLISHED && !at->framing->has_cir && !at->proxy)
        return "its framing lets everybody in";
    if (has_field(row, PS_ROW_AWAITS_HEADER) && !at->proxy)
        return "no proxy is expected at its listener";
    if (has_field(row, PS_ROW_SKIP) && !at->framing->has_ids)
        return "its framing skips nothing";
    return NULL;
}

/* -- what it is made of; false: there is no memory ---------------------------------------------------------------------- */

/* The software is only shown: as much of it as there is room for. */
static bool add_texts(ps_conn *conn, const ps_moved_row *row)
{
    const uint8_t *software = row->value[PS_ROW_SOFTWARE];
    size_t name_size = row->size[PS_ROW_NAME], size = row->size[PS_ROW_SOFTWARE];
    size = size < PS_NAME_MAX ? size : PS_NAME_MAX;
    size = software ? strnlen((const char *)software, size) : 0;
    if (!name_size && !size)
        return true;
    char *texts = ps_sys.allocate(name_size + size + 2);
    if (!texts)
        return false;
    memset(texts, 0, name_size + size + 2);
    if (name_size)
        memcpy(texts, row->value[PS_ROW_NAME], name_size);
    if (size)
        memcpy(texts + name_size + 1, software, size);
    conn->name = texts;
    return true;
}

static bool add_proof(ps_conn *conn, const ps_moved_row *row)
{
    if (conn->state != PS_CONN_CHALLENGED)
        return true;
    conn->expected = ps_sys.allocate(PS_MAC_SIZE);
    if (conn->expected)
        memcpy(conn->expected, row->value[PS_ROW_EXPECTED], PS_MAC_SIZE);
    return conn->expected;
}

static bool add_input(ps_engine *engine, ps_conn *conn, const ps_moved_row *row)
{
    size_t size = row->size[PS_ROW_INPUT];
    if (has_field(row, PS_ROW_SKIP)) {
        conn->skip = (uint32_t)ps__row_number(row, PS_ROW_SKIP);
        conn->flags |= conn->skip ? PS_IS_SKIPPING : 0;
    }
    if (conn->awaits_header) {
        ps_via_row *via = ps__via(engine, conn);
        return via && (!size || ps__via_add(via, row->value[PS_ROW_INPUT], size));
    }
    if (!size)
        return true;
    conn->unread = ps_sys.allocate(sizeof *conn->unread + size);
    if (!conn->unread)
        return false;
    uint64_t waited = ps__row_number(row, PS_ROW_WAITED) * 1000000u;
    *conn->unread = (ps_unread){.size = size, .read_ns = waited < engine->now_ns ? engine->now_ns - waited : 1};
    memcpy(conn->unread->data, row->value[PS_ROW_INPUT], size);
    return true;
}

static bool add_output(ps_conn *conn, const ps_moved_row *row)
{
    if (!row->size[PS_ROW_OUTPUT])
        return true;
    ps_chunk *chunk = ps__copy_chunk(row->value[PS_ROW_OUTPUT], row->size[PS_ROW_OUTPUT]);
    if (!chunk)
        return false;
    ps__append_chunk(conn, chunk);
    ps__count_queued(conn, row->size[PS_ROW_OUTPUT]);
    return true;
}

static bool add_backlog(ps_engine *engine, ps_conn *conn, const ps_moved_row *row)
{
    uint64_t lost = ps__row_number(row, PS_ROW_GAP), dropped = ps__row_number(row, PS_ROW_DROPPED);
    if (!lost && !dropped)
        return true;
    ps_backlog *backlog = ps__backlog(engine, conn);
    if (!backlog)
        return false;
    backlog->lost = (uint32_t)lost;
    __atomic_store_n(&backlog->dropped, dropped, __ATOMIC_RELAXED);
    backlog->rests = true;
    return true;
}

static int added_family(uint8_t family)
{
    return family == PS_ROW_IPV6 ? AF_INET6 : family == PS_ROW_IPV4 ? AF_INET : AF_UNIX;
}

static bool add_via(ps_engine *engine, ps_conn *conn, const ps_moved_row *row)
{
    const uint8_t *value = row->value[PS_ROW_VIA], *origin = row->value[PS_ROW_ORIGIN];
    if (!value)
        return true;
    uint32_t size = row->size[PS_ROW_VIA] - PS_ROW_VIA_HEAD;
    ps_via_row *via_row = ps__via(engine, conn);
    ps_via *via = via_row ? ps_sys.allocate(sizeof *via + PS_PROXY_KEPT) : NULL;
    if (!via)
        return false;
    memset(via, 0, sizeof *via + PS_PROXY_KEPT); /* a path is looked for where the header says, all of it or not */
    *via = (ps_via){.family = (uint8_t)added_family(value[0]), .has_path = value[1] & PS_ROW_HAS_PATH,
                    .port = (uint16_t)(value[2] | value[3] << 8), .size = size};
    memcpy(via->peer, value + 4, sizeof via->peer);
    memcpy(via->header, value + PS_ROW_VIA_HEAD, size);
    via_row->via = via;
    if (origin) {
        conn->origin = (unsigned)added_family(origin[0]) & 0xFu;
        conn->peer_port = (uint16_t)(origin[1] | origin[2] << 8);
        memcpy(conn->peer, origin + 3, sizeof conn->peer);
    } else if (via->has_path || conn->family == AF_UNIX) {
        conn->origin = 0;
    }
    return true;
}

static void add_counters(ps_engine *engine, ps_conn *conn, const ps_moved_row *row)
{
    const uint8_t *counters = row->value[PS_ROW_COUNTERS];
    uint64_t heard = ps__row_number(row, PS_ROW_HEARD) * 1000000u;
    ps_tally *tally = ps__tally(&engine->table, conn);
    tally->heard_ns = heard < engine->now_ns ? engine->now_ns - heard : 1;
    conn->connected_at_ns = counters ? ps__get64le(counters) : ps__wall_ns();
    if (!counters)
        return;
    conn->requests = ps__get64le(counters + 8);
    conn->bytes_in = ps__get64le(counters + 16);
    conn->bytes_out = ps__get64le(counters + 24);
    tally->frames_in = (uint32_t)ps__get64le(counters + 32);
    tally->frames_out = ps__get64le(counters + 40);
}

static void add_deadlines(const ps_engine *engine, ps_conn *conn, const ps_moved_row *row)
{
    const uint8_t *at = row->value[PS_ROW_DEADLINES];
    for (uint32_t i = 0; at && i < row->size[PS_ROW_DEADLINES]; i += PS_ROW_DEADLINE_SIZE)
        ps__timer_rests(engine, conn, (enum ps_timer_list)at[i], ps__get32le(at + i + 1));
}

/* -- a client ----------------------------------------------------------------------------------------------------------- */

static void begin_client(const ps_engine *engine, ps_conn *conn, const ps_moved_row *row, int fd)
{
    const ps_listener *listener = &engine->listeners[ps__row_number(row, PS_ROW_LISTENER)];
    conn->listener = (uint8_t)ps__row_number(row, PS_ROW_LISTENER);
    conn->fd = fd;
    conn->family = conn->origin = (unsigned)listener->family & 0xFu;
    conn->reason = PS_NO_REASON;
    conn->features = (uint8_t)ps__row_number(row, PS_ROW_FEATURES);
    conn->max_reply = (uint32_t)ps__row_number(row, PS_ROW_MAX_REPLY);
    conn->stream_window = (uint32_t)ps__row_number(row, PS_ROW_WINDOW);
    conn->attached = PS_ASLEEP;
    conn->awaits_header = has_field(row, PS_ROW_AWAITS_HEADER);
    conn->flags = PS_IS_MOVING | PS_OUTPUT_WAITS | (has_field(row, PS_ROW_GAVE_UP) ? PS_GAVE_UP : 0);
}

static bool complete_client(ps_engine *engine, ps_conn *conn, const ps_moved_row *row)
{
    ps__remember_origin(engine, conn);
    conn->state = (uint8_t)ps__row_number(row, PS_ROW_STATE);
    if (conn->state == PS_CONN_ESTABLISHED)
        __atomic_store_n(&conn->was_let_in, 1, __ATOMIC_RELAXED);
    add_counters(engine, conn, row);
    add_deadlines(engine, conn, row);
    return add_texts(conn, row) && add_via(engine, conn, row) && add_proof(conn, row) && add_input(engine, conn, row) &&
           add_output(conn, row) && add_backlog(engine, conn, row) &&
           (conn->awaits_header || ps__count_peer(engine, conn) == 0);
}

/* As if it had never been: its descriptor is the caller's. */
static void take_client_back(ps_engine *engine, uint64_t id)
{
    ps_conn *conn = ps__table_row(&engine->table, id);
    ps__drop_proof(conn);
    ps__free_chunks(engine, ps__take_queue(conn));
    ps__free(conn->unread);
    ps__uncount_peer(engine, conn);
    pthread_mutex_lock(&engine->lock);
    ps__free(conn->name);
    ps__backlog_clear(engine, conn);
    ps__via_forget(engine, conn);
    conn->name = NULL;
    conn->unread = NULL;
    conn->fd = -1;
    ps__table_remove(&engine->table, conn);
    pthread_mutex_unlock(&engine->lock);
}

/* Others may look at the table, but not before all of them are there: they have the lock as long. */
static int add_one(ps_engine *engine, ps_added *added, size_t number, const ps_moved_row *row)
{
    bool taken;
    uint64_t id = ps__row_number(row, PS_ROW_ID);
    if ((uint32_t)id >> PS_SLOT_BITS) {
        added->why = "its id is of another kind";
        return -EBADMSG;
    }
    ps_conn *conn = ps__table_take(&engine->table, id, &taken);
    if (taken)
        added->why = "its id is taken";
    if (!conn)
        return taken ? -EBADMSG : (uint32_t)id >= engine->table.most ? -ENOSPC : -ENOMEM;
    added->ids[number] = id;
    begin_client(engine, conn, row, added->fds[number]);
    return 0;
}

static int add_rows(ps_engine *engine, ps_added *added, size_t *done)
{
    const uint8_t *at = added->rows, *end = added->size ? at + added->size : at; /* none: NULL, perhaps */
    ps_moved_row row;
    int more;
    while ((more = ps__row_read(&at, end, &row, &added->why)) > 0) {
        added->wrong = *done;
        added->why = *done == added->count ? "there is no descriptor for it" : check_client(engine, &row);
        if (added->why)
            return -EBADMSG;
        pthread_mutex_lock(&engine->lock);
        int error = add_one(engine, added, *done, &row);
        pthread_mutex_unlock(&engine->lock);
        if (error < 0)
            return error;
        ++*done;
        if (!complete_client(engine, ps__table_row(&engine->table, added->ids[*done - 1]), &row))
            return -ENOMEM;
    }
    added->wrong = *done;
    if (more == 0 && *done < added->count)
        added->why = "there are more descriptors than rows";
    return more < 0 || *done < added->count ? -EBADMSG : 0;
}

int ps__add(ps_engine *engine, ps_added *added)
{
    size_t done = 0;
    engine->now_ns = ps__now_ns();
    int error = add_rows(engine, added, &done);
    for (size_t i = 0; error < 0 && i < done; i++)
        take_client_back(engine, added->ids[i]);
    bool listed = false; /* a slot was taken that others might have been given */
    for (size_t i = 0; i < done; i++)
        listed |= (uint32_t)added->ids[i] >= engine->table.reserved;
    pthread_mutex_lock(&engine->lock);
    if (listed)
        ps__table_relist(&engine->table);
    pthread_mutex_unlock(&engine->lock);
    for (size_t i = 0; error == 0 && i < done; i++) {
        const ps_conn *conn = ps__table_row(&engine->table, added->ids[i]);
        if (conn->was_let_in)
            PS_ADD(engine->stats.clients, 1u);
        else
            PS_ADD(engine->stats.pending, 1u);
        engine->moved_in++;
    }
    return error;
}
