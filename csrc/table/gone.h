/* gone.h: who was there. */
#ifndef PYSOCK_TABLE_GONE_H
#define PYSOCK_TABLE_GONE_H

#include "core/engine.h"

/* Room for one; NULL: there is none, and it isn't remembered. The next two are called with the lock: when it is closed, where
 * what is returned is to be freed without it; and when it is about to lose its row, with the figures that it has then. */
struct ps_gone *ps__make_gone(const ps_conn *conn);
struct ps_gone *ps__remember_gone(ps_engine *engine, const ps_conn *conn, struct ps_gone *gone);
void ps__complete_gone(ps_engine *engine, const ps_conn *conn);
void ps__forget_gone(ps_engine *engine);

#endif
