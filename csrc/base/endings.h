/* endings.h: how connections end, as a table. */
#ifndef PYSOCK_BASE_ENDINGS_H
#define PYSOCK_BASE_ENDINGS_H

#include "pysock.h"

extern const ps_ending ps__endings[PS_ENDS];

#endif
