/* deferred.c: the records of requests whose handler has returned, and whose answer comes later: a slab with generations, as
 * the client table is, made at the first of them. So a server that defers nothing pays nothing, and an answer that comes
 * after its client has gone finds nobody, and not the client that has its place.
 *
 * The records of one client are a list, the youngest first. A record is on a second one while whoever works for it is to be
 * told that nobody waits any more. The engine's loop alone touches them. */
#include "base/meter.h"
#include "base/sys.h"
#include "table/deferred.h"
#include "table/due.h"

enum { DEFERRED_FIRST = 64 };

static bool grow_records(ps_engine *engine)
{
    uint32_t old = engine->deferred.room, room = old ? 2 * old : DEFERRED_FIRST;
    ps_deferred *records = ps_sys.resize(engine->deferred.records, room * sizeof *records);
    if (!records)
        return false;
    engine->deferred.records = records;
    uint32_t *due = ps_sys.resize(engine->deferred.due, room * sizeof *due);
    if (!due)
        return false;
    engine->deferred.due = due;
    for (uint32_t slot = room; slot-- > old;) {
        records[slot] = (ps_deferred){.generation = 1, .next = engine->deferred.free, .due_at = PS_NO_SLOT};
        engine->deferred.free = slot;
    }
    engine->deferred.room = room;
    return true;
}

uint64_t ps__deferred_add(ps_engine *engine, ps_conn *conn, const ps_pending *pending)
{
    if (engine->deferred.free == PS_NO_SLOT && !grow_records(engine))
        return 0;
    uint32_t slot = engine->deferred.free;
    ps_deferred *record = ps__deferred_at(engine, slot);
    engine->deferred.free = record->next;
    *record = (ps_deferred){
        .pending = *pending, .began_ns = engine->now_ns, .generation = record->generation, .next = conn->deferred,
        .previous = PS_NO_SLOT, .due_at = PS_NO_SLOT, .limit = conn->stream_window,
    };
    if (conn->deferred != PS_NO_SLOT)
        ps__deferred_at(engine, conn->deferred)->previous = slot;
    conn->deferred = slot;
    engine->deferred.used++;
    if (pending->frame.deadline_ns)
        ps__due_put(engine, slot);
    return ps__deferred_handle(engine, record);
}

static uint32_t slot_of(const ps_engine *engine, const ps_deferred *record)
{
    return (uint32_t)(record - engine->deferred.records);
}

uint64_t ps__deferred_handle(const ps_engine *engine, const ps_deferred *record)
{
    return (uint64_t)record->generation << 32 | slot_of(engine, record);
}

ps_deferred *ps__deferred_find(const ps_engine *engine, uint64_t handle)
{
    uint32_t slot = (uint32_t)handle;
    if (slot >= engine->deferred.room || ps__deferred_at(engine, slot)->generation != handle >> 32)
        return NULL;
    return ps__deferred_at(engine, slot);
}

static void list(ps_engine *engine, ps_deferred *record)
{
    record->is_listed = true;
    record->next_told = PS_NO_SLOT;
    if (engine->deferred.told == PS_NO_SLOT)
        engine->deferred.told = slot_of(engine, record);
    else
        ps__deferred_at(engine, engine->deferred.last_told)->next_told = slot_of(engine, record);
    engine->deferred.last_told = slot_of(engine, record);
}

void ps__deferred_ready(ps_engine *engine, ps_deferred *record)
{
    uint32_t slot = slot_of(engine, record), last = engine->deferred.last_ready;
    if (record->is_ready)
        return;
    record->is_ready = true;
    record->next_ready = PS_NO_SLOT;
    record->previous_ready = engine->deferred.ready == PS_NO_SLOT ? PS_NO_SLOT : last;
    if (engine->deferred.ready == PS_NO_SLOT)
        engine->deferred.ready = slot;
    else
        ps__deferred_at(engine, last)->next_ready = slot;
    engine->deferred.last_ready = slot;
}

void ps__deferred_unready(ps_engine *engine, ps_deferred *record)
{
    if (!record->is_ready)
        return;
    record->is_ready = false;
    if (record->previous_ready == PS_NO_SLOT)
        engine->deferred.ready = record->next_ready;
    else
        ps__deferred_at(engine, record->previous_ready)->next_ready = record->next_ready;
    if (record->next_ready == PS_NO_SLOT)
        engine->deferred.last_ready = record->previous_ready;
    else
        ps__deferred_at(engine, record->next_ready)->previous_ready = record->previous_ready;
}

