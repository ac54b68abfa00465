/* faults.c: scripts of clients against an engine of which one system call, or allocation, fails.
 *
 *   faults SCRIPT FRAMING FAMILY     engine | guest | proxied | client | load | hand, pysock | u32, unix | tcp
 *
 * Each line on standard input is one fault: `CALL ERRNO CAP N MODE`, MODE one of once, same, ever. For each of them the
 * script runs from the beginning to the end, in which nothing may crash, hang, spin or leak, no client may see a wrong
 * byte, and those that the fault doesn't concern must be served. A line of the result follows: `ok STRUCK LOST`. At the
 * end of the input the sites are told: `site CALL ADDRESS HITS STRUCK FIRST`. A check that fails ends the program. */
#include <grp.h>

#include "guest.h"
#include "later.h"
#include "pieces.h"
#include "base/meter.h"
#include "base/sys.h"
#include "client/link.h"
#include "client/share.h"
#include "load/load.h"
#include "loop/engine.h"
#include "loop/turn.h"

/* sanitizer/allocator_interface.h, which gcc doesn't bring along */
size_t __sanitizer_get_current_allocated_bytes(void);

enum { GUESTS = 5, SILENT = 5 };
enum { PATIENCE_MS = 5000, SOME_PATIENCE_MS = 1000, IMPATIENCE_MS = 25, GRACE_MS = 100 };
/* A load generator that never gets a connection, or a reply, gives up; a machine that is busy is to be waited for. */
enum { STALL_MS = 600, SEEMING_STALL_MS = 1000 };
enum { QUIET_MS = 8, TURNS_MAX = 100 }; /* more turns than that in so short a time are a spin */

#define MS ((uint64_t)1000000)

static echo server;
static int family;
static atomic_bool ended; /* the loop */
static guest guests[GUESTS];
static unsigned lost; /* guests, while the fault was armed */

/* -- what a fault may cost ----------------------------------------------------------------------------------------- */

static bool short_of_memory(int error)
{
    return error == ENOBUFS || error == ENOMEM;
}

/* Nobody who is in loses anything by it, even if it lasts. */
static bool is_harmless(void)
{
    switch (fault.call) {
    case CALL_getsockopt:
    case CALL_setsockopt:
    case CALL_close:
    case CALL_accept4:
    case CALL_write:
    case CALL_timerfd_create: /* the beginning fails, and the next one goes well */
        return true;
    default:
        return passes(fault.error) || !fault.error;
    }
}

/* It can't be done without: the loop ends, and says why. */
static bool is_fatal(void)
{
    bool vital = fault.call == CALL_epoll_wait || fault.call == CALL_read || fault.call == CALL_timerfd_settime;
    return vital && fault.error && !passes(fault.error);
}

static unsigned bearable_losses(void)
{
    bool full = fault.call == CALL_accept4 && (fault.error == EMFILE || fault.error == ENFILE);
    bool eaten = fault.call == CALL_accept4 && eats_a_connection(fault.error);
    bool sends = fault.call == CALL_sendto || fault.call == CALL_sendmsg;
    bool unknown = fault.call == CALL_getsockopt && family == AF_UNIX; /* who it is, so it isn't let in */
    if (fault.mode == EVER && (!is_harmless() || fault.call == CALL_accept4 || unknown))
        return GUESTS; /* nobody may get in; for those who are in, see look_at */
    if (fault.mode == ONCE && sends && short_of_memory(fault.error))
        return 0;
    if (full)
        return 2; /* who waits is told so, and refused; and so is who comes in the middle of that */
    return is_harmless() && !eaten && !unknown ? 0 : 1;
}

static int patience(bool joining)
{
    bool door = fault.call == CALL_accept4 && !passes(fault.error);
    bool lasts = fault.mode == SAME && short_of_memory(fault.error);
    if (fault.armed && fault.mode == EVER && (is_harmless() ? joining && door : true))
        return IMPATIENCE_MS;
    return fault.armed && lasts ? SOME_PATIENCE_MS : PATIENCE_MS;
}

/* -- the server ---------------------------------------------------------------------------------------------------- */

/* As the facade does it. */
static int tell(void *context, enum ps_tell what, uint64_t first, uint64_t second)
{
    echo *e = context;
    if (what == PS_TELL_DRAINING)
        CHECK_EQ(close(e->master), 0);
    return echo_tell(context, what, first, second);
}

