/* proxied.h: what comes before all else where clients come through a proxy. */
#ifndef PYSOCK_CONN_PROXIED_H
#define PYSOCK_CONN_PROXIED_H

#include "core/engine.h"

/* Bytes of its header have come, or the end. */
void ps__take_header(ps_engine *engine, ps_conn *conn);

#endif
