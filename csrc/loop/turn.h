/* turn.h: the loop. */
#ifndef PYSOCK_LOOP_TURN_H
#define PYSOCK_LOOP_TURN_H

#include "core/engine.h"

/* Until it is told to stop, or something ends it: -errno. Only once. */
int ps__engine_run(ps_engine *engine);

/* The pieces of it, for who has a loop around: see guest.c. */
int ps__loop_begin(ps_engine *engine); /* -EINVAL: it has begun already */
void ps__loop_turn(ps_engine *engine, int count); /* deal with what a wait has found: so many events, or -errno */
void ps__measured_turn(ps_engine *engine, int count); /* the same of an engine that has a meter */
bool ps__loop_goes_on(ps_engine *engine); /* after each turn: drain if a stop is wanted; false: it is over */
int ps__loop_end(ps_engine *engine); /* 0, or -errno of what has ended it */

#endif
