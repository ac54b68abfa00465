/* pysock.h: what a user of the C engine includes: the declarations, with the headers they need. That Python sees the same
 * sizes and places needs no check here: cffi holds each struct against this compiler's, and refuses one that differs. */
#ifndef PYSOCK_H
#define PYSOCK_H

#include <stddef.h>
#include <stdint.h>

#include "pysock_abi.h"
#include "pysock_abi_load.h"
#include "pysock_abi_python.h"

#endif
