/* due.c: the deadlines of deferred requests: a binary heap of slots, the earliest on top (Knuth, volume 3, 5.2.3). Each
 * record knows its place, so one that is answered in time leaves at once: most do, and most deadlines are far away. */
#include "table/deferred.h"
#include "table/due.h"

static uint64_t due_of(const ps_engine *engine, uint32_t slot)
{
    return ps__deferred_at(engine, slot)->pending.frame.deadline_ns;
}

static void place(ps_engine *engine, uint32_t at, uint32_t slot)
{
    engine->deferred.due[at] = slot;
    ps__deferred_at(engine, slot)->due_at = at;
}

static void sift_up(ps_engine *engine, uint32_t at, uint32_t slot)
{
    for (; at; at = (at - 1) / 2) {
        uint32_t above = engine->deferred.due[(at - 1) / 2];
        if (due_of(engine, above) <= due_of(engine, slot))
            break;
        place(engine, at, above);
    }
    place(engine, at, slot);
}

static void sift_down(ps_engine *engine, uint32_t at, uint32_t slot)
{
    const uint32_t *due = engine->deferred.due, count = engine->deferred.due_count;
    for (uint32_t below; (below = 2 * at + 1) < count; at = below) {
        if (below + 1 < count && due_of(engine, due[below + 1]) < due_of(engine, due[below]))
            below++;
        if (due_of(engine, slot) <= due_of(engine, due[below]))
            break;
        place(engine, at, due[below]);
    }
    place(engine, at, slot);
}

void ps__due_put(ps_engine *engine, uint32_t slot)
{
    sift_up(engine, engine->deferred.due_count++, slot);
}

void ps__due_take(ps_engine *engine, uint32_t slot)
{
    uint32_t at = ps__deferred_at(engine, slot)->due_at;
    if (at == PS_NO_SLOT)
        return;
    ps__deferred_at(engine, slot)->due_at = PS_NO_SLOT;
    uint32_t last = engine->deferred.due[--engine->deferred.due_count];
    if (last == slot)
        return;
    if (at && due_of(engine, last) < due_of(engine, engine->deferred.due[(at - 1) / 2]))
        sift_up(engine, at, last);
    else
        sift_down(engine, at, last);
}

uint64_t ps__due_ns(const ps_engine *engine)
{
    return engine->deferred.due_count ? due_of(engine, engine->deferred.due[0]) : UINT64_MAX;
}
