/* handlers.c: the engine's hooks as a program of a user would fill them. What a handler does, its request says with the
 * first byte; what the connect hook does, the client's name. */
#include "world.h"
#include "base/sys.h"
#include "conn/defer.h"
#include "conn/output.h"
#include "conn/rules.h"
#include "conn/stream.h"
#include "loop/command.h"

static link *link_of_conn(const ps_conn *conn)
{
    for (unsigned i = 0; i < sim.link_count; i++)
        if (sim.links[i].id == ps__id(conn))
            return &sim.links[i];
    world_wrong(__FILE__, __LINE__, "a connection that nobody made");
}

/* -- objects ------------------------------------------------------------------------------------------------------- */

static void on_enter(void *context)
{
    (void)context;
    REQUIRE(!sim.inside);
    sim.inside = true;
}

static void on_leave(void *context)
{
    (void)context;
    REQUIRE(sim.inside);
    sim.inside = false;
}

static int on_check(void *context)
{
    (void)context;
    REQUIRE(sim.inside);
    return 0;
}

static void *object_new(void *context, size_t size, uint8_t **data)
{
    (void)context;
    REQUIRE(sim.inside);
    object *made = ps_sys.allocate(sizeof *made + size);
    if (!made)
        return NULL;
    made->users = 1;
    sim.objects++;
    *data = made->data;
    return made;
}

static void object_unref(void *context, void *released)
{
    (void)context;
    object *it = released;
    REQUIRE(sim.inside && it->users > 0);
    if (--it->users)
        return;
    ps__free(it);
    sim.objects--;
}

static void *object_resize(void *context, void *old, size_t size, uint8_t **data)
{
    REQUIRE(sim.inside && ((object *)old)->users == 1);
    object *made = ps_sys.resize(old, sizeof *made + size);
    if (!made) {
        object_unref(context, old);
        return NULL;
    }
    *data = made->data;
    return made;
}

static void object_ref(void *context, void *held)
{
    (void)context;
    object *it = held;
    REQUIRE(sim.inside && it->users > 0);
    it->users++;
}

/* -- replies ------------------------------------------------------------------------------------------------------- */

static void send_reply(ps_conn *conn, const ps_frame *frame, const void *data, size_t size, object *lies_in)
{
    if (size > conn->max_reply)
        ps__cannot_serve(sim.engine, conn, frame, PS_HANDLER_FAILED, "", 0);
    else if (!(frame->flags & PS_NO_REPLY))
        ps__send(sim.engine, conn, PS_REPLY, 0, frame->request_id, data, size, lies_in);
}

/* As large as the second byte of the request says, and in an object of its own. */
static void send_large(ps_conn *conn, const ps_frame *frame)
{
    size_t size = frame->size > 1 ? frame->payload[1] * (size_t)512 : PS_BY_REFERENCE;
    uint8_t *data;
    object *made = object_new(NULL, size, &data);
    if (!made) {
        ps__cannot_serve(sim.engine, conn, frame, PS_HANDLER_FAILED, "no memory", 9);
        return;
    }
    memset(data, 'l', size);
    send_reply(conn, frame, data, size, made);
    object_unref(NULL, made);
}

static void disconnect_other(const ps_frame *frame)
{
    unsigned which = frame->size > 1 ? frame->payload[1] : 0;
    if (sim.link_count && sim.links[which % sim.link_count].id)
        ps_engine_disconnect(sim.engine, sim.links[which % sim.link_count].id);
}

static const uint8_t ask_frame[] = {0, 0, 0, 1, PS_ASK, 0, 0, 0, 0, 0, 0, 1, 0};

/* What the handler does before it answers; returns whether it has answered. */
static bool act(ps_conn *conn, const ps_frame *frame)
{
    switch (frame->size ? frame->payload[0] : 0) {
    case 'L':
        send_large(conn, frame);
        return true;
    case 'F':
        ps__cannot_serve(sim.engine, conn, frame, PS_HANDLER_FAILED, "failed", 6);
        return true;
    case 'N':
        return sim.options.framing != PS_PYSOCK;
    case 'P':
        ps_engine_push(sim.engine, ps__id(conn), frame->payload, frame->size);
        break;
    case 'B':
        ps_engine_broadcast(sim.engine, frame->payload, frame->size);
        break;
    case 'D':
        ps_engine_disconnect(sim.engine, ps__id(conn));
        break;
    case 'O':
        disconnect_other(frame);
        break;
    case 'S': /* the world goes on while the handler runs */
        if (!sim.over)
            sim.step(sim.driver);
        break;
    case 'A': /* ask this client, or give up what it was asked */
        ps__engine_ask(sim.engine, ps__id(conn), ask_frame, sizeof ask_frame, frame->size);
        break;
    case 'Q':
        world_stop(1000000000u);
        break;
    default:
        break;
    }
    return false;
}

