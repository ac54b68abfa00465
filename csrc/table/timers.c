/* timers.c: deadlines in O(1). All deadlines of a kind last equally long, so a list in order of starting is a list in
 * order of ending: starting appends, stopping unlinks, expiring looks at the head.
 *
 * Nobody is late because the loop was busy: what came in time may lie in the kernel, or had no room there.
 * - A deadline expires only by the time of the loop's last look at the kernel, and after all that was found is dealt with.
 * - Each list has a clock of its own, for which a turn's work counts for an eighth of the deadline at most. So the loop has
 *   looked eight times before anybody is late, however long a handler takes. */
#include "base/sys.h"
#include "table/table.h"
#include "table/timers.h"

enum {
    LOOKS = 8,
    LONG_WORK_NS = 1000 * 1000, /* what is shorter is no concern to any deadline */
};

/* Milliseconds wrap in 49 days, and only differences are used. From here on they are negative ones: a deadline that was
 * started after the last look. */
#define IN_FUTURE_MS 0xF0000000u

static const enum ps_timer_link link_of[PS_TIMER_LISTS] = {
    [PS_TIMER_CIR] = PS_LINK_INPUT,
    [PS_TIMER_FRAME] = PS_LINK_INPUT,
    [PS_TIMER_OUTPUT] = PS_LINK_OUTPUT,
    [PS_TIMER_IDLE] = PS_LINK_IDLE,
};

static const uint16_t flag_of[PS_TIMER_LINKS] = {
    [PS_LINK_INPUT] = PS_TIMED_INPUT,
    [PS_LINK_OUTPUT] = PS_TIMED_OUTPUT,
    [PS_LINK_IDLE] = PS_TIMED_IDLE,
};

static enum ps_timer_list list_on(const ps_conn *conn, enum ps_timer_link link)
{
    if (link == PS_LINK_INPUT)
        return conn->flags & PS_TIMED_CIR ? PS_TIMER_CIR : PS_TIMER_FRAME;
    return link == PS_LINK_OUTPUT ? PS_TIMER_OUTPUT : PS_TIMER_IDLE;
}

static uint64_t duration_ns(const ps_engine *engine, enum ps_timer_list list)
{
    const ps_limits *limits = &engine->options.limits;
    const uint64_t durations[PS_TIMER_LISTS] = {limits->cir_timeout_ns, limits->frame_timeout_ns,
                                                limits->output_timeout_ns, limits->idle_timeout_ns};
    return durations[list];
}

uint32_t ps__timer_clock_ms(const ps_engine *engine, enum ps_timer_list list, uint64_t moment_ns)
{
    uint64_t most = duration_ns(engine, list) / LOOKS, worked = moment_ns - engine->look_ns;
    return (uint32_t)((engine->look_ns + (worked < most ? worked : most) - engine->lag_ns[list]) / 1000000u);
}

void ps__timers_clear(ps_engine *engine)
{
    for (int i = 0; i < PS_TIMER_LISTS; i++)
        engine->timers[i].first = engine->timers[i].last = PS_NO_SLOT;
    engine->over.first = engine->over.last = PS_NO_SLOT;
}

void ps__timers_worked(ps_engine *engine)
{
    uint64_t worked = engine->now_ns - engine->look_ns;
    for (int i = 0; i < PS_TIMER_LISTS && worked > LONG_WORK_NS; i++) {
        uint64_t most = duration_ns(engine, (enum ps_timer_list)i) / LOOKS;
        engine->lag_ns[i] += worked > most ? worked - most : 0;
    }
    engine->look_ns = engine->now_ns;
}

void ps__timer_stop(ps_engine *engine, ps_conn *conn, enum ps_timer_link link)
{
    if (!(conn->flags & flag_of[link]))
        return;
    enum ps_timer_list list = list_on(conn, link);
    ps_timer *timer = &conn->timers[link];
    if (timer->previous == PS_NO_SLOT)
        engine->timers[list].first = timer->next;
    else
        ps__slot(&engine->table, timer->previous)->timers[link].next = timer->next;
    if (timer->next == PS_NO_SLOT)
        engine->timers[list].last = timer->previous;
    else
        ps__slot(&engine->table, timer->next)->timers[link].previous = timer->previous;
    conn->flags &= (uint16_t)~(flag_of[link] | (link == PS_LINK_INPUT ? PS_TIMED_CIR : 0));
}

void ps__timer_start(ps_engine *engine, ps_conn *conn, enum ps_timer_list list)
{
    enum ps_timer_link link = link_of[list];
    ps__timer_stop(engine, conn, link);
    if (!duration_ns(engine, list))
        return;
    uint32_t last = engine->timers[list].last;
    conn->timers[link] =
        (ps_timer){.previous = last, .next = PS_NO_SLOT, .start_ms = ps__timer_clock_ms(engine, list, engine->now_ns)};
    if (last == PS_NO_SLOT)
        engine->timers[list].first = conn->slot;
    else
        ps__slot(&engine->table, last)->timers[link].next = conn->slot;
    engine->timers[list].last = conn->slot;
    conn->flags |= (uint16_t)(flag_of[link] | (list == PS_TIMER_CIR ? PS_TIMED_CIR : 0));
}

void ps__timer_start_now(ps_engine *engine, ps_conn *conn, enum ps_timer_list list)
{
    engine->now_ns = ps__now_ns();
    ps__timer_start(engine, conn, list);
}

