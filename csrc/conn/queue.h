/* queue.h: what is on its way to one client and not in the kernel yet. */
#ifndef PYSOCK_CONN_QUEUE_H
#define PYSOCK_CONN_QUEUE_H

#include <sys/uio.h>

#include "core/engine.h"

enum { PS_MARKED_HEAD = PS_HEADER_SIZE + PS_GAP_SIZE };

/* Heads of pushes that tell of others, for one send. */
typedef uint8_t ps_marks[PS_IOV_MAX][PS_MARKED_HEAD];

static inline uint32_t ps__chunk_size(const ps_chunk *chunk)
{
    return chunk->size + (chunk->lost ? PS_GAP_SIZE : 0);
}

ps_chunk *ps__copy_chunk(const void *data, size_t size); /* NULL, as from the next three: there is no memory */
ps_chunk *ps__shared_chunk(ps_shared *shared);
ps_chunk *ps__object_chunk(ps_engine *engine, const uint8_t *data, size_t size, void *object);
ps_chunk *ps__chunk_of_piece(ps_engine *engine, unsigned i, size_t sent);
void ps__free_chunks(ps_engine *engine, ps_chunk *chunk);
void ps__append_chunk(ps_conn *conn, ps_chunk *chunk);
void ps__count_queued(ps_conn *conn, uint64_t queued);
/* Take out the first push that waits whole; NULL: there is none. *behind: the next one, or NULL. */
ps_chunk *ps__unlink_push(ps_conn *conn, ps_chunk **behind);
ps_chunk *ps__take_queue(ps_conn *conn);
/* One iovec, or two of a push that tells of others. */
size_t ps__put_chunk(const ps_chunk *chunk, struct iovec *iov, uint8_t mark[PS_MARKED_HEAD]);
size_t ps__queue_vector(const ps_conn *conn, struct iovec *iov, ps_marks marks, size_t *total);
void ps__advance_queue(ps_engine *engine, ps_conn *conn, size_t sent);
void ps__close_piece(ps_engine *engine);
void ps__drop_gathered(ps_engine *engine);
void ps__gathered_clear(ps_engine *engine); /* in a forked child: it is the parent's to send */
void ps__drop_output(ps_engine *engine, ps_conn *conn);

#endif
