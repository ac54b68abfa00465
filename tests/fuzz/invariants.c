/* invariants.c: what holds of every run, whatever the clients do.
 *
 * Between turns the engine's own state must make sense: who waits for something is watched for it, or timed. At the end
 * each client must have got whole messages, in an order that the protocol allows, and each request at most one answer. */
#include "conn/queue.h"
#include "table/backlog.h"
#include "world.h"
#include "conn/stream.h"

/* -- between turns ------------------------------------------------------------------------------------------------- */

static unsigned wanted_interest(const ps_conn *conn)
{
    bool stays = conn->interest & PS_POLL_IN; /* until more comes than is read */
    bool in = conn->state <= PS_CONN_ESTABLISHED && !(conn->flags & PS_PAUSED_OUTPUT) &&
              (stays || !(conn->flags & PS_PAUSED_PENDING));
    bool out = (conn->out_head || conn->flags & PS_IS_SENDING) && !(conn->flags & PS_IS_STARVED);
    return (in ? PS_POLL_IN : 0u) | (out ? PS_POLL_OUT : 0u);
}

static void check_watched(const link *it, const ps_conn *conn)
{
    unsigned wanted = wanted_interest(conn);
    REQUIRE(conn->interest == wanted);
    const descriptor *seen = kernel_descriptor(it->fd);
    uint32_t events = (wanted & PS_POLL_IN ? EPOLLIN : 0u) | (wanted & PS_POLL_OUT ? EPOLLOUT : 0u);
    REQUIRE(seen->watched == (wanted != 0));
    REQUIRE(!wanted || (seen->events == events && seen->key == it->id));
}

/* What the engine has counted of the pushes that wait whole. */
static void check_backlog(const ps_conn *conn, uint64_t waiting)
{
    const ps_backlog *chunk = sim.engine->backlogs ? sim.engine->backlogs[conn->slot / PS_CHUNK_SLOTS] : NULL;
    REQUIRE(chunk ? chunk[conn->slot % PS_CHUNK_SLOTS].waiting == waiting : !waiting);
}

static void check_queue(const link *it, const ps_conn *conn)
{
    uint64_t queued = 0, waiting = 0;
    const ps_chunk *last = NULL;
    for (const ps_chunk *chunk = conn->out_head; chunk; chunk = chunk->next) {
        REQUIRE(ps__chunk_size(chunk) > chunk->sent);
        queued += ps__chunk_size(chunk) - chunk->sent;
        waiting += chunk->shared && !chunk->sent ? chunk->size + PS_PUSH_COST : 0;
        last = chunk;
    }
    REQUIRE(conn->queued == queued && conn->out_tail == last);
    REQUIRE(queued <= sim.options.limits.output_drop);
    check_backlog(conn, waiting);
    REQUIRE(conn->bytes_out >= it->down.size + queued);
    if (!sim.options.ask_connects && !it->broken && !sim.starved) /* what the hook pushed may have been dropped */
        REQUIRE(conn->bytes_out == it->down.size + queued);
}

static bool is_incomplete(const ps_conn *conn)
{
    return conn->part || conn->stash_size || conn->flags & PS_IS_SKIPPING;
}

static void check_timed(const ps_conn *conn)
{
    const ps_limits *limits = &sim.options.limits;
    bool input = conn->flags & PS_TIMED_INPUT, output = conn->flags & PS_TIMED_OUTPUT, idle = conn->flags & PS_TIMED_IDLE;
    bool cir = conn->flags & PS_TIMED_CIR;
    if (conn->state == PS_CONN_ACCEPTED || conn->state == PS_CONN_CHALLENGED)
        REQUIRE(input == (limits->cir_timeout_ns != 0) && cir == input);
    else if (conn->state == PS_CONN_ESTABLISHED)
        REQUIRE(input == (limits->frame_timeout_ns && is_incomplete(conn)) && !cir);
    else if (conn->state == PS_CONN_DRAINING && !conn->was_let_in) /* refused: its time goes on */
        REQUIRE(input == (limits->cir_timeout_ns && sim.options.framing == PS_PYSOCK) && cir == input && !idle);
    else
        REQUIRE(!input && !idle);
    if (conn->state <= PS_CONN_ESTABLISHED)
        REQUIRE(idle == (limits->idle_timeout_ns != 0));
    bool sends = conn->out_head || conn->flags & PS_IS_SENDING;
    bool tried = output || !(conn->flags & PS_IS_DIRTY); /* its deadline runs from when it is tried to be sent */
    REQUIRE(tried ? output == (sends && limits->output_timeout_ns) : !(conn->flags & PS_IS_SENDING));
}