void ps__deferred_hold(ps_engine *engine, ps_deferred *record)
{
    engine->deferred.held += !record->is_held;
    record->is_held = true;
}

void ps__deferred_release(ps_engine *engine, ps_deferred *record)
{
    engine->deferred.held -= record->is_held;
    record->is_held = false;
}

/* No handle finds it any more, and its time does not matter. */
static void pass(ps_engine *engine, ps_deferred *record)
{
    ps__deferred_unready(engine, record);
    ps__deferred_release(engine, record);
    record->generation = (record->generation + 1) & 0x7FFFFFFF;
    if (!record->generation)
        record->generation = 1;
    record->is_over = true;
    ps__due_take(engine, slot_of(engine, record));
}

void ps__deferred_put_away(ps_engine *engine, uint32_t slot)
{
    ps__deferred_at(engine, slot)->next = engine->deferred.free;
    engine->deferred.free = slot;
    engine->deferred.used--;
}

void ps__deferred_remove(ps_engine *engine, ps_conn *conn, ps_deferred *record)
{
    if (record->next != PS_NO_SLOT)
        ps__deferred_at(engine, record->next)->previous = record->previous;
    if (record->previous != PS_NO_SLOT)
        ps__deferred_at(engine, record->previous)->next = record->next;
    else
        conn->deferred = record->next;
    pass(engine, record);
    if (!record->is_listed)
        ps__deferred_put_away(engine, slot_of(engine, record));
}

void ps__deferred_mark(ps_engine *engine, ps_deferred *record, enum ps_why why)
{
    if (record->why)
        return;
    record->why = (uint8_t)why;
    list(engine, record);
}

void ps__deferred_expire(ps_engine *engine)
{
    while (ps__due_ns(engine) <= engine->now_ns) {
        ps_deferred *record = ps__deferred_at(engine, engine->deferred.due[0]);
        ps__due_take(engine, engine->deferred.due[0]);
        ps__deferred_mark(engine, record, PS_WHY_LATE);
    }
}

void ps__deferred_end_streams(ps_engine *engine, const ps_conn *conn, bool all)
{
    for (uint32_t slot = conn->deferred; slot != PS_NO_SLOT; slot = ps__deferred_at(engine, slot)->next) {
        ps_deferred *record = ps__deferred_at(engine, slot);
        if (record->is_stream && (all || record->sent >= record->limit))
            ps__deferred_mark(engine, record, PS_WHY_GONE);
    }
}

void ps__deferred_orphan(ps_engine *engine, ps_conn *conn, enum ps_why why)
{
    while (conn->deferred != PS_NO_SLOT) {
        ps_deferred *record = ps__deferred_at(engine, conn->deferred);
        const ps_pending *pending = &record->pending;
        bool is_wanted = pending->frame.flags & PS_NO_REPLY && why == PS_WHY_GONE;
        conn->deferred = record->next;
        if (engine->meter && !record->is_answered)
            ps__meter_gone(engine->meter, pending->frame.code);
        PS_TAKE_ONE(conn->in_flight);
        conn->in_flight_bytes -= pending->frame.size;
        if (pending->serial)
            ps__ids_take(&engine->ids_in_flight, pending->client_id, pending->frame.request_id, pending->serial);
        pass(engine, record);
        if (!record->why && !is_wanted)
            record->why = (uint8_t)why;
        if (!record->is_listed)
            list(engine, record);
    }
}

uint32_t ps__deferred_pop(ps_engine *engine)
{
    uint32_t slot = engine->deferred.told;
    if (slot == PS_NO_SLOT)
        return slot;
    ps_deferred *record = ps__deferred_at(engine, slot);
    engine->deferred.told = record->next_told;
    record->is_listed = false;
    return slot;
}

void ps__deferred_forget(ps_engine *engine)
{
    engine->deferred.free = engine->deferred.told = engine->deferred.ready = PS_NO_SLOT;
    engine->deferred.room = engine->deferred.due_count = engine->deferred.used = engine->deferred.held = 0;
}

void ps__deferred_close(ps_engine *engine)
{
    ps__deferred_forget(engine);
    ps__free(engine->deferred.records);
    ps__free(engine->deferred.due);
    engine->deferred.records = NULL;
    engine->deferred.due = NULL;
}