/* In a loop of somebody else's. A beginning that fails leaves nothing behind: the next one goes well. */
static int be_a_guest(echo *e)
{
    e->inside = true;
    int result = ps__guest_begin(e->engine);
    if (result < 0) {
        CHECK(fault_struck() && result == -fault.error && e->engine->timer == -1);
        fault_arm(false);
        CHECK_EQ(ps__guest_begin(e->engine), 0);
    }
    struct pollfd watched = {.fd = e->engine->poll_handle, .events = POLLIN};
    while (ps__guest_turn(e->engine))
        CHECK_EQ(poll(&watched, 1, -1), 1);
    result = ps__guest_end(e->engine);
    e->inside = false;
    return result;
}

static void *serve(void *context)
{
    echo *e = context;
    subject = true;
    e->result = echo_as_guest ? be_a_guest(e) : ps__engine_run(e->engine);
    ended = true;
    return NULL;
}

static ps_options engine_options(uint32_t framing)
{
    ps_options options = echo_options(framing);
    options.linger_ns = 0; /* so that a turn too many can be seen */
    options.limits.max_clients = 6;
    options.limits.max_pending_cir = 4;
    options.limits.output_pause = 64 * 1024;
    options.limits.stream_window = PIECES_WINDOW;
    options.limits.max_clients_per_uid = framing == PS_PYSOCK ? 100 : 0; /* else it is seen at their end who they were */
    options.limits.max_clients_per_ip = 100;
    options.limits.keep_idle = options.limits.keep_interval = 60; /* as of an inherited socket: set on each that is accepted */
    options.limits.keep_count = 3;
    options.limits.user_timeout = 60000;
    options.has_key = guests_prove = framing == PS_PYSOCK;
    return options;
}

/* Who may come in is seen by a group that isn't the first one, so that all of what the kernel knows is asked for. */
static void let_in_by_group(ps_options *options)
{
    static gid_t groups[64];
    static uint32_t one;
    if (!geteuid())
        CHECK_EQ(setgroups(1, &(gid_t){4242}), 0);
    int count = getgroups(64, groups);
    while (count > 0 && groups[count - 1] == getegid())
        count--;
    one = count > 0 ? groups[count - 1] : getegid();
    options->gids = &one;
    options->gid_count = 1;
}

/* All of ::ffff:127.0.0.0/104, where proxies connect from. */
static int expect_proxies(ps_engine *engine)
{
    const ps_network here = {.address = {[10] = 0xFF, [11] = 0xFF, [12] = 127}, .bits = 104};
    return ps_engine_expect_proxies(engine, PS_PROXY_2, &here, 1);
}

/* False: it could not be made, and nothing is left of it. */
/* What a server counts for who looks from outside: the numbers are nobody's here. */
static int measure(ps_engine *engine)
{
    static uint64_t counters[PS_M_COUNTERS], rows[2 * PS_METER_ROW];
    return ps__meter_open(&engine->meter, counters, rows, 1);
}

static bool begin(const ps_options *options)
{
    ps_hooks hooks = echo_hooks(&server);
    ps_options guarded = *options;
    int error;
    let_in_by_group(&guarded);
    memset(&server, 0, sizeof server);
    echo_listen(&server, family);
    hooks.object_new = faulty_object_new;
    hooks.object_resize = faulty_object_resize;
    hooks.tell = tell;
    hooks.request = pieces_request;
    hooks.pull = pieces_pull;
    hooks.close = pieces_close;
    hooks.answered = pieces_answered_by;
    hooks.answer = later_answer;
    hooks.ended = later_ended;
    ended = false;
    subject = true;
    server.engine = ps__engine_new(&guarded, &hooks, &error);
    bool checked = family == AF_UNIX && options->limits.max_clients_per_uid;
    if (server.engine && (error = ps_engine_add_master(server.engine, server.master, checked)) == 0 && guests_have_a_proxy)
        error = expect_proxies(server.engine);
    if (server.engine && error == 0 && family == AF_UNIX)
        error = measure(server.engine);
    if (server.engine && error < 0) {
        ps__engine_free(server.engine);
        server.engine = NULL;
    }
    subject = false;
    if (!server.engine) {
        CHECK(fault_struck() && error == (fault.call == CALL_allocate ? -ENOMEM : -fault.error));
        CHECK_EQ(close(server.master), 0);
        return false;
    }
    CHECK_EQ(pthread_create(&server.thread, NULL, serve, &server), 0);
    return true;
}

