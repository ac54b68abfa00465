/* due.h: which deferred requests have a deadline, and which is the next. */
#ifndef PYSOCK_TABLE_DUE_H
#define PYSOCK_TABLE_DUE_H

#include "core/engine.h"

/* There is room for every record. */
void ps__due_put(ps_engine *engine, uint32_t slot);
/* One that isn't there is left alone. */
void ps__due_take(ps_engine *engine, uint32_t slot);
/* When the next is due; UINT64_MAX: never. */
uint64_t ps__due_ns(const ps_engine *engine);

#endif
