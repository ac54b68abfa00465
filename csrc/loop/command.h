/* command.h: what others ask of the loop, and the pipe that wakes it. */
#ifndef PYSOCK_LOOP_COMMAND_H
#define PYSOCK_LOOP_COMMAND_H

#include "core/engine.h"

void ps__run_commands(ps_engine *engine);
void ps__free_commands(ps_engine *engine);
/* Whether this is the thread that runs the loop, in a turn. */
bool ps__in_loop(ps_engine *engine);
/* For any other thread: 1: the loop will answer it, and the object is the engine's; else -errno. */
int ps__post_answer(ps_engine *engine, uint64_t handle, void *object);
int ps__post_more(ps_engine *engine, uint64_t handle, void *piece);
/* For any thread, also this one: 1: the loop will call it; as above. */
int ps__post_call(ps_engine *engine, void *object);
/* For any thread, as ps_engine_push: a whole frame, an ASK with a request of so many bytes or an ASK_CANCEL. -EOPNOTSUPP: the
 * client answers no requests. */
int ps__engine_ask(ps_engine *engine, uint64_t client_id, const uint8_t *frame, size_t size, size_t request);
int ps__open_wake(ps_engine *engine);
void ps__close_wake(ps_engine *engine);

#endif