/* As a batch does, or by a record of its own. */
static bool wait_for_answer(ps_conn *conn, const ps_frame *frame, bool deferred, kept *it)
{
    if (!deferred) {
        it->pending = ps__pending_add(sim.engine, conn, frame);
        return true;
    }
    it->pending = (ps_pending){.client_id = ps__id(conn), .frame = *frame};
    it->handle = ps__defer(sim.engine, conn, frame);
    if (!it->handle)
        return false;
    object_ref(NULL, it->payload);
    REQUIRE(ps__defer_keep(sim.engine, it->handle, it->payload));
    return true;
}

static int keep(ps_conn *conn, const ps_frame *frame, bool deferred)
{
    uint8_t *data;
    bool has_ids = sim.options.framing == PS_PYSOCK;
    if (sim.kept_count == WORLD_KEPT || (deferred && !has_ids && conn->in_flight))
        return send_reply(conn, frame, "", 0, NULL), 0;
    object *payload = object_new(NULL, frame->size, &data);
    if (!payload)
        return ps__cannot_serve(sim.engine, conn, frame, PS_HANDLER_FAILED, "no memory", 9), 0;
    memcpy(data, frame->payload, frame->size);
    kept *it = &sim.kept[sim.kept_count];
    *it = (kept){.payload = payload};
    if (!wait_for_answer(conn, frame, deferred, it)) {
        object_unref(NULL, payload);
        return ps__cannot_serve(sim.engine, conn, frame, PS_HANDLER_FAILED, "no memory", 9), 0;
    }
    sim.kept_count++;
    link_of_conn(conn)->waiting += deferred;
    it->pending.frame.payload = data;
    it->streams = deferred && (frame->flags & (PS_TAKES_STREAM | PS_NO_REPLY)) == PS_TAKES_STREAM;
    if (it->streams) {
        ps_deferred *record = ps__deferred_find(sim.engine, it->handle);
        record->is_stream = true;
        ps__stream_tell(sim.engine, record);
    }
    uint64_t due = sim.engine->now_ns + sim.batch_wait_ns;
    if (due < sim.engine->batch_due_ns)
        sim.engine->batch_due_ns = due;
    return 0;
}

/* -- streams ------------------------------------------------------------------------------------------------------- */

enum { PIECE_MOST = 2000 };

/* What the loop asks for pieces: so many, of such a size, as the request says. */
typedef struct pieces {
    unsigned left, size;
} pieces;

static pieces *pieces_of(void *it)
{
    pieces *found = (pieces *)(void *)((object *)it)->data;
    return found;
}

static int send_piece(ps_conn *conn, ps_deferred *record, unsigned size)
{
    uint8_t *data;
    size = size < conn->max_reply ? size : conn->max_reply;
    object *piece = object_new(NULL, size, &data);
    if (!piece)
        return 1;
    memset(data, 's', size);
    REQUIRE(record->sent < record->limit && !(conn->flags & PS_PAUSED_OUTPUT));
    int more = ps__stream_send(sim.engine, conn, record, data, size, piece, PIECE_MOST);
    object_unref(NULL, piece);
    return more;
}

static int on_pull(void *context, ps_conn *conn, uint64_t handle, void *it, uint64_t until_ns)
{
    (void)context;
    pieces *what = pieces_of(it);
    REQUIRE(sim.inside && until_ns && !conn->out_head);
    for (int count = 0; count < 16; count++) {
        if (!what->left--) {
            ps_work work;
            ps_conn *owed = ps__defer_done(sim.engine, handle, &work);
            if (owed)
                send_reply(owed, &work.frame, "", 0, NULL);
            if (work.object)
                object_unref(NULL, work.object);
            sim.streams--;
            link_of_conn(conn)->waiting--;
            return 0;
        }
        if (send_piece(conn, ps__deferred_find(sim.engine, handle), what->size) <= 0)
            return 0;
    }
    return 0;
}

static int on_close(void *context, ps_conn *conn, const ps_frame *frame, void *it)
{
    (void)context;
    REQUIRE(sim.inside && ((object *)it)->users > 0 && frame->flags & PS_TAKES_STREAM);
    REQUIRE(!conn || conn->state);
    sim.streams--;
    if (conn && conn->reason != PS_LEFT) /* else it gets no answer */
        link_of_conn(conn)->waiting--;
    return 0;
}

