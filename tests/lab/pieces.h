/* pieces.h: of the server of echo.h, what goes over more than one frame: requests that it answers by a stream, which the loop
 * asks for its pieces, and what it asks its clients. Where there is no memory for a stream its client is told so. */
#ifndef PYSOCK_PIECES_H
#define PYSOCK_PIECES_H

#include "conn/defer.h"
#include "conn/rules.h"
#include "conn/stream.h"
#include "echo.h"
#include "later.h"
#include "table/deferred.h"

/* So much is sent without credit, and may wait to be sent; so many pieces there are, and behind them the last one. */
enum { PIECES_WINDOW = 500, PIECES_WAITING = 64 * 1024, PIECES = 4 };

/* What is kept of a stream; each piece is a part of the pattern as long as the request says. */
typedef struct pieces {
    uint32_t size, made;
} pieces;

static const uint8_t *pieces_pattern;
static atomic_uint pieces_asked, pieces_answered; /* the number of what was asked last; and how many answers came */

static int pieces_end(echo *e, uint64_t handle)
{
    ps_work work;
    ps_conn *conn = ps__defer_done(e->engine, handle, &work);
    CHECK(conn && work.object);
    ps__send(e->engine, conn, PS_REPLY, 0, work.frame.request_id, pieces_pattern, 9, NULL);
    echo_object_unref(e, work.object);
    return 0;
}

static int pieces_pull(void *context, ps_conn *conn, uint64_t handle, void *object, uint64_t until_ns)
{
    echo *e = context;
    pieces *p = (pieces *)(void *)((echo_object *)object)->data;
    ps_deferred *record = ps__deferred_find(e->engine, handle);
    CHECK(e->inside && record && until_ns && record->sent < record->limit);
    while (p->made < PIECES) {
        const uint8_t *piece = pieces_pattern + p->made++;
        if (ps__stream_send(e->engine, conn, record, piece, p->size, NULL, PIECES_WAITING) <= 0)
            return 0;
    }
    return pieces_end(e, handle);
}

static int pieces_close(void *context, ps_conn *conn, const ps_frame *frame, void *object)
{
    (void)conn;
    CHECK(((echo *)context)->inside && frame->flags & PS_TAKES_STREAM && ((echo_object *)object)->users > 0);
    return 0;
}

static int pieces_request(void *context, ps_conn *conn, const ps_frame *frame, void *o)
{
    static const char none[] = "there is no memory for a stream";
    echo *e = context;
    uint8_t *data;
    if (!(frame->flags & PS_TAKES_STREAM))
        return later_request(context, conn, frame, o);
    CHECK(!o && frame->size == 4);
    uint64_t handle = ps__defer(e->engine, conn, frame);
    if (!handle) {
        ps__cannot_serve(e->engine, conn, frame, PS_OVERLOADED, none, sizeof none - 1);
        return 0;
    }
    void *object = echo_object_new(e, sizeof(pieces), &data);
    const pieces begun = {.size = ps__get32(frame->payload)};
    memcpy(data, &begun, sizeof begun);
    CHECK(ps__defer_keep(e->engine, handle, object));
    ps__stream_pull(e->engine, handle);
    return 0;
}

static int pieces_answered_by(void *context, ps_conn *conn, const ps_frame *frame)
{
    CHECK(((echo *)context)->inside && conn->state == PS_CONN_ESTABLISHED && frame->kind == PS_ANSWER);
    CHECK_EQ(frame->request_id, pieces_asked);
    pieces_answered++;
    return 1;
}

/* From the thread of the script. 1; 0: this client isn't there; else why it isn't asked. */
static int pieces_ask(echo *e, uint64_t client_id, const void *payload, size_t size)
{
    static uint8_t frame[PS_HEADER_SIZE + 1 + 4096];
    CHECK(size <= 4096);
    ps__write_header(frame, (uint32_t)size + 1, PS_ASK, 0, 0, ++pieces_asked);
    frame[PS_HEADER_SIZE] = 0; /* no name: the unnamed service */
    memcpy(frame + PS_HEADER_SIZE + 1, payload, size);
    return ps__engine_ask(e->engine, client_id, frame, PS_HEADER_SIZE + 1 + size, size);
}

#endif
