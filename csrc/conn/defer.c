/* defer.c: requests whose handler has returned, and whose answer comes later.
 *
 * Each gets one answer. Until then it is in flight; also when its client has cancelled it, or its deadline has passed: then
 * whoever works for it is told, the client has its answer at once, and the place in flight is free when the work is over.
 *
 * Where no id tells which request a reply is for, a client isn't read while one of its requests is deferred. */
#include "base/host.h"
#include "base/meter.h"
#include "base/texts.h"
#include "conn/defer.h"
#include "conn/life.h"
#include "conn/output.h"
#include "conn/pending.h"
#include "table/deferred.h"
#include "table/table.h"

uint64_t ps__defer(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    ps_pending pending = {ps__id(conn), *frame, 0};
    pending.frame.payload = NULL; /* its bytes are the handler's */
    uint64_t handle = ps__deferred_add(engine, conn, &pending);
    if (!handle)
        return 0;
    if (engine->meter)
        ps__meter_later(engine->meter, frame);
    ps__pending_count(engine, conn, frame->size);
    ps__deferred_find(engine, handle)->pending.serial =
        ps__pending_hold_id(engine, conn, frame, handle | PS_ID_OF_DEFERRED);
    if (!ps__framing(engine, conn)->has_ids)
        conn->flags |= PS_PAUSED_PENDING;
    return handle;
}

bool ps__defer_keep(ps_engine *engine, uint64_t handle, void *object)
{
    ps_deferred *record = ps__deferred_find(engine, handle);
    if (record)
        record->object = object;
    return record;
}

static void *end_work(ps_engine *engine, ps_conn *conn, ps_deferred *record)
{
    uint32_t size = record->pending.frame.size;
    void *object = record->object;
    record->object = NULL;
    ps__deferred_remove(engine, conn, record);
    ps__pending_uncount(engine, conn, size);
    return object;
}

ps_conn *ps__defer_done(ps_engine *engine, uint64_t handle, ps_work *work)
{
    ps_deferred *record = ps__deferred_find(engine, handle);
    work->object = NULL;
    if (!record)
        return NULL;
    ps_conn *conn = ps__table_find(&engine->table, record->pending.client_id); /* there: else the record would be over */
    bool is_owed = !record->is_answered && ps__pending_free_id(engine, &record->pending) && !(conn->flags & PS_GAVE_UP);
    work->frame = record->pending.frame;
    work->began_ns = record->began_ns;
    work->object = end_work(engine, conn, record);
    return is_owed ? conn : NULL;
}

bool ps__defer_cancel(ps_engine *engine, const ps_conn *conn, uint32_t request_id)
{
    uint64_t value = ps__ids_find(&engine->ids_in_flight, ps__id(conn), request_id);
    if (!(value & PS_ID_OF_DEFERRED))
        return false;
    ps__deferred_mark(engine, ps__deferred_find(engine, value & ~PS_ID_OF_DEFERRED), PS_WHY_CANCELLED);
    return true;
}

/* -- those that nobody waits for ----------------------------------------------------------------------------------- */

static void drop(ps_engine *engine, void *object)
{
    if (object)
        engine->hooks.object_unref(engine->hooks.context, object);
}

/* Whether the work had begun. */
static bool tell_worker(ps_engine *engine, void *object, enum ps_why why)
{
    int begun = engine->hooks.ended(engine->hooks.context, object, why);
    ps__fail(engine, begun);
    return begun != 0;
}

typedef struct last_answer {
    uint16_t code;
    const char *text;
} last_answer;

/* To a client that is there; by whether the work had begun. */
static const last_answer last_answers[PS_WHYS][2] = {
    [PS_WHY_CANCELLED] = {{PS_CANCELLED, PS_TEXT_CANCELLED}, {PS_CANCELLED, PS_TEXT_CANCELLED}},
    [PS_WHY_GONE] = {{PS_CANCELLED, PS_TEXT_CANCELLED}, {PS_CANCELLED, PS_TEXT_CANCELLED}}, /* no credit can come */
    [PS_WHY_LATE] = {{PS_DEADLINE_PASSED, PS_TEXT_TOO_LATE}, {PS_DEADLINE_PASSED, PS_TEXT_TOO_LATE}},
    [PS_WHY_STOPPED] = {{PS_SHUTTING_DOWN, PS_TEXT_SHUTTING_DOWN}, {PS_CANCELLED, PS_TEXT_CUT_SHORT}},
};

