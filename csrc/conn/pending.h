/* pending.h: requests that have no answer yet. */
#ifndef PYSOCK_CONN_PENDING_H
#define PYSOCK_CONN_PENDING_H

#include "core/engine.h"

/* From now on it waits. */
ps_pending ps__pending_add(ps_engine *engine, ps_conn *conn, const ps_frame *frame);
/* The two halves of that and of its end. Counted, or not any more; and whether its client may cancel it, by this value: then
 * the value, else 0. Its id is free: whether it waited until now, or was cancelled. */
void ps__pending_count(ps_engine *engine, ps_conn *conn, uint32_t size);
void ps__pending_uncount(ps_engine *engine, ps_conn *conn, uint32_t size);
uint64_t ps__pending_hold_id(ps_engine *engine, const ps_conn *conn, const ps_frame *frame, uint64_t value);
bool ps__pending_free_id(ps_engine *engine, const ps_pending *pending);
/* Its handler is about to be called: may it be? If not it waits no more, and its client knows why: it has cancelled it, or
 * is gone, or its deadline has passed. */
bool ps__pending_may_start(ps_engine *engine, const ps_pending *pending);
/* It waits no more: the client to answer, or NULL if that has gone or gets no answer. What is sent to it now is gathered
 * until another client is answered, or until ps__pending_flush. */
ps_conn *ps__pending_done(ps_engine *engine, const ps_pending *pending);
void ps__pending_flush(ps_engine *engine);
/* One of its requests stays without an answer, and no id tells which one. */
void ps__pending_give_up(ps_conn *conn);
/* A request gets an ERROR of this code, or would, if it wanted an answer. */
void ps__count_error(ps_engine *engine, const ps_frame *frame, uint16_t code);
/* Around the answer to a request that came before, in the middle of another one perhaps, whose handler gives it. Only a
 * server that is measured wants to know. */
typedef struct ps_measuring {
    const ps_frame *current;
    uint8_t outcome;
} ps_measuring;
ps_measuring ps__answer_begins(ps_engine *engine, const ps_frame *frame);
void ps__answer_is_over(ps_engine *engine, uint64_t began_ns, ps_measuring outer);
/* An ERROR in place of the answer to a request whose handler isn't started. */
void ps__not_started(ps_engine *engine, ps_conn *conn, const ps_frame *frame, uint16_t code, const char *text);
bool ps__is_late(const ps_frame *frame);
/* A request with this id waits already. */
bool ps__is_in_flight(const ps_engine *engine, const ps_conn *conn, const ps_frame *frame);
/* Its client waits for it no more. One that isn't in flight has been answered meanwhile. */
void ps__cancel(ps_engine *engine, ps_conn *conn, uint32_t request_id);

#endif
