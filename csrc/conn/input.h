/* input.h: from bytes in the kernel to bytes that are cut. */
#ifndef PYSOCK_CONN_INPUT_H
#define PYSOCK_CONN_INPUT_H

#include "core/engine.h"

void ps__readable(ps_engine *engine, ps_conn *conn);
void ps__resume(ps_engine *engine, ps_conn *conn);

#endif
