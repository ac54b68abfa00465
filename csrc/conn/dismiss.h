/* dismiss.h: a connection is ended by this end of it, as the table of endings says. */
#ifndef PYSOCK_CONN_DISMISS_H
#define PYSOCK_CONN_DISMISS_H

#include "base/endings.h"
#include "core/engine.h"

/* text: of the last words, where the table has none. request_id: of the frame that is to blame. */
void ps__dismiss(ps_engine *engine, ps_conn *conn, enum ps_end end, uint32_t request_id, const char *text);
/* Say the last words of this ending, where there are some and the framing can; it goes on. */
void ps__last_words(ps_engine *engine, ps_conn *conn, enum ps_end end, uint32_t request_id, const char *text);

#endif