/* Nobody is stuck: who is not read, or not closed yet, waits for something that will come. */
static void check_has_a_reason(const ps_conn *conn)
{
    if (conn->state == PS_CONN_DRAINING)
        REQUIRE(conn->out_head || conn->in_flight || conn->flags & PS_IS_SENDING);
    if (conn->unread)
        REQUIRE(conn->flags & (PS_PAUSED_OUTPUT | PS_PAUSED_PENDING));
    if (conn->flags & PS_PAUSED_OUTPUT && conn->state <= PS_CONN_ESTABLISHED)
        REQUIRE(conn->queued > (conn->was_let_in ? sim.options.limits.output_pause / 2 : 0));
    if (conn->flags & PS_PAUSED_PENDING && conn->state <= PS_CONN_ESTABLISHED)
        REQUIRE(conn->in_flight > sim.options.limits.max_in_flight / 2 ||
                (conn->deferred != PS_NO_SLOT && sim.options.framing != PS_PYSOCK));
}

/* A stream is asked for more, or waits for something: for its client to take what there is, or for credit. */
static void check_streams(const ps_conn *conn)
{
    for (uint32_t slot = conn->deferred; slot != PS_NO_SLOT; slot = ps__deferred_at(sim.engine, slot)->next) {
        const ps_deferred *record = ps__deferred_at(sim.engine, slot);
        bool may_go_on = record->sent < record->limit && !record->why;
        REQUIRE(!record->is_held || record->is_stream);
        REQUIRE(!record->is_ready || (record->is_pulled && !record->is_held && record->sent < record->limit));
        REQUIRE(!record->is_pulled || !may_go_on || record->is_ready || record->is_held);
        REQUIRE(!record->is_held || conn->out_head);
        REQUIRE(!record->is_stream || may_go_on || record->why || conn->state == PS_CONN_ESTABLISHED);
        REQUIRE(record->sent <= record->limit || record->sent - record->limit <= 2000 + PS_STREAM_COST);
    }
}

static void check_link(const link *it, const ps_conn *conn)
{
    REQUIRE(conn->fd == it->fd && !it->closed);
    REQUIRE(conn->bytes_in <= it->taken);
    check_queue(it, conn);
    if (conn->flags & PS_IS_DIRTY)
        return;
    check_watched(it, conn);
    check_timed(conn);
    check_has_a_reason(conn);
    check_streams(conn);
}

static unsigned length_of(enum ps_timer_list list, enum ps_timer_link which)
{
    unsigned length = 0;
    uint32_t before = PS_NO_SLOT;
    for (uint32_t slot = sim.engine->timers[list].first; slot != PS_NO_SLOT; length++) {
        const ps_conn *conn = ps__slot(&sim.engine->table, slot);
        REQUIRE(conn->timers[which].previous == before && length < WORLD_LINKS);
        before = slot;
        slot = conn->timers[which].next;
    }
    REQUIRE(sim.engine->timers[list].last == before);
    return length;
}

void invariants_between_turns(void)
{
    const ps_engine *engine = sim.engine;
    if (sim.moved)
        return;
    unsigned clients = 0, pending = 0, rows = 0, timed[PS_TIMER_LINKS] = {0};
    REQUIRE(!engine->out_conn && !engine->piece_count && !engine->out_used && !engine->out_lent);
    for (unsigned i = 0; i < sim.accepted; i++) {
        const link *it = &sim.links[i];
        const ps_conn *conn = conn_of(it);
        if (!conn || conn->state == PS_CONN_CLOSED) {
            REQUIRE(it->closed && (!conn || conn->flags & PS_IS_DIRTY));
            rows += conn != NULL;
            continue;
        }
        check_link(it, conn);
        rows++;
        clients += conn->was_let_in;
        pending += !conn->was_let_in;
        timed[PS_LINK_INPUT] += (conn->flags & PS_TIMED_INPUT) != 0;
        timed[PS_LINK_OUTPUT] += (conn->flags & PS_TIMED_OUTPUT) != 0;
        timed[PS_LINK_IDLE] += (conn->flags & PS_TIMED_IDLE) != 0;
    }
    REQUIRE(engine->table.used == rows);
    REQUIRE(engine->stats.clients == clients && engine->stats.pending == pending);
    REQUIRE(clients + pending <= sim.options.limits.max_clients);
    REQUIRE(length_of(PS_TIMER_CIR, PS_LINK_INPUT) + length_of(PS_TIMER_FRAME, PS_LINK_INPUT) == timed[PS_LINK_INPUT]);
    REQUIRE(length_of(PS_TIMER_OUTPUT, PS_LINK_OUTPUT) == timed[PS_LINK_OUTPUT]);
    REQUIRE(length_of(PS_TIMER_IDLE, PS_LINK_IDLE) == timed[PS_LINK_IDLE]);
}

