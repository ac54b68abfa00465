/* admit.h: how a connection is let in, or refused. */
#ifndef PYSOCK_CONN_ADMIT_H
#define PYSOCK_CONN_ADMIT_H

#include "core/engine.h"

void ps__violation(ps_engine *engine, ps_conn *conn, uint32_t request_id, uint16_t refusal, const char *text);
void ps__refuse(ps_engine *engine, ps_conn *conn, uint16_t code, const char *text, enum ps_reason reason);
void ps__turn_out(ps_engine *engine, ps_conn *conn, enum ps_cause cause, const char *text, enum ps_reason reason);
int ps__let_in(ps_engine *engine, ps_conn *conn);
void ps__take_cir(ps_engine *engine, ps_conn *conn, const ps_frame *frame);
void ps__take_proof(ps_engine *engine, ps_conn *conn, const ps_frame *frame);

#endif
