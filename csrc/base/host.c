/* host.c: the gate to whoever runs the engine, which calls it the hooks: Python, or a test.
 *
 * To the engine the GIL is what hooks.enter takes and hooks.leave lets go. It is kept from turn to turn while the loop
 * polls, for taking it back costs a whole switch interval of CPython (5 ms) where another thread computes. That thread
 * asks for it when it has waited as long, and gets it: from the handlers' bytecode, or, where they have none, from the
 * loop, which lets go when it has been inside a little longer than that. Not sooner: a thread that sees the GIL let go
 * and taken again begins to wait anew, and might never ask. */
#include "base/host.h"
#include "base/sys.h"
#include "core/engine.h"

enum {
    CONTENDED_NS = 1000 * 1000,            /* nobody keeps the loop outside so long but a thread that computes */
    CONTENDED_LAST_NS = 100 * 1000 * 1000, /* and it will go on for a while */
};

/* Something ended the loop: the first of several is what it ended by. */
void ps__fail(ps_engine *engine, int error)
{
    if (error < 0 && !engine->fatal)
        engine->fatal = error;
}

/* Returns 0, or what ended the loop: then no handler is called any more. */
int ps__enter(ps_engine *engine)
{
    if (engine->inside)
        return engine->fatal;
    uint64_t before = ps__now_ns();
    engine->hooks.enter(engine->hooks.context);
    engine->inside = true;
    engine->now_ns = engine->inside_since_ns = ps__now_ns();
    engine->outside_ns += engine->now_ns - before;
    if (engine->now_ns - before > CONTENDED_NS)
        engine->contended_until_ns = engine->now_ns + CONTENDED_LAST_NS;
    return engine->fatal;
}

void ps__leave(ps_engine *engine)
{
    if (!engine->inside)
        return;
    engine->inside = false;
    engine->hooks.leave(engine->hooks.context);
}

void ps__tell(ps_engine *engine, enum ps_tell what, uint64_t first, uint64_t second)
{
    ps__enter(engine);
    ps__fail(engine, engine->hooks.tell(engine->hooks.context, what, first, second));
}

/* At the end of a turn. */
void ps__share(ps_engine *engine)
{
    if (engine->now_ns - engine->inside_since_ns > engine->options.inside_max_ns)
        ps__leave(engine);
}