static bool join_within(pthread_t thread, int ms)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += ms / 1000;
    return pthread_timedjoin_np(thread, NULL, &end) == 0;
}

static void check_remains(void)
{
    ps_stats stats = echo_stats(&server);
    CHECK(server.result == 0 || (is_fatal() && server.result == -fault.error && fault_struck()));
    CHECK(!server.inside);
    CHECK_EQ(server.drained, 1);
    CHECK_EQ(stats.clients, 0);
    CHECK_EQ(stats.pending, 0);
    CHECK_EQ(stats.established, stats.disconnected);
    CHECK_EQ(stats.established, server.gone);
}

static void end(void)
{
    fault_arm(fault.mode == EVER);
    subject = true;
    int error = ps_engine_stop(server.engine, GRACE_MS * MS);
    subject = false;
    if (error < 0) { /* it could not be told, and says so */
        CHECK(fault_struck());
        fault_arm(false);
        CHECK_EQ(ps_engine_stop(server.engine, GRACE_MS * MS), 0);
    }
    CHECK(join_within(server.thread, PATIENCE_MS) && "the loop ends");
    check_remains();
    subject = true;
    server.inside = true;
    ps__engine_free(server.engine); /* with the answers that came too late */
    server.inside = false;
    subject = false;
    CHECK_EQ(server.objects, 0);
}

/* -- guests -------------------------------------------------------------------------------------------------------- */

/* The counters that tell of a client's end, or of one that did not come in. */
static uint64_t told(void)
{
    ps_stats stats = echo_stats(&server);
    uint64_t at_the_door = stats.accepted - stats.established - stats.pending; /* it never got in */
    return stats.refused + stats.disconnected + stats.over_limit + stats.causes[PS_CAUSE_ACCEPT] + stats.errors + at_the_door;
}

/* After an exchange: the guest is well, or was lost since. `before`: what was told when that exchange began, for the server
 * may already have lost a guest that has just got all it waited for. */
static void look_at(guest *g, uint64_t before)
{
    if (!g->lost) {
        g->told = before;
        return;
    }
    bool nobody_knows = fault.call == CALL_accept4; /* the kernel has dropped it */
    bool anybody = g->late || nobody_knows || ended;
    lost++;
    CHECK(!(g->in && is_harmless()) && "who is in stays in");
    CHECK(!(g->late && bearable_losses() == 0) && "served in time");
    if (!anybody && fault.mode == ONCE)
        WAIT_FOR(told() > g->told || ended);
}

static void converse(guest *g, bool slow)
{
    if (g->lost || g->fd < 0)
        return;
    uint64_t before = told();
    guest_patience_ms = patience(false);
    transfer(g, slow);
    if (wanted.size || g->lost) /* else nobody knows how it is */
        look_at(g, before);
}

static void come_in(guest *g, const char *name)
{
    uint64_t before = told();
    *g = guest_connect(&server.address, server.address_size);
    g->told = before;
    guest_patience_ms = patience(true);
    start_over();
    if (guest_framing == PS_PYSOCK) {
        add_cir(name);
        if (!g->lost)
            transfer(g, false);
        receive_welcome(g);
    } else {
        add_request(1, 0, 10);
        if (!g->lost)
            transfer(g, false);
        g->in = !g->lost;
    }
    look_at(g, before);
}

/* -- the conversation ---------------------------------------------------------------------------------------------- */

static void small_requests(guest *g)
{
    start_over();
    if (guest_framing == PS_PYSOCK) {
        add_message(&asked, PS_PING, 7, pattern, 9);
        add_message(&wanted, PS_PONG, 7, pattern, 9);
    }
    for (uint32_t i = 1; i <= 4; i++)
        add_request(i, i, 10 * i);
    converse(g, false);
}

static void later_requests(guest *g)
{
    /* One after the other: an answer that can't be posted overtakes those that were. */
    for (uint32_t i = 1; i <= 3; i++) {
        start_over();
        add_request(i, i, LATER_SIZE);
        converse(g, false);
    }
}

