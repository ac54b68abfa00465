/* access.h: who a connection comes from, and whether they may come in. */
#ifndef PYSOCK_TABLE_ACCESS_H
#define PYSOCK_TABLE_ACCESS_H

#include <sys/socket.h>

#include "core/engine.h"

/* PS_NO_END, or how it is turned away (enum ps_end); what the kernel says of the peer goes into conn. */
int ps__may_connect(ps_engine *engine, ps_conn *conn, const struct sockaddr *peer);
void ps__remember_origin(const ps_engine *engine, ps_conn *conn);
/* As many connections come from there as may. */
bool ps__has_its_share(ps_engine *engine, const ps_conn *conn);
int ps__count_peer(ps_engine *engine, ps_conn *conn);
void ps__uncount_peer(ps_engine *engine, ps_conn *conn);
void ps__remember_peer(ps_conn *conn);
void ps__peer_credentials(const ps_conn *conn, ps_info *info);
int64_t ps__peer_uid(const ps_engine *engine, const ps_conn *conn); /* of one that isn't closed; -1: it isn't known */

#endif
