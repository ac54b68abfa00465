/* hold.c: clients stand still, to move to another process, and go on, or are gone from here.
 *
 * Each is first paused (PS_IS_MOVING): it isn't read, and what was in flight is answered. When nothing is, it is held
 * (PS_OUTPUT_WAITS as well): out of the poll, its deadlines stand still, what is sent to it waits. When its row is given away
 * (PS_PACKED) nothing is sent to it any more. One that comes from another process sleeps: it is held until it is woken.
 * Whoever ends meanwhile isn't among them any more, see ps__stay. */
#include <stdlib.h>

#include "base/host.h"
#include "base/sys.h"
#include "base/texts.h"
#include "conn/defer.h"
#include "conn/life.h"
#include "conn/output.h"
#include "conn/pending.h"
#include "conn/windup.h"
#include "moving/hold.h"
#include "table/backlog.h"
#include "table/deferred.h"
#include "table/descriptors.h"
#include "table/table.h"
#include "table/timers.h"
#include "transport/transport.h"

static bool is_moving(const ps_conn *conn)
{
    return conn->state && conn->state <= PS_CONN_ESTABLISHED && conn->flags & PS_IS_MOVING;
}

/* What TLS has agreed on lies in this process. */
static bool can_move(const ps_engine *engine, const ps_conn *conn)
{
    return conn->state && conn->state <= PS_CONN_ESTABLISHED && !(conn->flags & PS_REFUSES) &&
           ps__listener(engine, conn)->transport == &ps__plain;
}

static void pause_client(ps_engine *engine, ps_conn *conn)
{
    if (conn->flags & PS_IS_MOVING)
        return;
    ps__timer_rest(engine, conn, PS_LINK_INPUT);
    ps__timer_rest(engine, conn, PS_LINK_IDLE);
    conn->flags |= PS_IS_MOVING;
    ps__update_interest(engine, conn);
}

/* Whether it is since now. */
static bool hold_client(ps_engine *engine, ps_conn *conn)
{
    if (!is_moving(conn) || conn->flags & PS_OUTPUT_WAITS || conn->in_flight || conn->deferred != PS_NO_SLOT)
        return false;
    ps__timer_rest(engine, conn, PS_LINK_OUTPUT);
    ps__backlog_rest(engine, conn);
    conn->flags |= PS_OUTPUT_WAITS;
    conn->flags &= (uint16_t)~PS_IS_STARVED;
    ps__update_interest(engine, conn);
    return true;
}

static int compare_ids(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static void wake_client(ps_engine *engine, ps_conn *conn)
{
    ps__stay(engine, conn);
    ps__output_grew(engine, conn); /* it may be too much by now */
    if (conn->state != PS_CONN_CLOSED)
        ps__mark_dirty(engine, conn);
}

size_t ps__hold(ps_engine *engine, const uint64_t *but, size_t count, uint64_t *ids)
{
    size_t held = 0;
    ps__pending_flush(engine);
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        ps_conn *conn = ps__slot(&engine->table, slot);
        if (!can_move(engine, conn) || ps__is_held(conn))
            continue;
        uint64_t id = ps__id(conn);
        if (count && bsearch(&id, but, count, sizeof id, compare_ids)) {
            if (conn->flags & PS_IS_MOVING) /* since an earlier call: by now it is to be read */
                wake_client(engine, conn);
            continue;
        }
        pause_client(engine, conn);
        if (hold_client(engine, conn))
            ids[held++] = id;
    }
    qsort(ids, held, sizeof *ids, compare_ids);
    return held;
}

/* -- they go on -------------------------------------------------------------------------------------------------------- */

typedef struct sleeper {
    uint32_t slot, ran_ms;
} sleeper;

static int compare_sleepers(const void *left, const void *right)
{
    uint32_t a = ((const sleeper *)left)->ran_ms, b = ((const sleeper *)right)->ran_ms;
    return a > b ? -1 : a < b;
}

/* Those that have run for longest are first, so that each finds its place in the lists of deadlines at their end. Without
 * memory they come as they come, which only takes longer. */
static void wake_clients(ps_engine *engine)
{
    sleeper *all = ps_sys.allocate(engine->table.used * sizeof *all + 1);
    size_t count = 0;
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        ps_conn *conn = ps__slot(&engine->table, slot);
        uint32_t ran = 0;
        if (!is_moving(conn))
            continue;
        ps__timer_resting(conn, PS_LINK_IDLE, &ran);
        if (all)
            all[count++] = (sleeper){slot, ran};
        else
            wake_client(engine, conn);
    }
    if (count)
        qsort(all, count, sizeof *all, compare_sleepers);
    for (size_t i = 0; i < count; i++)
        wake_client(engine, ps__slot(&engine->table, all[i].slot));
    ps__free(all);
}