/* One piece comes without credit, if it is larger than the window; the others, and the last one, behind it. */
static void take_stream(guest *g, size_t size)
{
    uint8_t said[4];
    if (guest_framing != PS_PYSOCK)
        return;
    start_over();
    ps__put32(said, (uint32_t)size);
    add_flagged(&asked, PS_SRM, PS_TAKES_STREAM, 7, said, sizeof said);
    add_flagged(&wanted, PS_REPLY, PS_MORE, 7, pattern, size);
    converse(g, false);
    start_over();
    ps__put32(said, 1 << 20);
    add_flagged(&asked, PS_CREDIT, 0, 7, said, sizeof said);
    for (uint32_t i = 1; i < PIECES; i++)
        add_flagged(&wanted, PS_REPLY, PS_MORE, 7, pattern + i, size);
    add_flagged(&wanted, PS_REPLY, 0, 7, pattern, 9);
    converse(g, false);
}

/* It has begun, and its client goes. */
static void leave_stream(guest *g, size_t size)
{
    uint8_t said[4];
    if (guest_framing != PS_PYSOCK)
        return;
    ps__put32(said, (uint32_t)size);
    start_over();
    add_flagged(&asked, PS_SRM, PS_TAKES_STREAM, 8, said, sizeof said);
    converse(g, false);
}

/* Two of a kind: the second is received where the first one lay. */
static void large_requests(guest *g, size_t size)
{
    for (uint32_t i = 1; i <= 3; i++) {
        start_over();
        add_request(i, i, size);
        converse(g, false);
    }
}

/* The beginning of one, and its rest when that has been read. */
static void in_two_pieces(guest *g, size_t size, size_t first)
{
    start_over();
    add_request(1, 5, size);
    size_t whole = asked.size, back = wanted.size, rest = whole - first;
    uint64_t before = echo_stats(&server).bytes_in;
    asked.size = first;
    wanted.size = 0;
    converse(g, false);
    for (int i = 0; i < 20 && echo_stats(&server).bytes_in < before + first; i++)
        poll(NULL, 0, 1);
    memmove(asked.data, asked.data + first, rest);
    asked.size = rest;
    wanted.size = back;
    converse(g, false);
}

/* Replies pile up: the server stops reading it, and keeps what it has read. */
static void slow_reader(guest *g, size_t scale)
{
    start_over();
    for (uint32_t i = 0; i < 10; i++)
        add_request(i, i, 6 * scale);
    for (uint32_t i = 0; i < 400; i++)
        add_request(i, i, 200);
    add_request(99, 0, 3 * scale);
    converse(g, true);
}

/* The table, as another thread sees it; returns the newest client. */
static void look_at_rows(void)
{
    ps_rows rows;
    if (!ps_engine_rows(server.engine, NULL, 0, &rows))
        ps_rows_free(&rows);
    if (!ps_engine_gone(server.engine, &rows))
        ps_rows_free(&rows);
}

static uint64_t look_around(void)
{
    uint64_t ids[16];
    ps_info info;
    subject = true;
    int64_t count = ps_engine_ids(server.engine, ids, 16);
    for (int64_t i = 0; i < count; i++)
        ps_engine_info(server.engine, ids[i], &info);
    ps_engine_find(server.engine, "a guest");
    look_at_rows();
    subject = false;
    CHECK(count >= 0 || fault_struck());
    return count > 0 ? ids[count - 1] : 0;
}

static unsigned present(void)
{
    unsigned count = 0;
    for (int i = 0; i < GUESTS; i++)
        count += guests[i].fd >= 0 && !guests[i].lost;
    return count;
}

/* To the guest that came last. */
static void push(guest *g, size_t size)
{
    uint64_t newest = look_around();
    if (g->lost || echo_stats(&server).clients != present()) /* else the newest may be another than this guest */
        return;
    subject = true;
    int pushed = ps_engine_push(server.engine, newest, pattern, size);
    subject = false;
    CHECK(pushed == 1 || pushed == 0 || (fault_struck() && pushed < 0));
    start_over();
    if (pushed == 1)
        add_message(&wanted, PS_PUSH, 0, pattern, size);
    converse(g, false);
}

/* The guest that came last; its answer has come when a PING behind it is answered. */
static void ask_guest(guest *g)
{
    uint64_t newest = look_around();
    unsigned before = pieces_answered;
    if (guest_framing != PS_PYSOCK || g->lost || echo_stats(&server).clients != present())
        return;
    subject = true;
    int posted = pieces_ask(&server, newest, pattern, 2000);
    subject = false;
    CHECK(posted == 1 || fault_struck());
    if (posted != 1)
        return;
    start_over();
    add_ask(pieces_asked, pattern, 2000);
    converse(g, false);
    start_over();
    add_message(&asked, PS_ANSWER, pieces_asked, pattern, 700);
    add_message(&asked, PS_PING, 8, pattern, 9);
    add_message(&wanted, PS_PONG, 8, pattern, 9);
    converse(g, false);
    CHECK(g->lost || pieces_answered == before + 1);
}

