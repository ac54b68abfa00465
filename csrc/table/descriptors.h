/* descriptors.h: how a descriptor comes and goes, and whether it is still ours. */
#ifndef PYSOCK_TABLE_DESCRIPTORS_H
#define PYSOCK_TABLE_DESCRIPTORS_H

#include <sys/socket.h>

#include "core/engine.h"

int ps__accept_newcomer(ps_engine *engine, int master, struct sockaddr *peer, socklen_t *size);
void ps__close_fd(ps_engine *engine, int *fd);
void ps__leave_fd(int *fd);
bool ps__descriptors_are_ours(ps_engine *engine); /* under the lock; if they aren't, they are forgotten */
void ps__look_at_descriptors(ps_engine *engine);
bool ps__wake_is_ours(const ps_engine *engine);

#endif
