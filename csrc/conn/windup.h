/* windup.h: a client is told that the server stops. */
#ifndef PYSOCK_CONN_WINDUP_H
#define PYSOCK_CONN_WINDUP_H

#include "core/engine.h"

void ps__wind_up(ps_engine *engine, ps_conn *conn);

#endif