static void broadcast(void)
{
    subject = true;
    int64_t reached = ps_engine_broadcast(server.engine, pattern, 300);
    subject = false;
    CHECK(reached >= 0 || fault_struck());
    start_over();
    if (reached > 0)
        add_message(&wanted, PS_PUSH, 0, pattern, 300);
    for (int i = 0; i < GUESTS; i++)
        if (guests[i].in)
            converse(&guests[i], false);
}

static void sent_away(guest *g)
{
    uint64_t newest = look_around();
    if (g->lost || !newest)
        return;
    subject = true;
    int posted = ps_engine_disconnect(server.engine, newest);
    subject = false;
    CHECK(posted >= 0 || fault_struck());
    guest_patience_ms = posted == 1 ? patience(false) : 0;
    bool ends = receive_end(g);
    CHECK(ends || posted != 1 || bearable_losses());
    guest_leave(g);
}

/* Some who say nothing: one too many for the door, or for the house. */
static void a_crowd(int count)
{
    guest silent[SILENT];
    for (int i = 0; i < count; i++)
        silent[i] = guest_connect(&server.address, server.address_size);
    uint64_t before = echo_stats(&server).accepted, all = before + (uint64_t)count;
    for (int i = 0; i < 5 && echo_stats(&server).accepted < all; i++)
        poll(NULL, 0, 1);
    for (int i = 0; i < count; i++)
        guest_leave(&silent[i]);
}

static void the_gone_are_gone(void)
{
    for (int i = 0; i < GUESTS; i++)
        if (guests[i].lost)
            guest_leave(&guests[i]);
    bool shut = fault.armed && fault.call == CALL_accept4 && fault.mode == EVER;
    WAIT_FOR(ended || shut || echo_stats(&server).accepted + fault.eaten == guests_so_far);
    bool stuck = fault.armed && short_of_memory(fault.error) && fault.mode != ONCE; /* it keeps what it can't send */
    WAIT_FOR(ended || stuck || echo_stats(&server).clients + echo_stats(&server).pending <= present());
}

/* -- scripts ------------------------------------------------------------------------------------------------------- */

/* The fault lasts, and nobody says anything: the loop sleeps. */
static void no_spinning(void)
{
    unsigned before = fault_count(CALL_epoll_wait);
    poll(NULL, 0, QUIET_MS);
    CHECK(fault_count(CALL_epoll_wait) - before < TURNS_MAX && "the loop doesn't spin");
}

static void while_it_lasts(void)
{
    guest *first = &guests[0], *second = &guests[1], *slow = &guests[2], *polite = &guests[3], *unwanted = &guests[4];
    size_t scale = fault.error ? 20000 : 3000; /* byte by byte it takes long enough */
    come_in(first, "a guest");
    small_requests(first);
    later_requests(first);
    take_stream(first, 2 * scale);
    a_crowd(SILENT);
    the_gone_are_gone();
    come_in(second, "");
    in_two_pieces(second, 3000, 3);
    in_two_pieces(second, 3000, 1000);
    in_two_pieces(second, 5 * PS_LARGE / 4, 2000);
    large_requests(first, 5 * scale);
    look_around();
    come_in(slow, "slow");
    slow_reader(slow, scale);
    push(slow, 1000);
    ask_guest(slow);
    broadcast();
    a_crowd(4);
    the_gone_are_gone();
    come_in(polite, "polite");
    leave_stream(polite, 5000);
    start_over();
    add_message(&asked, PS_BYE, 0, NULL, 0);
    if (guest_framing == PS_PYSOCK)
        converse(polite, false);
    guest_leave(polite);
    the_gone_are_gone();
    come_in(unwanted, "unwanted");
    sent_away(unwanted);
    guest_leave(unwanted);
    large_requests(second, 3 * scale);
    small_requests(first);
    slow_reader(slow, scale);
    if (fault.mode != ONCE && !ended)
        no_spinning();
}

static void when_it_is_over(void)
{
    guest *control = &guests[3];
    the_gone_are_gone();
    come_in(control, "control");
    small_requests(control);
    large_requests(control, 50000);
    CHECK(control->in && !control->lost);
}

