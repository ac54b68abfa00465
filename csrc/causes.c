/* causes.c: what a limit or a fault cost somebody is counted, and told of once a second at most: a storm of them must not
 * become a storm of log lines. */
#include "internal.h"

enum { TELL_EVERY_NS = 1000000000 };

void ps__note(ps_engine *engine, enum ps_cause cause)
{
    PS_ADD(engine->stats.causes[cause], 1u);
    ps_untold *untold = &engine->untold[cause];
    untold->times++;
    if (untold->told_ns && engine->now_ns < untold->told_ns + TELL_EVERY_NS)
        return;
    untold->told_ns = engine->now_ns;
    uint64_t times = untold->times;
    untold->times = 0;
    int error = ps__enter(engine);
    if (error == 0)
        error = engine->hooks.noted(engine->hooks.context, (int)cause, times);
    ps__fail(engine, error);
}
