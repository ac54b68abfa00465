/* state.h: the transitions of a connection, as a table. */
#ifndef PYSOCK_BASE_STATE_H
#define PYSOCK_BASE_STATE_H

#include "pysock.h"

/* 0 in a cell: the event is illegal in that state. */
extern const uint8_t ps__conn_table[PS_CONN_STATES][PS_CONN_EVENTS];

#endif