static void engine_script(void)
{
    const ps_options options = engine_options(guest_framing);
    for (int i = 0; i < GUESTS; i++)
        guests[i] = (guest){.fd = -1};
    if (!begin(&options))
        return;
    while_it_lasts();
    CHECK(lost <= bearable_losses() || (is_fatal() && fault_struck()));
    CHECK(!ended || (is_fatal() && fault_struck()));
    unsigned so_far = lost;
    if (fault.mode != ONCE)
        fault_arm(false);
    if (!ended && fault.mode != ONCE)
        when_it_is_over();
    CHECK(lost == so_far);
    end();
    for (int i = 0; i < GUESTS; i++) {
        guest_patience_ms = PATIENCE_MS;
        CHECK(guests[i].fd < 0 || receive_end(&guests[i]));
        guest_leave(&guests[i]);
    }
}

static void guest_script(void)
{
    echo_as_guest = true;
    engine_script();
    echo_as_guest = false;
}

static void proxied_script(void)
{
    guests_have_a_proxy = true;
    engine_script();
    guests_have_a_proxy = false;
}

/* -- the client's end ---------------------------------------------------------------------------------------------- */

typedef struct taker {
    ps_sink sink;
    const ps_payload *payloads;
    uint32_t first_id, count;
    int objects, others;
    bool any, fails;
} taker;

static void sink_nothing(void *context)
{
    (void)context;
}

static int sink_check(void *context)
{
    (void)context;
    return 0;
}

static void *sink_object(void *context, size_t size, uint8_t **data)
{
    taker *t = context;
    if (STRIKES(object, 0))
        return NULL;
    t->objects++;
    return *data = malloc(size);
}

static void sink_release(void *context, void *object)
{
    taker *t = context;
    t->objects--;
    free(object);
}

static int sink_take(void *context, const ps_frame *frame, void *object)
{
    taker *t = context;
    int done = t->any;
    if (frame->kind == PS_REPLY && !t->any) {
        uint32_t i = frame->request_id - t->first_id;
        CHECK(i == t->sink.answered && i < t->count);
        CHECK(frame->size == t->payloads[i].size && memcmp(frame->payload, t->payloads[i].data, frame->size) == 0);
        done = ++t->sink.answered == t->count;
    } else {
        CHECK(frame->kind == PS_PUSH);
        t->others++;
    }
    if (object)
        sink_release(t, object);
    return t->fails ? -EPROTO : done;
}

static taker new_taker(void)
{
    return (taker){.sink = {.enter = sink_nothing, .leave = sink_nothing, .check = sink_check, .take = sink_take,
                            .object_new = sink_object, .object_unref = sink_release}};
}

static int exchange(ps_link *client, taker *t, const ps_payload *payloads, uint32_t count)
{
    t->payloads = payloads;
    t->count = count;
    t->first_id = client->next_id + 1;
    t->sink.answered = 0;
    client->next_id += count;
    return ps__link_exchange(client, 0, payloads, count, t->first_id, 16, ps__now_ns() + PATIENCE_MS * MS, &t->sink);
}

/* It worked, or it failed because of the fault; and what fails breaks the connection for good. */
static bool went_well(int result, bool *broken)
{
    CHECK(result == 0 || fault_struck());
    CHECK(result != -ETIMEDOUT || fault.error == ETIMEDOUT);
    CHECK(!*broken || result == -EPIPE || result == -ECONNRESET);
    *broken = *broken || result < 0;
    return result == 0;
}

/* False: it is broken. */
static bool converse_as_client(ps_link *client, taker *t)
{
    static ps_payload payloads[60];
    const ps_frame notice = {.kind = PS_SRM, .flags = PS_NO_REPLY, .payload = pattern, .size = 30000};
    bool broken = false;
    for (uint32_t i = 0; i < 60; i++)
        payloads[i] = (ps_payload){pattern + i, i % 20 == 19 ? (fault.error ? 100000 : 17000) : i};
    went_well(exchange(client, t, payloads, 1), &broken);
    went_well(exchange(client, t, payloads, 60), &broken);
    t->sink.answered = 0; /* of the next call */
    went_well(ps__link_send(client, &notice, ps__now_ns() + PATIENCE_MS * MS, &t->sink), &broken);
    subject = false;
    CHECK(ps_engine_broadcast(server.engine, pattern, 40000) >= 0);
    subject = true;
    t->any = true;
    if (went_well(ps__link_receive(client, ps__now_ns() + PATIENCE_MS * MS, &t->sink), &broken))
        CHECK_EQ(t->others, 1);
    t->any = false;
    went_well(exchange(client, t, payloads, 10), &broken);
    return !broken;
}

