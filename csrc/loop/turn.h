/* turn.h: the loop. */
#ifndef PYSOCK_LOOP_TURN_H
#define PYSOCK_LOOP_TURN_H

#include "core/engine.h"

/* Until it is told to stop, or something ends it: -errno. Only once. */
int ps__engine_run(ps_engine *engine);

#endif
