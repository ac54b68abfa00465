/* pending.h: requests that have no answer yet. */
#ifndef PYSOCK_CONN_PENDING_H
#define PYSOCK_CONN_PENDING_H

#include "core/engine.h"

/* What is needed to answer one later. */
typedef struct ps_pending {
    uint64_t client_id;
    ps_frame frame; /* payload: for who lets it wait, and keeps its bytes */
} ps_pending;

/* From now on it waits. */
ps_pending ps__pending_add(ps_engine *engine, ps_conn *conn, const ps_frame *frame);
/* It waits no more: the client to answer, or NULL if that has gone or gets no answer. What is sent to it now is gathered
 * until another client is answered, or until ps__pending_flush. */
ps_conn *ps__pending_done(ps_engine *engine, const ps_pending *pending);
void ps__pending_flush(ps_engine *engine);
/* One of its requests stays without an answer, and no id tells which one. */
void ps__pending_give_up(ps_conn *conn);

#endif