static void *listen_to_it(void *context)
{
    taker t = new_taker();
    t.sink.context = &t;
    CHECK(ps__link_receive(context, ps__now_ns() + SOME_PATIENCE_MS * MS, &t.sink) < 0);
    return NULL;
}

static bool is_listened_to(ps_link *client)
{
    pthread_mutex_lock(&client->lock);
    bool dozes = client->reader && client->reader->dozes;
    pthread_mutex_unlock(&client->lock);
    return dozes;
}

/* One thread's call breaks it, while another listens. */
static void break_it(ps_link *client, taker *t)
{
    const ps_payload payload = {pattern, PS_SHARE_ROOM + 1}; /* a smaller answer is looked at when the call has left */
    pthread_t listener;
    CHECK_EQ(pthread_create(&listener, NULL, listen_to_it, client), 0);
    WAIT_FOR(is_listened_to(client));
    t->fails = true;
    CHECK(exchange(client, t, &payload, 1) < 0);
    CHECK(join_within(listener, PATIENCE_MS) && "nobody listens to what is broken");
}

static void client_script(void)
{
    const ps_options options = echo_options(PS_PYSOCK);
    taker t = new_taker();
    int error, fd;
    t.sink.context = &t;
    echo_begin(&server, &options, family);
    fd = echo_plug(&server);
    hello(fd, "");
    subject = true;
    ps_link *client = ps__link_new(fd, 0, 16 << 20, &error);
    if (client && converse_as_client(client, &t))
        break_it(client, &t);
    if (!client)
        CHECK(error == -ENOMEM && fault_struck() && close(fd) == 0); /* it is still the caller's */
    ps__link_free(client, &t.sink);
    subject = false;
    CHECK_EQ(t.objects, 0);
    WAIT_FOR(echo_stats(&server).clients == 0);
    echo_end(&server);
}

/* -- the load generator -------------------------------------------------------------------------------------------- */

static void generate(uint32_t mode, uint32_t size)
{
    static const uint8_t cir[] = {0, 0, 0, 4, PS_CIR, 0, 0, 1, 0, 0, 0, 0, 'P', 'S', 'K', '1'};
    const ps_load_options options = {
        .address = (const uint8_t *)&server.address, .address_size = server.address_size, .cir = cir,
        .cir_size = sizeof cir, .service = "", .framing = guest_framing, .connections = 2,
        .in_flight = mode == PS_LOAD_CHURN ? 1 : 3, .size = size, .count = 12, .mode = mode, .rate = 2000,
        .stall_ns = (fault.mode == EVER ? STALL_MS : SEEMING_STALL_MS) * MS,
    };
    uint64_t until = ps__now_ns() + 2 * PATIENCE_MS * MS;
    ps_load_result result;
    int error, going = 1;
    subject = true;
    ps_load *load = ps_load_new(&options, &error);
    while (load && going == 1) {
        going = ps_load_run(load, 20 * MS);
        CHECK(ps__now_ns() < until && "it ends");
    }
    if (load)
        ps_load_get_result(load, &result);
    ps_load_free(load);
    subject = false;
    if (!load)
        CHECK(fault_struck() && error < 0);
    else if (going == 0)
        CHECK(result.failure == PS_LOAD_WELL && result.messages == 12);
    else
        CHECK(fault_struck() && result.failure != PS_LOAD_WELL);
}

static void load_script(void)
{
    ps_options options = echo_options(guest_framing);
    echo_begin(&server, &options, family);
    generate(PS_LOAD_CLOSED, 30);
    generate(PS_LOAD_CLOSED, fault.error ? 100000 : 5000);
    generate(PS_LOAD_OPEN, 30);
    generate(PS_LOAD_CHURN, 30);
    WAIT_FOR(echo_stats(&server).clients + echo_stats(&server).pending == 0);
    echo_end(&server);
}

/* -- sockets used by hand ------------------------------------------------------------------------------------------ */

/* What it returned, or what the fault says. */
static int64_t or_fault(int64_t result)
{
    CHECK(result >= 0 || (fault_struck() && result == -fault.error));
    return result;
}

