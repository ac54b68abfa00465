/* slow.h: what becomes of a client for which too many pushes wait. */
#ifndef PYSOCK_CONN_SLOW_H
#define PYSOCK_CONN_SLOW_H

#include "core/engine.h"

/* May one more push of so many bytes wait for it? Then it counts as one that does. Else the client is closed. */
bool ps__slow_takes(ps_engine *engine, ps_conn *conn, size_t size);
/* The end of a turn: whoever has been slow for too long goes. */
void ps__slow_end(ps_engine *engine);

#endif
