/* guest.h: the engine as a guest in somebody else's loop. */
#ifndef PYSOCK_LOOP_GUEST_H
#define PYSOCK_LOOP_GUEST_H

#include "core/engine.h"

/* All of them with what hooks.enter takes held, and it is held when they return. */
int ps__guest_begin(ps_engine *engine); /* 0 or -errno; -EINVAL: it runs, or has run, already */
/* Whatever is ready, and no sleep: to be called whenever the engine's poll is readable. false: it is over. */
bool ps__guest_turn(ps_engine *engine);
/* Around what its host does to it between two turns: it is as within one. anew: it is looked what time it is. */
void ps__guest_enter(ps_engine *engine, bool anew);
void ps__guest_leave(ps_engine *engine);
int ps__guest_end(ps_engine *engine); /* 0, or -errno of what has ended it */

#endif
