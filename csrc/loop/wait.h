/* wait.h: polling and sleeping. */
#ifndef PYSOCK_LOOP_WAIT_H
#define PYSOCK_LOOP_WAIT_H

#include "core/engine.h"

int ps__wait(ps_engine *engine);

#endif
