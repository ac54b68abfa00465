/* admit.h: how a connection is let in, or refused. */
#ifndef PYSOCK_CONN_ADMIT_H
#define PYSOCK_CONN_ADMIT_H

#include "core/engine.h"

/* Its transport has greeted it: what follows is the framing's. */
void ps__greeted(ps_engine *engine, ps_conn *conn);
int ps__let_in(ps_engine *engine, ps_conn *conn);
void ps__take_cir(ps_engine *engine, ps_conn *conn, const ps_frame *frame);
void ps__take_proof(ps_engine *engine, ps_conn *conn, const ps_frame *frame);

#endif