void ps__thaw(ps_engine *engine)
{
    engine->now_ns = ps__now_ns();
    if (engine->look_ns < engine->now_ns && engine->state != PS_SERVER_SERVING)
        engine->look_ns = engine->now_ns;
    wake_clients(engine);
    for (uint32_t slot = 0; engine->state == PS_SERVER_DRAINING && slot < engine->table.made; slot++) {
        ps_conn *conn = ps__slot(&engine->table, slot);
        if (conn->state && conn->state <= PS_CONN_ESTABLISHED && !(conn->flags & PS_REFUSES))
            ps__wind_up(engine, conn);
    }
}

/* -- they are gone ----------------------------------------------------------------------------------------------------- */

void ps__discard(ps_engine *engine, const uint64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ps_conn *conn = ps__table_find(&engine->table, ids[i]);
        if (!conn || !(ps__is_packed(conn) || conn->attached & PS_ASLEEP))
            continue;
        if (ps__is_packed(conn))
            engine->moved_out++;
        else
            engine->moved_in--;
        ps__moved_away(engine, conn);
    }
}

void ps__moving_stops(ps_engine *engine)
{
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        ps_conn *conn = ps__slot(&engine->table, slot);
        if (is_moving(conn) && conn->attached & PS_ASLEEP)
            ps__moved_away(engine, conn);
        else if (is_moving(conn) && !ps__is_packed(conn))
            wake_client(engine, conn);
    }
}

void ps__moving_ends(ps_engine *engine)
{
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        ps_conn *conn = ps__slot(&engine->table, slot);
        if (is_moving(conn) && (ps__is_packed(conn) || ps__is_held(conn)))
            ps__moved_away(engine, conn);
    }
}

/* -- they can't move, or not soon -------------------------------------------------------------------------------------- */

static void dismiss_client(ps_engine *engine, ps_conn *conn)
{
    if (conn->state > PS_CONN_ESTABLISHED || ps__is_packed(conn) || conn->flags & PS_REFUSES)
        return;
    if (conn->flags & PS_IS_MOVING)
        wake_client(engine, conn);
    if (conn->state <= PS_CONN_ESTABLISHED)
        ps__wind_up(engine, conn);
}

void ps__dismiss_unmoved(ps_engine *engine, const uint64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ps_conn *conn = ps__table_find(&engine->table, ids[i]);
        if (conn)
            dismiss_client(engine, conn);
    }
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        ps_conn *conn = ps__slot(&engine->table, slot);
        if (conn->state && ps__listener(engine, conn)->transport != &ps__plain)
            dismiss_client(engine, conn);
    }
}

/* Its client has the answer now: that it wasn't run, or that it was cut short, as whoever works for it says. What he makes of
 * it goes nowhere. */
static void cut_requests_short(ps_engine *engine, ps_conn *conn)
{
    bool has_texts = ps__framing(engine, conn)->has_texts;
    for (uint32_t slot = conn->deferred; slot != PS_NO_SLOT; slot = ps__deferred_at(engine, slot)->next)
        ps__deferred_mark(engine, ps__deferred_at(engine, slot), PS_WHY_STOPPED);
    ps__defer_tell(engine);
    if (conn->state == PS_CONN_CLOSED)
        return; /* it has taken too little of that, and its records are over */
    ps__deferred_orphan(engine, conn, PS_WHY_STOPPED);
    if (!has_texts)
        ps__pending_give_up(conn);
    if (!has_texts)
        ps__end(engine, conn, PS_EV_DRAIN, PS_SERVER_STOPPING);
    ps__mark_dirty(engine, conn);
}

void ps__hurry(ps_engine *engine)
{
    ps__pending_flush(engine);
    if (engine->batch_due_ns != UINT64_MAX)
        ps__fail(engine, engine->hooks.batches(engine->hooks.context, true, &engine->batch_due_ns));
    ps__pending_flush(engine);
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        ps_conn *conn = ps__slot(&engine->table, slot);
        if (is_moving(conn) && conn->deferred != PS_NO_SLOT)
            cut_requests_short(engine, conn);
    }
    ps__defer_tell(engine);
}

void ps__places(const ps_engine *engine, uint32_t *slots, uint32_t *generation)
{
    *slots = 0;
    *generation = 0;
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        const ps_conn *conn = ps__slot(&engine->table, slot);
        if (conn->state)
            *slots = slot + 1;
        *generation = conn->generation > *generation ? conn->generation : *generation;
    }
}