static int on_flow(void *context, void *it, int64_t left, uint64_t limit)
{
    (void)context;
    (void)limit;
    REQUIRE(sim.inside && ((object *)it)->users > 0 && left >= 0);
    return 0;
}

static int begin_stream(ps_conn *conn, const ps_frame *frame)
{
    uint8_t *data;
    object *it = object_new(NULL, sizeof(pieces), &data);
    uint64_t handle = it ? ps__defer(sim.engine, conn, frame) : 0;
    if (!handle) {
        if (it)
            object_unref(NULL, it);
        return ps__cannot_serve(sim.engine, conn, frame, PS_HANDLER_FAILED, "no memory", 9), 0;
    }
    uint8_t more = frame->size > 1 ? frame->payload[1] : 3;
    *pieces_of(it) = (pieces){.left = more & 63u, .size = (more >> 6) * 500u};
    REQUIRE(ps__defer_keep(sim.engine, handle, it));
    ps__deferred_find(sim.engine, handle)->is_endless = more & 1;
    ps__stream_pull(sim.engine, handle);
    sim.streams++;
    link_of_conn(conn)->waiting++;
    return 0;
}

/* Of one that sends them itself: as many as it may, and its answer. */
static void send_pieces(const kept *it)
{
    for (unsigned count = 0; count < 5; count++) {
        ps_deferred *record = ps__deferred_find(sim.engine, it->handle);
        ps_conn *conn = record ? ps__table_find(&sim.engine->table, record->pending.client_id) : NULL;
        if (!record || record->why || record->is_answered || record->sent >= record->limit ||
            conn->flags & PS_PAUSED_OUTPUT || send_piece(conn, record, it->pending.frame.size) <= 0)
            break;
        ps__stream_seen(sim.engine, it->handle);
    }
}

static int serve(ps_conn *conn, const ps_frame *frame, object *lies_in)
{
    uint8_t what = frame->size && !sim.only_echoes ? frame->payload[0] : 0;
    if (!sim.only_echoes && ps__is_late(frame))
        return ps__not_started(sim.engine, conn, frame, PS_DEADLINE_PASSED, ""), 0;
    if (what == 'K' || what == 'W')
        return keep(conn, frame, what == 'W');
    if (what == 'Y' && (frame->flags & (PS_TAKES_STREAM | PS_NO_REPLY)) == PS_TAKES_STREAM)
        return begin_stream(conn, frame);
    if (what == 'X') {
        sim.cancelled = true;
        return -ECANCELED;
    }
    if (sim.only_echoes || !act(conn, frame))
        send_reply(conn, frame, frame->payload, frame->size, lies_in);
    return 0;
}

static void note(const ps_conn *conn, const ps_frame *frame)
{
    uint8_t head[PS_HEADER_SIZE];
    buffer *given = &link_of_conn(conn)->given;
    ps__write_header(head, frame->size, frame->kind, frame->flags, frame->code, frame->request_id);
    buffer_add(given, head, sizeof head);
    buffer_add(given, frame->payload, frame->size);
}

static int on_request(void *context, ps_conn *conn, const ps_frame *frame, void *lies_in)
{
    uint8_t *data;
    REQUIRE(sim.inside && conn->state == PS_CONN_ESTABLISHED && !sim.cancelled);
    REQUIRE(frame->size <= sim.options.limits.max_payload && frame->code < sim.options.services);
    sim.requests++;
    note(conn, frame);
    if (!conn->object) /* somebody has looked at the client; if there is no memory, nobody has */
        conn->object = object_new(context, 0, &data);
    int error = serve(conn, frame, lies_in);
    if (lies_in)
        object_unref(context, lies_in);
    return error;
}

/* -- batches ------------------------------------------------------------------------------------------------------- */

static ps_conn *whom_to_answer(const kept *it)
{
    ps_work work;
    if (!it->handle)
        return ps__pending_done(sim.engine, &it->pending);
    ps_conn *conn = ps__defer_done(sim.engine, it->handle, &work);
    if (work.object)
        object_unref(NULL, work.object);
    return conn;
}

static void answer_kept(const kept *it)
{
    const ps_frame *frame = &it->pending.frame;
    if (it->streams)
        send_pieces(it);
    ps_conn *conn = whom_to_answer(it);
    if (conn && it->handle)
        link_of_conn(conn)->waiting--;
    if (conn)
        send_reply(conn, frame, frame->payload, frame->size, it->payload);
    object_unref(NULL, it->payload);
}

