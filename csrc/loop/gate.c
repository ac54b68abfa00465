/* gate.c: workers that share a listener, and how clients spread evenly over them.
 *
 * The kernel wakes the worker that waits first, and it would take nearly all. So each writes into a page that all of them
 * have how many clients are its own; and who has clearly more than the one with the fewest takes the listener out of its
 * poll for a moment. The page is nobody's memory: whoever made it (see pysock/supervision/) may read it at any time, also
 * of a worker that hangs or has died.
 *
 * Nobody waits in vain. A worker looks at the gate only after it has accepted, never instead: the kernel has woken it
 * alone. One that is over its share leaves the listener to others that are under it; where there are none, since they are
 * at something that takes long, or don't accept, it takes who comes. */
#include "base/sys.h"
#include "loop/gate.h"

enum {
    GATE_SLACK = 16, /* so many clients more than the fewest are no reason; nor are: */
    GATE_PART = 8,   /* one in so many of them */
    GATE_PAUSE_NS = 5 * 1000 * 1000,
    GATE_PAUSE_MAX_NS = 80 * 1000 * 1000,   /* of many pauses in a row: nothing changes, and looking costs a wake-up */
    GATE_STUCK_NS = 250 * 1000 * 1000,      /* a worker in a turn that takes so long gets no clients */
};

static const uint64_t GATE_GONE_NS = 2500u * 1000u * 1000u; /* nor one that has not even slept, as it does each second */

static ps_seat *mine(ps_engine *engine)
{
    return &engine->options.seats[engine->options.seat];
}

static void count_clients(ps_engine *engine)
{
    __atomic_store_n(&mine(engine)->clients, (uint32_t)(engine->stats.clients + engine->stats.pending), __ATOMIC_RELAXED);
}

/* It accepts from now on; or not. */
void ps__seat_open(ps_engine *engine, bool open)
{
    if (!ps__is_shared(engine))
        return;
    count_clients(engine);
    __atomic_store_n(&mine(engine)->turned_ns, engine->now_ns, __ATOMIC_RELAXED);
    __atomic_store_n(&mine(engine)->open, open, __ATOMIC_RELAXED);
}

/* A turn begins. */
void ps__seat_turn(ps_engine *engine)
{
    __atomic_store_n(&mine(engine)->turned_ns, engine->now_ns, __ATOMIC_RELAXED);
    __atomic_store_n(&mine(engine)->awake, 1u, __ATOMIC_RELAXED);
}

/* And has ended. */
void ps__seat_rest(ps_engine *engine)
{
    count_clients(engine);
    __atomic_store_n(&mine(engine)->awake, 0u, __ATOMIC_RELAXED);
}

static bool takes_clients(const ps_seat *seat, uint64_t now_ns)
{
    if (!__atomic_load_n(&seat->open, __ATOMIC_RELAXED))
        return false;
    uint64_t turned_ns = __atomic_load_n(&seat->turned_ns, __ATOMIC_RELAXED);
    uint64_t since_ns = now_ns > turned_ns ? now_ns - turned_ns : 0;
    return since_ns < (__atomic_load_n(&seat->awake, __ATOMIC_RELAXED) ? (uint64_t)GATE_STUCK_NS : GATE_GONE_NS);
}

/* Has this worker clearly more clients than another that would take the next one? */
bool ps__gate_is_shut(ps_engine *engine)
{
    const ps_options *options = &engine->options;
    uint32_t fewest = UINT32_MAX;
    count_clients(engine);
    for (uint32_t i = 0; i < options->seat_count; i++) {
        uint32_t clients = __atomic_load_n(&options->seats[i].clients, __ATOMIC_RELAXED);
        if (i != options->seat && clients < fewest && takes_clients(&options->seats[i], engine->now_ns))
            fewest = clients;
    }
    uint32_t slack = fewest / GATE_PART > GATE_SLACK ? fewest / GATE_PART : GATE_SLACK;
    bool shut = fewest != UINT32_MAX && mine(engine)->clients > fewest + slack;
    if (!shut)
        engine->gate_pause_ns = 0;
    return shut;
}

/* Does somebody else take who comes from now on, if perhaps not at once? */
bool ps__gate_others_accept(const ps_engine *engine)
{
    const ps_options *options = &engine->options;
    for (uint32_t i = 0; i < options->seat_count; i++) {
        if (i != options->seat && __atomic_load_n(&options->seats[i].open, __ATOMIC_RELAXED))
            return true;
    }
    return false;
}

/* How long until it looks again. */
uint64_t ps__gate_pause_ns(ps_engine *engine)
{
    uint64_t next = engine->gate_pause_ns * 2;
    engine->gate_pause_ns = next < GATE_PAUSE_NS ? GATE_PAUSE_NS : next > GATE_PAUSE_MAX_NS ? GATE_PAUSE_MAX_NS : next;
    return engine->gate_pause_ns;
}
