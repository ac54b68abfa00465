/* look.h: the rows of the client table, copied out. */
#ifndef PYSOCK_TABLE_LOOK_H
#define PYSOCK_TABLE_LOOK_H

#include "core/engine.h"

/* With the lock held. */
void ps__copy_row(const ps_engine *engine, const ps_conn *conn, ps_info *info);

#endif
