/* push.h: what one client or all of them are made to hear, in the loop. */
#ifndef PYSOCK_CONN_PUSH_H
#define PYSOCK_CONN_PUSH_H

#include "conn/message.h"

int ps__push(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size); /* 1, 0: it isn't there; -EMSGSIZE */
/* Of a payload of so many bytes: how many it reached. */
int64_t ps__push_to_all(ps_engine *engine, const ps_many *many, size_t size);
int64_t ps__push_to(ps_engine *engine, const uint64_t *ids, size_t count, const ps_many *many, size_t size);
/* A whole frame, an ASK with a request of so many bytes or an ASK_CANCEL; as a push, or -EOPNOTSUPP: it answers none. */
int ps__ask(ps_engine *engine, ps_conn *conn, const uint8_t *frame, size_t size, size_t request);
int ps__disconnect(ps_engine *engine, ps_conn *conn);                             /* 1 */

#endif
