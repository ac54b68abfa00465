/* tables.h: the rules of the protocol as rows: which frames may come when, and how connections end. */
#ifndef PYSOCK_BASE_TABLES_H
#define PYSOCK_BASE_TABLES_H

#include "pysock.h"

extern const ps_ending ps__endings[PS_ENDS];
const ps_rule *ps__rule(uint8_t kind);

#endif