static int on_batches(void *context, bool all, uint64_t *due_ns)
{
    (void)context;
    REQUIRE(sim.inside);
    if (sim.kept_count && !all && *due_ns > sim.engine->now_ns)
        return 0;
    *due_ns = UINT64_MAX;
    unsigned count = sim.kept_count;
    for (unsigned i = 0; i < count; i++) {
        if (sim.kept[i].handle || ps__pending_may_start(sim.engine, &sim.kept[i].pending))
            answer_kept(&sim.kept[i]);
        else
            object_unref(NULL, sim.kept[i].payload);
    }
    REQUIRE(sim.kept_count == count); /* a reply calls no handler */
    sim.kept_count = 0;
    ps__pending_flush(sim.engine);
    return 0;
}

/* Odd numbers were asked. */
static int on_answered(void *context, ps_conn *conn, const ps_frame *frame)
{
    (void)context;
    REQUIRE(sim.inside && conn->state == PS_CONN_ESTABLISHED && conn->features & PS_FEATURE_ASK);
    REQUIRE(frame->size <= sim.options.limits.max_payload);
    return sim.only_echoes ? 0 : (int)(frame->request_id & 1);
}

/* Nobody waits for it. Of every second one the work had begun. */
static int on_ended(void *context, void *object_of_it, enum ps_why why)
{
    (void)context;
    const object *it = object_of_it;
    REQUIRE(sim.inside && it->users > 0 && why != PS_WHY_NONE && why < PS_WHYS);
    return sim.requests % 2;
}

/* -- coming and going ---------------------------------------------------------------------------------------------- */

static int on_connect(void *context, ps_conn *conn, char *reason, size_t room)
{
    (void)context;
    REQUIRE(sim.inside && conn->state == (sim.options.has_key ? PS_CONN_CHALLENGED : PS_CONN_ACCEPTED));
    switch (conn->name ? conn->name[0] : 0) {
    case '!':
        snprintf(reason, room, "members only");
        return 1;
    case '+':
        ps_engine_push(sim.engine, ps__id(conn), (const uint8_t *)"welcome", 7);
        break;
    case '-':
        ps_engine_disconnect(sim.engine, ps__id(conn));
        break;
    case '*':
        for (int i = 0; i < 300; i++) /* more than the limits of a small queue allow */
            ps_engine_push(sim.engine, ps__id(conn), (const uint8_t *)"welcome", 7);
        break;
    default:
        break;
    }
    sim.let_in++;
    return 0;
}

static int on_disconnect(void *context, ps_conn *conn)
{
    (void)context;
    link *it = link_of_conn(conn);
    REQUIRE(sim.inside && conn->state == PS_CONN_CLOSED && !it->told);
    it->told = true;
    sim.gone++;
    return 0;
}

static int on_tell(void *context, enum ps_tell what, uint64_t first, uint64_t second)
{
    (void)context;
    REQUIRE(sim.inside && (what != PS_TELL_NOTED || (first < PS_CAUSES && second)));
    if (what == PS_TELL_DRAINING) {
        sim.drained++;
        kernel_close_masters();
    }
    return 0;
}

/* A key that any child could guess: the proof is the nonce with some bits turned. */
static int on_challenge(void *context, const uint8_t *nonce, const char *name, ps_challenge *made)
{
    (void)context;
    REQUIRE(sim.inside && name);
    made->size = ps__put_field(made->fields, PS_TAG_NONCE, nonce, PS_NONCE_SIZE);
    for (size_t i = 0; i < PS_MAC_SIZE; i++)
        made->expected[i] = nonce[i] ^ TOY_KEY;
    return 0;
}

static int on_prove(void *context, const uint8_t *expected, const uint8_t *got)
{
    (void)context;
    REQUIRE(sim.inside);
    return memcmp(expected, got, PS_MAC_SIZE) == 0;
}

const ps_hooks world_hooks = {
    .enter = on_enter,
    .leave = on_leave,
    .check = on_check,
    .connect = on_connect,
    .request = on_request,
    .batches = on_batches,
    .answered = on_answered,
    .ended = on_ended,
    .pull = on_pull,
    .close = on_close,
    .flow = on_flow,
    .disconnect = on_disconnect,
    .tell = on_tell,
    .challenge = on_challenge,
    .prove = on_prove,
    .object_new = object_new,
    .object_resize = object_resize,
    .object_ref = object_ref,
    .object_unref = object_unref,
};
