/* accept.h: the door. */
#ifndef PYSOCK_LOOP_ACCEPT_H
#define PYSOCK_LOOP_ACCEPT_H

#include "core/engine.h"

void ps__open_reserve(ps_engine *engine);
void ps__close_reserve(ps_engine *engine);
void ps__accept(ps_engine *engine, uint8_t number);
void ps__shut(ps_engine *engine, uint8_t number);
/* Accept nobody, until it is told to go on: who comes waits in the backlog. */
void ps__freeze(ps_engine *engine);
void ps__unfreeze(ps_engine *engine);
void ps__stop_accepting(ps_engine *engine);
bool ps__lets_in_first(ps_engine *engine);
void ps__start_accepting(ps_engine *engine);
void ps__look_at_masters(ps_engine *engine);

#endif
