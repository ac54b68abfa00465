/* slow.c: what becomes of a client for which too many pushes wait: more than the hard limit, or more than the soft one for
 * some time. One may always wait, however large it is.
 *
 * It is closed; or, where that is the policy and the client understands it, the new push is dropped, or the oldest ones are
 * that wait whole: never one that has begun to leave, and never a reply. The push that leaves next says how many. */
#include "base/causes.h"
#include "base/endings.h"
#include "conn/life.h"
#include "conn/queue.h"
#include "conn/slow.h"
#include "table/backlog.h"
#include "table/table.h"

static bool drops(const ps_engine *engine, const ps_conn *conn)
{
    return engine->options.slow != PS_SLOW_DISCONNECT && conn->features & PS_FEATURE_GAP;
}

static bool is_full(const ps_engine *engine, const ps_conn *conn, const ps_backlog *row, size_t size)
{
    const ps_limits *limits = &engine->options.limits;
    if (row->waiting && (row->is_late || row->waiting + size + PS_PUSH_COST > limits->push_hard))
        return true;
    return drops(engine, conn) && conn->queued + size + PS_GAP_SIZE > limits->output_drop; /* else it is closed for that */
}

static void change_queued(ps_engine *engine, ps_conn *conn, uint64_t more)
{
    ps__count_queued(conn, conn->queued + more);
    PS_ADD(conn->bytes_out, more);
    PS_ADD(engine->stats.bytes_out, more);
}

void ps__slow_mark(ps_engine *engine, ps_conn *conn, ps_chunk *chunk, uint32_t lost)
{
    if (lost && !chunk->lost)
        change_queued(engine, conn, PS_GAP_SIZE);
    chunk->lost += lost;
}

static void count_dropped(ps_engine *engine, ps_backlog *row)
{
    PS_ADD(row->dropped, 1u);
    ps__note_later(engine, PS_CAUSE_PUSH_DROPPED);
}

/* The oldest; whether there was one. */
static bool drop_oldest(ps_engine *engine, ps_conn *conn, ps_backlog *row)
{
    ps_chunk *behind = NULL, *chunk = ps__unlink_push(conn, &behind);
    if (!chunk)
        return false;
    uint32_t lost = chunk->lost + 1;
    ps__backlog_take(engine, conn, chunk->size);
    change_queued(engine, conn, 0 - (uint64_t)ps__chunk_size(chunk));
    PS_ADD(ps__tally(&engine->table, conn)->frames_out, UINT64_MAX); /* one less */
    count_dropped(engine, row);
    ps__free_chunks(engine, chunk);
    if (behind)
        ps__slow_mark(engine, conn, behind, lost);
    else
        row->lost += lost;
    ps__mark_dirty(engine, conn); /* nothing may be left to send */
    return true;
}

bool ps__slow_takes(ps_engine *engine, ps_conn *conn, size_t size)
{
    ps_backlog *row = ps__backlog(engine, conn);
    if (!row) {
        ps__no_memory(engine, conn);
        return false;
    }
    bool room = !is_full(engine, conn, row, size);
    if (!room && !drops(engine, conn)) {
        ps__cut_off(engine, conn, PS_END_PUSHES_FULL);
        return false;
    }
    if (engine->options.slow == PS_SLOW_DROP_OLD)
        while (!room && drop_oldest(engine, conn, row))
            room = !is_full(engine, conn, row, size);
    if (!room) {
        row->lost++;
        count_dropped(engine, row);
        return false;
    }
    ps__backlog_add(engine, conn, size);
    return true;
}

uint32_t ps__slow_tells(const ps_engine *engine, const ps_conn *conn)
{
    const ps_backlog *row = ps__backlog_row(engine, conn);
    return row ? row->lost : 0;
}

void ps__slow_end(ps_engine *engine)
{
    for (ps_conn *late; (late = ps__backlog_late(engine)) != NULL;) {
        if (drops(engine, late))
            ps__backlog_is_late(engine, late);
        else
            ps__cut_off(engine, late, PS_END_PUSHES_FULL);
    }
}
