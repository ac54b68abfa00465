/* input.h: from bytes in the kernel to bytes that are cut. */
#ifndef PYSOCK_CONN_INPUT_H
#define PYSOCK_CONN_INPUT_H

#include "core/engine.h"

void ps__readable(ps_engine *engine, ps_conn *conn);
/* One that isn't let in yet goes on with the handshake of its transport, if there is one: after the others were served. */
void ps__shake_hands(ps_engine *engine);
void ps__resume(ps_engine *engine, ps_conn *conn);

#endif
