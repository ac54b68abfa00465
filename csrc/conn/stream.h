/* stream.h: replies in pieces: when the next one may be sent, and who is asked for it. */
#ifndef PYSOCK_CONN_STREAM_H
#define PYSOCK_CONN_STREAM_H

#include "core/engine.h"
#include "table/deferred.h"

enum { PS_STREAM_COST = 16 }; /* of a frame's credit, beside the size of its payload */

/* A request that was just deferred is answered by a stream that the loop asks for its pieces: by hooks.pull. */
void ps__stream_pull(ps_engine *engine, uint64_t handle);
/* Send a piece of one whose client is there. 1: more may follow now; 0: not before it is told so, or asked; -1: its client
 * is gone. most: of the bytes that wait to be sent to the client. */
int ps__stream_send(ps_engine *engine, ps_conn *conn, ps_deferred *record, const void *data, size_t size, void *object,
                    uint64_t most);
/* Tell whoever sends its pieces how many bytes may follow: hooks.flow. */
void ps__stream_tell(ps_engine *engine, ps_deferred *record);
/* The same, if need be, for another thread has sent a piece. */
void ps__stream_seen(ps_engine *engine, uint64_t handle);
/* A CREDIT. */
void ps__stream_credit(ps_engine *engine, ps_conn *conn, const ps_frame *frame);
/* All that waited to be sent to this client was taken. */
void ps__streams_go_on(ps_engine *engine, ps_conn *conn);
/* Whether it has any, which need its CREDITs to come to their ends. */
bool ps__has_streams(const ps_engine *engine, const ps_conn *conn);
/* Once a turn. */
void ps__streams_step(ps_engine *engine);

#endif
