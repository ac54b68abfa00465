/* publish.h: what a measured engine tells of itself, turn by turn. */
#ifndef PYSOCK_LOOP_PUBLISH_H
#define PYSOCK_LOOP_PUBLISH_H

#include "core/engine.h"

/* Around each turn of an engine that has a meter. */
void ps__publish_begin(ps_engine *engine);
void ps__publish(ps_engine *engine);

#endif
