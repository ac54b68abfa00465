/* hold.h: clients stand still, to move to another process. In the loop's thread, never within a client's event. */
#ifndef PYSOCK_MOVING_HOLD_H
#define PYSOCK_MOVING_HOLD_H

#include "core/engine.h"

/* Nobody is read any more, but those of `but` and those that can't move. Those of whom nothing is in flight are held; the ids
 * of those that are since this call go to ids, which has room for engine->table.used: how many. */
size_t ps__hold(ps_engine *engine, const uint64_t *but, size_t count, uint64_t *ids);
/* All that were held or paused are served from where they were. */
void ps__thaw(ps_engine *engine);
/* These have moved, those that were packed. */
void ps__discard(ps_engine *engine, const uint64_t *ids, size_t count);
/* All that can't move, and these: they drain. */
void ps__dismiss_unmoved(ps_engine *engine, const uint64_t *ids, size_t count);
/* What is in flight of those that are paused is answered by an ERROR. */
void ps__hurry(ps_engine *engine);
/* How many slots are used, and the highest generation that there was. */
void ps__places(const ps_engine *engine, uint32_t *slots, uint32_t *generation);
/* The loop is about to drain: those that aren't packed do, too, and those that sleep are left to whoever has them. And it
 * ends: so are those that are packed. */
void ps__moving_stops(ps_engine *engine);
void ps__moving_ends(ps_engine *engine);

#endif
