/* slow.h: what becomes of a client for which too many pushes wait, and of those pushes. */
#ifndef PYSOCK_CONN_SLOW_H
#define PYSOCK_CONN_SLOW_H

#include "core/engine.h"

/* May one more push of so many bytes wait for it? Then it counts as one that does. Else it is dropped, or the client is
 * closed. */
bool ps__slow_takes(ps_engine *engine, ps_conn *conn, size_t size);
/* How many that it didn't get the push tells of that is queued now. */
uint32_t ps__slow_tells(const ps_engine *engine, const ps_conn *conn);
/* One that is queued tells of so many, more than it did. */
void ps__slow_mark(ps_engine *engine, ps_conn *conn, ps_chunk *chunk, uint32_t lost);
/* The end of a turn: whoever has been slow for too long goes, or gets nothing new before it has caught up. */
void ps__slow_end(ps_engine *engine);

#endif