/* All clients read all they get, and send nothing more: then nothing is left to do. */
void invariants_when_quiet(void)
{
    if (sim.moved)
        return;
    REQUIRE(sim.accepted == sim.link_count && sim.engine->dirty == PS_NO_SLOT && !sim.kept_count);
    for (unsigned i = 0; i < sim.accepted; i++) {
        const link *it = &sim.links[i];
        const ps_conn *conn = conn_of(it);
        if (it->closed)
            continue;
        REQUIRE(conn && conn->state <= PS_CONN_ESTABLISHED);
        REQUIRE(!it->half_closed && !it->gone && !it->was_reset);
        REQUIRE(it->seen == it->down.size && !conn->out_head);
        if (!ps__has_streams(sim.engine, conn)) /* they wait for credit, and more may not be read meanwhile */
            REQUIRE(it->taken == it->up.size && !conn->unread && !conn->in_flight);
    }
}

void invariants_at_close(link *it)
{
    const ps_conn *conn = sim.moved ? NULL : conn_of(it);
    if (!conn) { /* turned away at the door, as well as one send can say it */
        it->cut = true;
        return;
    }
    REQUIRE(conn->state == PS_CONN_CLOSED);
    REQUIRE(conn->bytes_out >= it->down.size + conn->queued);
    bool sure = !it->broken && !it->gone && !it->was_reset && !sim.starved && !sim.cancelled;
    bool orderly = conn->reason == PS_LEFT || conn->reason == PS_CLOSED_BY_PEER || conn->reason == PS_CLOSED_BY_SERVER ||
                   conn->reason == PS_PROTOCOL_VIOLATION;
    it->complete = sure && orderly && !conn->queued && !conn->in_flight && !it->waiting &&
                   !sim.stopping;
    it->reason = conn->reason;
    it->cut = conn->queued || it->broken || sim.starved;
}

/* -- at the end: requests ------------------------------------------------------------------------------------------- */

static bool expect_given(const link *it, size_t *at, const ps_frame *frame)
{
    uint8_t head[PS_HEADER_SIZE];
    if (*at == it->given.size)
        return false;
    ps__write_header(head, frame->size, frame->kind, frame->flags, frame->code, frame->request_id);
    REQUIRE(it->given.size - *at >= sizeof head + frame->size);
    REQUIRE(memcmp(it->given.data + *at, head, sizeof head) == 0);
    REQUIRE(!frame->size || memcmp(it->given.data + *at + sizeof head, frame->payload, frame->size) == 0);
    *at += sizeof head + frame->size;
    return true;
}

/* The next message of what the client sent, as the plainest reader would cut it. */
static bool next_sent(const link *it, size_t *at, ps_frame *frame)
{
    size_t left = it->up.size - *at;
    if (!left)
        return false;
    const uint8_t *data = it->up.data + *at;
    const uint8_t *end = sim.options.framing == PS_LINE ? memchr(data, '\n', left) : NULL;
    size_t head = sim.options.framing == PS_PYSOCK ? PS_HEADER_SIZE : sim.options.framing == PS_U32 ? 4 : 0;
    if (left < head || (sim.options.framing == PS_LINE && !end))
        return false;
    *frame = (ps_frame){.kind = PS_SRM};
    if (head == PS_HEADER_SIZE)
        ps__read_header(data, frame);
    else
        frame->size = head ? ps__get32(data) : (uint32_t)(end - data);
    frame->payload = data + head;
    if (frame->size > left - head)
        return false;
    *at += head + frame->size + (end != NULL);
    if (frame->kind == PS_SRM && frame->flags & PS_DEADLINE && frame->size >= PS_DEADLINE_SIZE) {
        frame->flags &= (uint8_t)~PS_DEADLINE; /* it is no part of the request; where nobody speaks of it, this ends it */
        frame->payload += PS_DEADLINE_SIZE;
        frame->size -= PS_DEADLINE_SIZE;
    }
    return true;
}

/* The handlers were given what the client sent: each request once, in its order, up to some point. */
static void check_given(const link *it)
{
    size_t at = 0, from = 0;
    ps_frame frame;
    while (next_sent(it, &from, &frame)) {
        bool served = frame.kind == PS_SRM && frame.size <= sim.options.limits.max_payload &&
                      frame.code < sim.options.services;
        if (served && !expect_given(it, &at, &frame))
            return;
    }
    REQUIRE(at == it->given.size);
}

