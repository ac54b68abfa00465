/* pending.c: requests that have no answer yet: how many of one client, and how many bytes; when it isn't read for them; and
 * which of them get an answer. A connection that is ending isn't closed while one of its requests waits: see ps__settle.
 *
 * Where no id tells which request a reply is for, the order does: answers are given in the order of the requests, and after
 * one that stays without an answer none may come. */
#include "conn/life.h"
#include "conn/output.h"
#include "conn/pending.h"
#include "table/table.h"

ps_pending ps__pending_add(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    PS_ADD(conn->in_flight, 1u);
    conn->in_flight_bytes += frame->size;
    if (conn->in_flight >= engine->options.limits.max_in_flight || conn->in_flight_bytes >= PS_PENDING_BYTES)
        conn->flags |= PS_PAUSED_PENDING;
    return (ps_pending){ps__id(conn), *frame};
}

static void take_off(ps_engine *engine, ps_conn *conn, uint32_t size)
{
    PS_TAKE_ONE(conn->in_flight);
    conn->in_flight_bytes -= size;
    if (conn->in_flight <= engine->options.limits.max_in_flight / 2 && conn->in_flight_bytes <= PS_PENDING_BYTES / 2)
        conn->flags &= (uint16_t)~PS_PAUSED_PENDING;
    if (conn->unread || conn->state != PS_CONN_ESTABLISHED || !(conn->interest & PS_POLL_IN))
        ps__mark_dirty(engine, conn); /* to be read again, or closed */
}

ps_conn *ps__pending_done(ps_engine *engine, const ps_pending *pending)
{
    ps_conn *conn = ps__table_find(&engine->table, pending->client_id);
    if (!conn)
        return NULL;
    if (engine->out_conn != conn) {
        ps__pending_flush(engine);
        ps__output_begin(engine, conn);
    }
    take_off(engine, conn, pending->frame.size);
    return conn->flags & PS_GAVE_UP ? NULL : conn;
}

void ps__pending_flush(ps_engine *engine)
{
    if (engine->out_conn)
        ps__output_end(engine, engine->out_conn);
}

void ps__pending_give_up(ps_conn *conn)
{
    conn->flags |= PS_GAVE_UP;
}
