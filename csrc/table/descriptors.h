/* descriptors.h: how a descriptor comes and goes, and whether it is still ours. */
#ifndef PYSOCK_TABLE_DESCRIPTORS_H
#define PYSOCK_TABLE_DESCRIPTORS_H

#include <sys/socket.h>

#include "core/engine.h"

int ps__accept_newcomer(ps_engine *engine, int master, struct sockaddr *peer, socklen_t *size);
void ps__close_fd(ps_engine *engine, int *fd);
void ps__leave_fd(int *fd);
bool ps__descriptors_are_ours(ps_engine *engine); /* under the lock; if they aren't, they are forgotten */
bool ps__poll_is_ours(ps_engine *engine);         /* likewise, and if only that isn't, it is forgotten alone */
void ps__look_at_descriptors(ps_engine *engine);
void ps__look_at_poll(ps_engine *engine);
/* Whether the number of a client is somebody else's, by what the poll says of it. */
bool ps__has_foreign_fd(const ps_engine *engine, const ps_conn *conn);
void ps__close_client(ps_engine *engine, ps_conn *conn);
bool ps__wake_is_ours(const ps_engine *engine);

#endif