/* Of `raw` only the bytes count, not how they were cut. */
static void check_given_raw(const link *it)
{
    size_t from = 0;
    ps_frame frame;
    for (size_t at = 0; at < it->given.size; at += PS_HEADER_SIZE + frame.size, from += frame.size) {
        ps__read_header(it->given.data + at, &frame);
        REQUIRE(frame.size && frame.size <= it->up.size - from);
        REQUIRE(memcmp(it->given.data + at + PS_HEADER_SIZE, it->up.data + from, frame.size) == 0);
    }
}

/* -- at the end: answers -------------------------------------------------------------------------------------------- */

typedef struct tally {
    unsigned sent[256], wanted[256], answered[256]; /* by a byte that the request id is hashed to */
    bool unsure; /* an ERROR with the id 0 may have been for a request, or for none */
} tally;

static uint8_t hashed(uint32_t request_id)
{
    return (uint8_t)(request_id ^ request_id >> 8 ^ request_id >> 16 ^ request_id >> 24);
}

static void count_requests(const link *it, tally *count)
{
    ps_frame frame;
    for (size_t at = 0; it->up.size - at >= PS_HEADER_SIZE;) {
        ps__read_header(it->up.data + at, &frame);
        count->sent[hashed(frame.request_id)]++;
        if (frame.size > it->up.size - at - PS_HEADER_SIZE)
            break;
        at += PS_HEADER_SIZE + frame.size;
    }
    for (size_t at = 0; at < it->given.size; at += PS_HEADER_SIZE + frame.size) {
        ps__read_header(it->given.data + at, &frame);
        count->wanted[hashed(frame.request_id)] += !(frame.flags & PS_NO_REPLY);
    }
}

static void check_frame_from_server(const ps_frame *frame, bool accepted, bool refused)
{
    REQUIRE(!refused); /* a refusal is the last word */
    REQUIRE(frame->kind >= PS_CIR_ACCEPTED && frame->kind <= PS_CHALLENGE);
    bool tells = frame->kind == PS_PUSH && frame->flags == PS_GAP && frame->size >= PS_GAP_SIZE && sim.options.slow;
    REQUIRE(frame->flags == 0 || (frame->kind == PS_ERROR && frame->flags == PS_NOT_STARTED) ||
            (frame->kind == PS_REPLY && frame->flags == PS_MORE) || tells);
    bool early = frame->kind == PS_CIR_ACCEPTED || frame->kind == PS_CIR_REFUSED || frame->kind == PS_CHALLENGE;
    REQUIRE(frame->kind == PS_PONG || early != accepted);
    if (frame->kind == PS_ERROR || frame->kind == PS_CIR_REFUSED || frame->kind == PS_GOAWAY)
        REQUIRE(ps__is_utf8(frame->payload, frame->size));
}

static void count_answers(const link *it, tally *count)
{
    bool accepted = false, refused = false, settled = false;
    ps_frame frame;
    size_t at = 0;
    while (it->down.size - at >= PS_HEADER_SIZE) {
        ps__read_header(it->down.data + at, &frame);
        frame.payload = it->down.data + at + PS_HEADER_SIZE;
        if (frame.size > it->down.size - at - PS_HEADER_SIZE)
            break;
        check_frame_from_server(&frame, accepted, refused);
        accepted |= frame.kind == PS_CIR_ACCEPTED;
        refused |= frame.kind == PS_CIR_REFUSED;
        REQUIRE(!settled || frame.kind != PS_REPLY); /* it had said that all that it had accepted was answered */
        settled |= frame.kind == PS_GOAWAY && frame.code == 2;
        bool is_late = frame.kind == PS_ERROR && frame.code == PS_DEADLINE_PASSED;
        bool to_none = is_late && !frame.request_id && !(frame.flags & PS_NOT_STARTED);
        count->unsure |= to_none;
        bool is_answer = (frame.kind == PS_REPLY && !frame.flags) || (frame.kind == PS_ERROR && !to_none);
        count->answered[hashed(frame.request_id)] += is_answer;
        at += PS_HEADER_SIZE + frame.size;
    }
    REQUIRE(at == it->down.size || it->cut);
}

static void check_answers(const link *it)
{
    tally count = {0};
    count_requests(it, &count);
    count_answers(it, &count);
    for (int i = 0; i < 256; i++) {
        REQUIRE(count.answered[i] <= count.sent[i]);
        REQUIRE(!it->complete || count.answered[i] >= count.wanted[i] || (!i && count.unsure));
    }
}

void invariants_at_the_end(const link *it)
{
    REQUIRE(it->fd < 0 || it->closed);
    if (sim.options.framing == PS_RAW)
        check_given_raw(it);
    else
        check_given(it);
    if (sim.options.framing == PS_PYSOCK)
        check_answers(it);
}