static int listen_by_hand(void)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in inet = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    bool tcp = family != AF_UNIX;
    int fd = (int)or_fault(ps_socket_open(family));
    if (fd < 0)
        return fd;
    if (or_fault(ps_socket_bind(fd, tcp ? (const uint8_t *)&inet : (const uint8_t *)&local,
                                tcp ? sizeof inet : sizeof local.sun_family)) == 0 &&
        or_fault(ps_socket_listen(fd, 10)) == 0)
        return fd;
    or_fault(ps_socket_close(fd));
    return -1;
}

static void serve_by_hand(int master)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    char data[8] = "";
    CHECK_EQ(getsockname(master, (struct sockaddr *)&address, &size), 0);
    int client = plug(&address, size), fd = -1;
    send_all(client, "hello", 5);
    for (int i = 0; i < 3 && fd < 0; i++) {
        if (i && eats_a_connection(fault.error))
            break;
        fd = (int)or_fault(ps_socket_accept(master));
    }
    if (fd >= 0) {
        int64_t have = or_fault(ps_socket_recv(fd, (uint8_t *)data, sizeof data));
        CHECK(have < 0 || (have == 5 || (!fault.error && (size_t)have == fault.cap)));
        int64_t sent = or_fault(ps_socket_send(fd, (const uint8_t *)"hello", 5));
        CHECK(sent < 0 || sent == 5 || (!fault.error && (size_t)sent == fault.cap));
        or_fault(ps_socket_close(fd));
    }
    CHECK_EQ(close(client), 0);
}

static void hand_script(void)
{
    char path[] = "/tmp/pskXXXXXX";
    int file = mkstemp(path);
    CHECK(file >= 0 && close(file) == 0);
    subject = true;
    int master = listen_by_hand();
    if (master >= 0) {
        serve_by_hand(master);
        or_fault(ps_socket_close(master));
    }
    if (or_fault(ps_socket_unlink(path)) < 0)
        CHECK_EQ(unlink(path), 0);
    subject = false;
}

/* -- one fault after the other ------------------------------------------------------------------------------------- */

static int open_files(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

typedef void script_function(void);

static void run_with(script_function *script, const char *line)
{
    char call[32], mode[8];
    memset(fault.counts, 0, sizeof fault.counts);
    CHECK_EQ(sscanf(line, "%31s %d %zu %u %7s", call, &fault.error, &fault.cap, &fault.n, mode), 5);
    for (fault.call = 0; fault.call < CALLS && strcmp(call, call_names[fault.call]) != 0; fault.call++)
        continue;
    fault.mode = strcmp(mode, "once") == 0 ? ONCE : strcmp(mode, "same") == 0 ? SAME : EVER;
    fault.struck = fault.turn = fault.eaten = 0;
    fault.fd = -1;
    fault.armed = fault.n > 0;
    lost = guests_so_far = 0;
    script();
    fault_arm(false);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        script_function *run;
    } scripts[] = {{"engine", engine_script},
                   {"guest", guest_script},
                   {"proxied", proxied_script},
                   {"client", client_script},
                   {"load", load_script},
                   {"hand", hand_script}};
    static uint8_t bytes[PATTERN];
    script_function *script = NULL;
    char line[100];
    CHECK_EQ(argc, 4);
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++)
        if (strcmp(argv[1], scripts[i].name) == 0)
            script = scripts[i].run;
    CHECK(script);
    guest_framing = strcmp(argv[2], "u32") == 0 ? PS_U32 : PS_PYSOCK;
    family = strcmp(argv[3], "tcp") == 0 ? AF_INET : AF_UNIX;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 253);
    pieces_pattern = pattern = bytes;
    fault_install();
    run_with(script, "close 0 0 0 once"); /* what is made once, and stays, is made now */
    while (fgets(line, sizeof line, stdin)) {
        int files = open_files();
        size_t memory = __sanitizer_get_current_allocated_bytes();
        alarm(30); /* a deadlock */
        run_with(script, line);
        CHECK_EQ(__sanitizer_get_current_allocated_bytes(), memory);
        CHECK_EQ(open_files(), files);
        printf("ok %u %u\n", fault.struck, lost);
        fflush(stdout);
    }
    for (unsigned i = 0; i < site_count; i++)
        printf("site %s %p %u %u %u\n", call_names[sites[i].call], sites[i].address, sites[i].hits, sites[i].struck,
               sites[i].first);
    return 0;
}
