/* causes.c: what a limit or a fault cost somebody is counted, and told of once a second at most: a storm of them must not
 * become a storm of log lines. What came in between is told of when that second is over. */
#include <string.h>

#include "base/causes.h"
#include "base/host.h"
#include "core/engine.h"

enum { TELL_EVERY_NS = 1000000000 };

static void tell(ps_engine *engine, enum ps_cause cause)
{
    ps_untold *untold = &engine->untold[cause];
    uint64_t times = untold->times;
    untold->told_ns = engine->now_ns;
    untold->times = 0;
    if (ps__enter(engine) == 0)
        ps__tell(engine, PS_TELL_NOTED, (uint64_t)cause, times);
}

void ps__tell_rest(ps_engine *engine)
{
    engine->tell_again_ns = 0;
    for (int cause = 0; cause < PS_CAUSES; cause++) {
        if (engine->untold[cause].times)
            tell(engine, (enum ps_cause)cause);
    }
}

/* For the middle of an output: who is told may want to send something. The loop tells it, at the end of its turn. */
void ps__note_later(ps_engine *engine, enum ps_cause cause)
{
    ps_untold *untold = &engine->untold[cause];
    uint64_t next_ns = untold->told_ns ? untold->told_ns + TELL_EVERY_NS : 0;
    PS_ADD(engine->stats.causes[cause], 1u);
    untold->times++;
    if (!engine->tell_again_ns)
        engine->tell_again_ns = next_ns > engine->now_ns ? next_ns : engine->now_ns;
}

void ps__note(ps_engine *engine, enum ps_cause cause)
{
    PS_ADD(engine->stats.causes[cause], 1u);
    ps_untold *untold = &engine->untold[cause];
    untold->times++;
    bool too_soon = untold->told_ns && engine->now_ns < untold->told_ns + TELL_EVERY_NS;
    if (!too_soon)
        tell(engine, cause);
    else if (!engine->tell_again_ns)
        engine->tell_again_ns = engine->now_ns + TELL_EVERY_NS;
}

void ps__causes_clear(ps_engine *engine)
{
    memset(engine->untold, 0, sizeof engine->untold);
    engine->tell_again_ns = 0;
}
