/* wait.h: polling and sleeping. */
#ifndef PYSOCK_LOOP_WAIT_H
#define PYSOCK_LOOP_WAIT_H

#include "core/engine.h"

int ps__wait(ps_engine *engine);
int64_t ps__sleep_ns(const ps_engine *engine); /* how long the loop may sleep */

#endif
