/* rules.h: which frames may come when, and what they do. */
#ifndef PYSOCK_CONN_RULES_H
#define PYSOCK_CONN_RULES_H

#include "core/engine.h"

enum ps_verdict { PS_TAKE, PS_SKIP, PS_BROKEN };
enum ps_verdict ps__judge(ps_engine *engine, ps_conn *conn, const ps_frame *frame);
void ps__take_frame(ps_engine *engine, ps_conn *conn, const ps_frame *frame, void *object);
void ps__cannot_serve(ps_engine *engine, ps_conn *conn, const ps_frame *frame, uint16_t code, const char *text,
                      size_t size);

#endif
