/* engine.h: how an engine comes to be and goes. */
#ifndef PYSOCK_LOOP_ENGINE_H
#define PYSOCK_LOOP_ENGINE_H

#include "core/engine.h"

ps_engine *ps__engine_new(const ps_options *options, const ps_hooks *hooks, int *error);
void ps__engine_close(ps_engine *engine);
void ps__engine_free(ps_engine *engine);

/* Any thread: look at turns that take so long, too. */
void ps__engine_notice(ps_engine *engine, uint64_t least_ns);

#endif