static void answer_client(ps_engine *engine, ps_conn *conn, const ps_frame *frame, enum ps_why why, bool begun)
{
    const last_answer *answer = &last_answers[why][begun];
    if (!begun && ps__framing(engine, conn)->has_texts) {
        ps__not_started(engine, conn, frame, answer->code, answer->text);
        return;
    }
    ps__count_error(engine, frame, answer->code);
    if (ps__framing(engine, conn)->has_texts && !(frame->flags & PS_NO_REPLY))
        ps__send_error(engine, conn, 0, answer->code, frame->request_id, answer->text);
}

/* Of a stream that the loop asks: nobody else has to end it. */
static void close_stream(ps_engine *engine, const ps_pending *pending, void *object)
{
    ps_conn *conn = ps__table_row(&engine->table, pending->client_id);
    ps__fail(engine, engine->hooks.close(engine->hooks.context, conn, &pending->frame, object));
}

/* Whether its work goes on. */
static bool tell_one(ps_engine *engine, const ps_deferred *record, bool *begun)
{
    void *object = record->object;
    const ps_pending pending = record->pending;
    const bool is_pulled = record->is_pulled;
    engine->hooks.object_ref(engine->hooks.context, object);
    if (is_pulled)
        close_stream(engine, &pending, object);
    *begun = is_pulled || tell_worker(engine, object, record->why);
    drop(engine, object);
    return *begun && !is_pulled;
}

/* Its client is there, or was before the worker was told. */
static void tell_both(ps_engine *engine, ps_deferred *record)
{
    uint64_t handle = ps__deferred_handle(engine, record);
    enum ps_why why = record->why;
    bool begun;
    record->is_told = true;
    ps__deferred_unready(engine, record);
    bool goes_on = tell_one(engine, record, &begun);
    record = ps__deferred_find(engine, handle);
    if (!record)
        return; /* what was called has answered it, or closed the client */
    ps_conn *conn = ps__table_find(&engine->table, record->pending.client_id);
    const ps_frame frame = record->pending.frame;
    bool was_answered = record->is_answered;
    record->is_answered = true;
    ps__pending_free_id(engine, &record->pending);
    if (!goes_on)
        drop(engine, end_work(engine, conn, record));
    if (!was_answered)
        answer_client(engine, conn, &frame, why, begun);
}

static void tell_orphan(ps_engine *engine, uint32_t slot)
{
    ps_deferred *record = ps__deferred_at(engine, slot);
    const ps_pending pending = record->pending;
    const bool is_pulled = record->is_pulled;
    void *object = record->object;
    enum ps_why why = record->is_told ? PS_WHY_NONE : record->why;
    ps__deferred_put_away(engine, slot);
    if (object && why && is_pulled)
        close_stream(engine, &pending, object);
    else if (object && why)
        tell_worker(engine, object, why);
    drop(engine, object);
}

void ps__defer_tell(ps_engine *engine)
{
    ps__deferred_expire(engine);
    for (uint32_t slot; (slot = ps__deferred_pop(engine)) != PS_NO_SLOT;) {
        ps__enter(engine);
        if (ps__deferred_at(engine, slot)->is_over)
            tell_orphan(engine, slot);
        else
            tell_both(engine, ps__deferred_at(engine, slot));
    }
}

void ps__defer_fail(ps_engine *engine, uint64_t handle)
{
    ps_deferred *record = ps__deferred_find(engine, handle);
    if (!record)
        return;
    record->is_answered = true;
    ps__pending_free_id(engine, &record->pending);
    ps__deferred_mark(engine, record, PS_WHY_CANCELLED);
}

void ps__defer_end_endless(ps_engine *engine, const ps_conn *conn)
{
    uint32_t slot = conn->state == PS_CONN_CLOSED ? PS_NO_SLOT : conn->deferred;
    for (; slot != PS_NO_SLOT; slot = ps__deferred_at(engine, slot)->next)
        if (ps__deferred_at(engine, slot)->is_endless)
            ps__deferred_mark(engine, ps__deferred_at(engine, slot), PS_WHY_STOPPED);
}

void ps__defer_cut_short(ps_engine *engine, ps_conn *conn)
{
    if (conn->deferred == PS_NO_SLOT)
        return;
    for (uint32_t slot = conn->deferred; slot != PS_NO_SLOT; slot = ps__deferred_at(engine, slot)->next)
        ps__deferred_mark(engine, ps__deferred_at(engine, slot), PS_WHY_STOPPED);
    ps__defer_tell(engine);
    if (conn->state != PS_CONN_CLOSED)
        ps__send_queue(engine, conn);
}
