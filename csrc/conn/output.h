/* output.h: from replies to bytes in the kernel. */
#ifndef PYSOCK_CONN_OUTPUT_H
#define PYSOCK_CONN_OUTPUT_H

#include "core/engine.h"

void ps__output_begin(ps_engine *engine, ps_conn *conn);
void ps__output_end(ps_engine *engine, ps_conn *conn);
/* One message of the framing. object: what data lies in, or NULL. */
void ps__send(ps_engine *engine, ps_conn *conn, uint8_t kind, uint16_t code, uint32_t request_id, const void *data,
              size_t size, void *object);
/* The same of a piece of a stream, which is a REPLY that isn't the last one. */
void ps__send_piece(ps_engine *engine, ps_conn *conn, uint32_t request_id, const void *data, size_t size, void *object);
void ps__send_text(ps_engine *engine, ps_conn *conn, uint8_t kind, uint16_t code, uint32_t request_id, const char *text);
void ps__send_error(ps_engine *engine, ps_conn *conn, uint8_t flags, uint16_t code, uint32_t request_id, const char *text);
/* A push, made for this client alone; and one that many get. */
void ps__send_push(ps_engine *engine, ps_conn *conn, const void *data, size_t size);
void ps__send_shared(ps_engine *engine, ps_conn *conn, ps_shared *shared);
/* A whole frame of the framing pysock. */
void ps__send_ready(ps_engine *engine, ps_conn *conn, const void *frame, size_t size);
/* Send of what waits as much as the kernel takes. */
void ps__send_queue(ps_engine *engine, ps_conn *conn);
/* The same of a connection that is lost in the next line, unless that closed it. */
void ps__send_last(ps_engine *engine, ps_conn *conn);
/* Its output waits no longer for something else than the kernel: see to the limits. */
void ps__output_grew(ps_engine *engine, ps_conn *conn);
/* Output made while the connect hook runs is put aside, then joined behind what was sent meanwhile. */
void ps__join_queue(ps_engine *engine, ps_conn *conn, ps_chunk *chunks);

#endif