ps_conn *ps__timer_first(const ps_engine *engine, enum ps_timer_list list)
{
    uint32_t first = engine->timers[list].first;
    return first == PS_NO_SLOT ? NULL : ps__slot(&engine->table, first);
}

static uint32_t age_ms(const ps_engine *engine, const ps_conn *conn, enum ps_timer_list list, uint64_t moment_ns)
{
    uint32_t age = ps__timer_clock_ms(engine, list, moment_ns) - conn->timers[link_of[list]].start_ms;
    return age < IN_FUTURE_MS ? age : 0;
}

/* -- standing still: of a row in no list the links have room for the list's number and 1, and for how long it has run ----- */

void ps__timer_rest(ps_engine *engine, ps_conn *conn, enum ps_timer_link link)
{
    if (!(conn->flags & flag_of[link])) {
        conn->timers[link].next = 0;
        return;
    }
    enum ps_timer_list list = list_on(conn, link);
    uint32_t ran = age_ms(engine, conn, list, engine->now_ns);
    ps__timer_stop(engine, conn, link);
    conn->timers[link] = (ps_timer){.next = (uint32_t)list + 1, .start_ms = ran};
}

int ps__timer_resting(const ps_conn *conn, enum ps_timer_link link, uint32_t *ran_ms)
{
    *ran_ms = conn->timers[link].start_ms;
    return (int)conn->timers[link].next - 1;
}

uint32_t ps__timer_left_ms(const ps_engine *engine, enum ps_timer_list list, uint32_t ran_ms)
{
    uint64_t whole = duration_ns(engine, list) / 1000000u;
    return whole <= ran_ms ? 0 : whole - ran_ms < UINT32_MAX ? (uint32_t)(whole - ran_ms) : UINT32_MAX;
}

void ps__timer_rests(const ps_engine *engine, ps_conn *conn, enum ps_timer_list list, uint32_t left_ms)
{
    uint64_t whole = duration_ns(engine, list) / 1000000u, ran = whole > left_ms ? whole - left_ms : 0;
    uint32_t number = duration_ns(engine, list) ? (uint32_t)list + 1 : 0;
    conn->timers[link_of[list]] = (ps_timer){.next = number, .start_ms = ran < IN_FUTURE_MS ? (uint32_t)ran : 0};
}

/* Its place is where it would be, had it begun so long ago: mostly near the end. */
void ps__timer_wake(ps_engine *engine, ps_conn *conn, enum ps_timer_link link)
{
    ps_timer *timer = &conn->timers[link];
    uint32_t number = timer->next;
    if (!number || conn->flags & flag_of[link])
        return;
    enum ps_timer_list list = (enum ps_timer_list)(number - 1);
    uint32_t now = ps__timer_clock_ms(engine, list, engine->now_ns), ran = timer->start_ms, next = PS_NO_SLOT;
    uint32_t before = engine->timers[list].last;
    while (before != PS_NO_SLOT && age_ms(engine, ps__slot(&engine->table, before), list, engine->now_ns) < ran) {
        next = before;
        before = ps__slot(&engine->table, before)->timers[link].previous;
    }
    *timer = (ps_timer){.previous = before, .next = next, .start_ms = now - ran};
    *(before == PS_NO_SLOT ? &engine->timers[list].first : &ps__slot(&engine->table, before)->timers[link].next) = conn->slot;
    *(next == PS_NO_SLOT ? &engine->timers[list].last : &ps__slot(&engine->table, next)->timers[link].previous) = conn->slot;
    conn->flags |= (uint16_t)(flag_of[link] | (list == PS_TIMER_CIR ? PS_TIMED_CIR : 0));
}

/* How long until the first deadline of this list; 0 if it has passed, UINT64_MAX if there is none. */
static uint64_t left_ns(const ps_engine *engine, enum ps_timer_list list, uint64_t moment_ns)
{
    const ps_conn *conn = ps__timer_first(engine, list);
    if (!conn)
        return UINT64_MAX;
    uint64_t passed = age_ms(engine, conn, list, moment_ns) * UINT64_C(1000000);
    uint64_t whole = duration_ns(engine, list);
    return passed >= whole ? 0 : whole - passed;
}

uint32_t ps__timer_age_ms(const ps_engine *engine, const ps_conn *conn, enum ps_timer_list list)
{
    return age_ms(engine, conn, list, engine->now_ns);
}

/* More is ready than the kernel told of at once? It takes turns, so after some looks everybody has been told of. */
static bool has_seen_all(ps_engine *engine)
{
    if (engine->full_looks && engine->full_looks <= engine->table.used / PS_EVENTS_MAX)
        return false;
    engine->full_looks = 0;
    return true;
}

ps_conn *ps__timers_pop_late(ps_engine *engine, enum ps_timer_list *list)
{
    if (!has_seen_all(engine))
        return NULL;
    for (int i = 0; i < PS_TIMER_LISTS; i++) {
        *list = (enum ps_timer_list)i;
        if (left_ns(engine, *list, engine->look_ns) != 0)
            continue;
        ps_conn *conn = ps__timer_first(engine, *list);
        ps__timer_stop(engine, conn, link_of[*list]); /* so this comes to an end, whatever becomes of the connection */
        return conn;
    }
    return NULL;
}

uint64_t ps__timers_due_ns(const ps_engine *engine)
{
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < PS_TIMER_LISTS; i++) {
        uint64_t left = left_ns(engine, (enum ps_timer_list)i, engine->now_ns);
        least = left < least ? left : least;
    }
    return least;
}
