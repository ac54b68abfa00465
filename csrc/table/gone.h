/* gone.h: who was there. */
#ifndef PYSOCK_TABLE_GONE_H
#define PYSOCK_TABLE_GONE_H

#include "core/engine.h"

/* Of a client that is about to lose its row. */
void ps__remember_gone(ps_engine *engine, const ps_conn *conn);
void ps__forget_gone(ps_engine *engine);

#endif
