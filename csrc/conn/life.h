/* life.h: the life of one connection. */
#ifndef PYSOCK_CONN_LIFE_H
#define PYSOCK_CONN_LIFE_H

#include "base/endings.h"
#include "core/engine.h"

void ps__lost(ps_engine *engine, ps_conn *conn, enum ps_reason reason);
/* Ended in a way that says nothing and sends nothing more. */
void ps__cut_off(ps_engine *engine, ps_conn *conn, enum ps_end end);
void ps__no_memory(ps_engine *engine, ps_conn *conn);
void ps__drop_proof(ps_conn *conn);
void ps__end(ps_engine *engine, ps_conn *conn, enum ps_conn_event event, enum ps_reason reason);
/* All that was to be sent was: its transport may have something to add. */
void ps__finish(ps_engine *engine, ps_conn *conn);
void ps__settle(ps_engine *engine, ps_conn *conn);
/* It doesn't move after all: its deadlines go on, with what was left of them; whoever calls marks it dirty. */
void ps__stay(ps_engine *engine, ps_conn *conn);
/* Another process has it: our copy of its descriptor is closed, and nobody is told that it went. */
void ps__moved_away(ps_engine *engine, ps_conn *conn);
/* One that isn't read because its requests have no answers yet is watched on until more comes: mostly they have, then. */
void ps__update_interest(ps_engine *engine, ps_conn *conn);
/* More has come. False: it isn't one of these. */
bool ps__stop_watching_input(ps_engine *engine, ps_conn *conn);
void ps__bury(ps_engine *engine);
void ps__conn_leave(ps_conn *conn);

/* -EINVAL: it is illegal in this state, and nothing has happened. */
int ps__conn_event(ps_conn *conn, enum ps_conn_event event);

/* May input of this connection be looked at now? */
static inline bool ps__reads(const ps_engine *engine, const ps_conn *conn)
{
    if (conn->state == PS_CONN_DRAINING || conn->state == PS_CONN_CLOSED)
        return false;
    if (!(conn->flags & (PS_PAUSED_OUTPUT | PS_PAUSED_PENDING | PS_IS_MOVING)))
        return true;
    if (conn->flags & PS_IS_MOVING)
        return false;
    /* A drain asks for the last of the input, paused or not; but not before the answer to a deferred request where no id
     * would tell the next one from it. */
    return engine->state == PS_SERVER_DRAINING && (conn->deferred == PS_NO_SLOT || ps__framing(engine, conn)->has_ids);
}

#endif
