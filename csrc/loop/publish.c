/* publish.c: the engine's own counters go to where other processes see them, once a turn; with the time of the turn, so that
 * a loop that hangs is told from one that sleeps: that turns at least once in PS_LOOK_NS. */
#include "base/meter.h"
#include "base/sys.h"
#include "loop/publish.h"
#include "table/table.h"

enum { OUTPUT_EVERY_NS = 250 * 1000 * 1000 }; /* all clients are looked at for that */

_Static_assert(PS_M_COUNTERS - PS_M_STATS == sizeof(ps_stats) / sizeof(uint64_t), "all of them");
_Static_assert(PS_M_LEFT - PS_M_CAME >= PS_CAMES && PS_M_STATS - PS_M_LEFT >= PS_REASONS, "each has its place");

static void publish(const ps_engine *engine, unsigned counter, uint64_t value)
{
    __atomic_store_n(&engine->meter->counters[counter], value, __ATOMIC_RELAXED);
}

static void publish_all(const ps_engine *engine, unsigned first, const uint64_t *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        publish(engine, first + (unsigned)i, values[i]);
}

static uint64_t waiting_output(const ps_engine *engine)
{
    uint64_t bytes = 0;
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        const ps_conn *conn = ps__slot(&engine->table, slot);
        bytes += conn->state && conn->state != PS_CONN_CLOSED ? conn->queued : 0;
    }
    return bytes;
}

void ps__publish_begin(ps_engine *engine)
{
    engine->meter->began_ns = engine->now_ns;
    publish(engine, PS_M_IN_TURN, 1);
}

void ps__publish(ps_engine *engine)
{
    ps_meter *meter = engine->meter;
    uint64_t now = engine->now_ns > meter->began_ns ? engine->now_ns : ps__now_ns();
    ps__meter_run_over(meter, now);
    publish(engine, PS_M_BUSY_NS, meter->counters[PS_M_BUSY_NS] + now - meter->began_ns);
    publish(engine, PS_M_OUTSIDE_NS, engine->outside_ns);
    publish_all(engine, PS_M_CAME, engine->came, PS_CAMES);
    publish_all(engine, PS_M_LEFT, engine->left, PS_REASONS);
    publish_all(engine, PS_M_STATS, (const uint64_t *)&engine->stats, PS_M_COUNTERS - PS_M_STATS);
    if (now - meter->output_ns >= OUTPUT_EVERY_NS) {
        meter->output_ns = now;
        publish(engine, PS_M_OUTPUT_BYTES, waiting_output(engine));
    }
    publish(engine, PS_M_STAMP_NS, now);
    publish(engine, PS_M_IN_TURN, 0);
}
