/* causes.h: what a limit or a fault cost somebody, counted and told of. */
#ifndef PYSOCK_BASE_CAUSES_H
#define PYSOCK_BASE_CAUSES_H

#include "pysock.h"

void ps__note(ps_engine *engine, enum ps_cause cause);
void ps__note_later(ps_engine *engine, enum ps_cause cause);
void ps__tell_rest(ps_engine *engine);
void ps__causes_clear(ps_engine *engine);

#endif
