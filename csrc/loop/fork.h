/* fork.h: what fork() does to an engine. */
#ifndef PYSOCK_LOOP_FORK_H
#define PYSOCK_LOOP_FORK_H

#include "core/engine.h"

int ps__watch_forks(ps_engine *engine);
void ps__unwatch_forks(ps_engine *engine);

#endif
