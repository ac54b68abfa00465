/* backlog.c: the pushes that wait for each client, who has had too many of them for some time, and who didn't get some.
 *
 * The rows are by slot, as in the client table, but beside it: they are made, a chunk at a time, where a push waits for the
 * first time, for most servers push to few or to nobody. The clock is that of the deadlines of output: nobody is over a
 * limit for long because the loop was held up. */
#include <string.h>

#include "base/sys.h"
#include "table/backlog.h"
#include "table/table.h"
#include "table/timers.h"

/* Other threads look, too: under the lock, so that none is freed meanwhile; but the loop makes some without it. */
static ps_backlog *row_at(const ps_engine *engine, uint32_t slot)
{
    ps_backlog **chunks = __atomic_load_n(&engine->backlogs, __ATOMIC_ACQUIRE);
    ps_backlog *chunk = chunks ? __atomic_load_n(&chunks[slot / PS_CHUNK_SLOTS], __ATOMIC_ACQUIRE) : NULL;
    return chunk ? &chunk[slot % PS_CHUNK_SLOTS] : NULL;
}

static void *zeros(size_t size)
{
    void *block = ps_sys.allocate(size);
    if (block)
        memset(block, 0, size);
    return block;
}

ps_backlog *ps__backlog_row(const ps_engine *engine, const ps_conn *conn)
{
    return row_at(engine, conn->slot);
}

ps_backlog *ps__backlog(ps_engine *engine, const ps_conn *conn)
{
    size_t chunks = ((size_t)engine->table.most + PS_CHUNK_SLOTS - 1) / PS_CHUNK_SLOTS;
    if (!engine->backlogs)
        __atomic_store_n(&engine->backlogs, zeros(chunks * sizeof *engine->backlogs), __ATOMIC_RELEASE);
    if (!engine->backlogs)
        return NULL;
    ps_backlog **chunk = &engine->backlogs[conn->slot / PS_CHUNK_SLOTS];
    if (!*chunk)
        __atomic_store_n(chunk, zeros(PS_CHUNK_SLOTS * sizeof **chunk), __ATOMIC_RELEASE);
    return row_at(engine, conn->slot);
}

/* -- the list of those over the soft limit, in the order in which they came to be --------------------------------------- */

static uint32_t clock_ms(const ps_engine *engine)
{
    return ps__timer_clock_ms(engine, PS_TIMER_OUTPUT, engine->now_ns);
}

static void link_over(ps_engine *engine, uint32_t slot)
{
    uint32_t last = engine->over.last;
    row_at(engine, slot)->over = (ps_timer){.previous = last, .next = PS_NO_SLOT, .start_ms = clock_ms(engine)};
    if (last == PS_NO_SLOT)
        engine->over.first = slot;
    else
        row_at(engine, last)->over.next = slot;
    engine->over.last = slot;
}

static void unlink_over(ps_engine *engine, uint32_t slot)
{
    const ps_timer *over = &row_at(engine, slot)->over;
    if (over->previous == PS_NO_SLOT)
        engine->over.first = over->next;
    else
        row_at(engine, over->previous)->over.next = over->next;
    if (over->next == PS_NO_SLOT)
        engine->over.last = over->previous;
    else
        row_at(engine, over->next)->over.previous = over->previous;
}

static void set_waiting(ps_engine *engine, uint32_t slot, uint64_t waiting)
{
    ps_backlog *row = row_at(engine, slot);
    bool was_over = row->waiting > engine->options.limits.push_soft;
    row->waiting = waiting;
    bool is_over = waiting > engine->options.limits.push_soft;
    if (row->rests)
        return;
    if (is_over && !was_over)
        link_over(engine, slot);
    else if (was_over && !is_over && !row->is_late)
        unlink_over(engine, slot);
    row->is_late = row->is_late && is_over;
}

void ps__backlog_add(ps_engine *engine, const ps_conn *conn, size_t size)
{
    ps_backlog *row = ps__backlog_row(engine, conn);
    row->rests = ps__is_held(conn); /* the row may be new */
    set_waiting(engine, conn->slot, row->waiting + size + PS_PUSH_COST);
}

void ps__backlog_take(ps_engine *engine, const ps_conn *conn, size_t size)
{
    set_waiting(engine, conn->slot, ps__backlog_row(engine, conn)->waiting - size - PS_PUSH_COST);
}

void ps__backlog_drop(ps_engine *engine, const ps_conn *conn)
{
    ps_backlog *row = ps__backlog_row(engine, conn);
    if (!row)
        return;
    set_waiting(engine, conn->slot, 0);
    row->lost = 0;
}

static bool is_over(const ps_engine *engine, const ps_backlog *row)
{
    return row && row->waiting > engine->options.limits.push_soft && !row->is_late;
}

void ps__backlog_rest(ps_engine *engine, const ps_conn *conn)
{
    ps_backlog *row = ps__backlog_row(engine, conn);
    if (!row)
        return;
    if (is_over(engine, row))
        unlink_over(engine, conn->slot);
    row->rests = true;
}

void ps__backlog_wake(ps_engine *engine, const ps_conn *conn)
{
    ps_backlog *row = ps__backlog_row(engine, conn);
    if (!row || !row->rests)
        return;
    row->rests = false;
    row->is_late = row->is_late && row->waiting > engine->options.limits.push_soft;
    if (is_over(engine, row))
        link_over(engine, conn->slot);
}

void ps__backlog_clear(const ps_engine *engine, const ps_conn *conn)
{
    ps_backlog *row = ps__backlog_row(engine, conn);
    if (row)
        *row = (ps_backlog){.waiting = 0};
}

/* -- who is late --------------------------------------------------------------------------------------------------- */

uint64_t ps__backlog_left_ns(const ps_engine *engine)
{
    if (engine->over.first == PS_NO_SLOT)
        return UINT64_MAX;
    uint64_t passed = (clock_ms(engine) - row_at(engine, engine->over.first)->over.start_ms) * UINT64_C(1000000);
    uint64_t whole = engine->options.limits.push_soft_seconds_ns;
    return passed >= whole ? 0 : whole - passed;
}

ps_conn *ps__backlog_late(const ps_engine *engine)
{
    return ps__backlog_left_ns(engine) == 0 ? ps__slot(&engine->table, engine->over.first) : NULL;
}

void ps__backlog_is_late(ps_engine *engine, const ps_conn *conn)
{
    unlink_over(engine, conn->slot);
    ps__backlog_row(engine, conn)->is_late = true;
}

void ps__backlog_close(ps_engine *engine)
{
    for (uint32_t made = 0; engine->backlogs && made < engine->table.most; made += PS_CHUNK_SLOTS)
        ps__free(engine->backlogs[made / PS_CHUNK_SLOTS]);
    ps__free(engine->backlogs);
    engine->backlogs = NULL;
}
