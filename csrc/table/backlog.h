/* backlog.h: the pushes that wait for each client, and those that it didn't get. */
#ifndef PYSOCK_TABLE_BACKLOG_H
#define PYSOCK_TABLE_BACKLOG_H

#include "core/engine.h"

typedef struct ps_backlog {
    uint64_t waiting; /* bytes, and PS_PUSH_COST for each; of those that wait whole */
    uint64_t dropped; /* pushes, since it was let in; other threads look at it */
    uint32_t lost;    /* of these, the last ones: the next push that is queued tells of them */
    ps_timer over;    /* it has been over the soft limit since; on the list of all that are, unless: */
    bool is_late;     /* it has been for too long */
    bool rests;       /* its client is held: it is on no list */
} ps_backlog;

/* Its row, made where there is none; NULL: there is no memory. It never moves. */
ps_backlog *ps__backlog(ps_engine *engine, const ps_conn *conn);
/* Its row, or NULL; for other threads, which hold the lock, as well. */
ps_backlog *ps__backlog_row(const ps_engine *engine, const ps_conn *conn);
/* One more of so many bytes waits, for whom there is a row; or one of those that did has begun to leave, or is dropped. */
void ps__backlog_add(ps_engine *engine, const ps_conn *conn, size_t size);
void ps__backlog_take(ps_engine *engine, const ps_conn *conn, size_t size);
/* Nothing waits any more, and nobody is to be told anything. */
void ps__backlog_drop(ps_engine *engine, const ps_conn *conn);
/* Its client is held, and no clock runs; and is no longer: the clock begins anew. */
void ps__backlog_rest(ps_engine *engine, const ps_conn *conn);
void ps__backlog_wake(ps_engine *engine, const ps_conn *conn);
/* The slot is free; under the lock. */
void ps__backlog_clear(const ps_engine *engine, const ps_conn *conn);
/* Somebody who has been over the soft limit for as long as one may be, or NULL; and how long until there is one: UINT64_MAX:
 * there is none. */
ps_conn *ps__backlog_late(const ps_engine *engine);
uint64_t ps__backlog_left_ns(const ps_engine *engine);
/* It is late, which is known from now on. */
void ps__backlog_is_late(ps_engine *engine, const ps_conn *conn);
void ps__backlog_close(ps_engine *engine);

#endif
