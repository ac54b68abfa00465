/* pysock.h: what a user of the C engine includes: the declarations, with the headers and checks they need. */
#ifndef PYSOCK_H
#define PYSOCK_H

#include <stddef.h>
#include <stdint.h>

#include "pysock_abi.h"

_Static_assert(sizeof(ps_limits) == 96, "ps_limits has drifted: cffi and C must agree");
_Static_assert(sizeof(ps_options) == 176, "ps_options has drifted: cffi and C must agree");
_Static_assert(sizeof(ps_info) == 408, "ps_info has drifted: cffi and C must agree");
_Static_assert(sizeof(ps_stats) == (13 + PS_CAUSES) * 8, "ps_stats has drifted: cffi and C must agree");
_Static_assert(sizeof(ps_load_options) == 96, "ps_load_options has drifted: cffi and C must agree");
_Static_assert(sizeof(ps_load_progress) == 32, "ps_load_progress has drifted: cffi and C must agree");
_Static_assert(sizeof(ps_load_result) == 384, "ps_load_result has drifted: cffi and C must agree");

#endif
