/* gate.h: workers that share a listener. */
#ifndef PYSOCK_LOOP_GATE_H
#define PYSOCK_LOOP_GATE_H

#include "core/engine.h"

static inline bool ps__is_shared(const ps_engine *engine)
{
    return engine->options.seats != NULL;
}

void ps__seat_open(ps_engine *engine, bool open);
void ps__seat_turn(ps_engine *engine);
void ps__seat_rest(ps_engine *engine);
bool ps__gate_is_shut(ps_engine *engine);
uint64_t ps__gate_pause_ns(ps_engine *engine);
bool ps__gate_others_accept(const ps_engine *engine);

#endif
