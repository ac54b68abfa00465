/* defer.h: requests whose handler has returned, and whose answer comes later. */
#ifndef PYSOCK_CONN_DEFER_H
#define PYSOCK_CONN_DEFER_H

#include "core/engine.h"

/* Of a request whose work is over. */
typedef struct ps_work {
    ps_frame frame;
    uint64_t began_ns;
    void *object; /* the caller's, or NULL */
} ps_work;

/* This one, whose handler has just returned: its handle; 0: there is no memory. */
uint64_t ps__defer(ps_engine *engine, ps_conn *conn, const ps_frame *frame);
/* Whose work it is: the object is the record's from now on. False: it is over already, and the object the caller's. */
bool ps__defer_keep(ps_engine *engine, uint64_t handle, void *object);
/* Its work is over: the client to answer, or NULL if that has gone or gets no answer. */
ps_conn *ps__defer_done(ps_engine *engine, uint64_t handle, ps_work *work);
/* It was answered by an ERROR, while its work goes on: whoever does that is told that nobody waits. */
void ps__defer_fail(ps_engine *engine, uint64_t handle);
/* Its client waits for it no more. False: it isn't one of these. */
bool ps__defer_cancel(ps_engine *engine, const ps_conn *conn, uint32_t request_id);
/* At the end of a turn: whoever works for nobody is told, and the clients that wait in vain. */
void ps__defer_tell(ps_engine *engine);
/* The server begins to stop: those of this client that would never end are ended, at the end of the turn. */
void ps__defer_end_endless(ps_engine *engine, const ps_conn *conn);
/* The server stops, and waits no longer. */
void ps__defer_cut_short(ps_engine *engine, ps_conn *conn);

#endif
