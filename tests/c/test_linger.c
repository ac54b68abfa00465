/* When the linger polls: each row of tries in vain doubles the waits that don't. And whether it is to poll at all: what
 * a trial finds. tests/unit/test_linger.py asks the same of the pure engine. */
#include <poll.h>

#include "echo.h"
#include "base/linger.h"
#include "base/sys.h"
#include "base/trial.h"
#include "client/link.h"
#include "loop/engine.h"
#include "loop/turn.h"
#include "loop/wait.h"

#define SECOND ((uint64_t)1000000000)

static int waits_that_poll(ps_linger *linger, int waits, uint64_t slept_ns)
{
    int polls = 0;
    for (int i = 0; i < waits; i++)
        if (ps__linger_now(linger)) {
            polls++;
            ps__linger_miss(linger, slept_ns);
        }
    return polls;
}

static void nothing_comes_soon(void)
{
    ps_linger linger;
    ps__linger_init(&linger, 20);
    CHECK_EQ(waits_that_poll(&linger, 127, 1000), 7); /* the waits 0, 2, 6, 14, 30, 62 and 126 */
    CHECK_EQ(waits_that_poll(&linger, 64000, 1000), 1000);
}

static void something_might(void)
{
    ps_linger linger;
    ps__linger_init(&linger, 20);
    CHECK_EQ(waits_that_poll(&linger, 4, 99), 4);
    CHECK_EQ(waits_that_poll(&linger, 1, 99), 0);
    CHECK_EQ(waits_that_poll(&linger, 4, 99), 4);
    CHECK_EQ(waits_that_poll(&linger, 3, 99), 0);
}

static void it_comes(void)
{
    ps_linger linger;
    ps__linger_init(&linger, 20);
    waits_that_poll(&linger, 1000, 1000);
    while (!ps__linger_now(&linger))
        continue;
    for (int i = 0; i < 3; i++)
        ps__linger_hit(&linger);
    CHECK_EQ(waits_that_poll(&linger, 4, 1000), 2); /* as in the beginning */
}

static void a_number_is_obeyed(void)
{
    ps_linger linger;
    ps__linger_init(&linger, 0);
    CHECK_EQ(waits_that_poll(&linger, 10, 99), 0);
    ps__linger_init(&linger, PS_LINGER_AUTO);
    CHECK_EQ(linger.window_ns, 20000);
    ps__trial_step(&linger.trial, 1, 1, 0);
    CHECK_EQ(ps__linger_now(&linger), true); /* the first half, with */
    linger.trial.half = 2;
    CHECK_EQ(ps__linger_now(&linger), false); /* the second, without */
    linger.tried = false;
    CHECK_EQ(ps__linger_now(&linger), true);
}

/* A load: what a request takes, and what it costs, with polling [1] and without [0]. */
typedef struct load {
    uint64_t each_ns[2], cpu_ns[2];
} load;

typedef struct world {
    ps_trial trial;
    uint64_t now_ns, cpu_ns, done, polled;
    uint64_t quota_ns, period, had_ns, throttled; /* of processor time in each period: cgroups(7) */
} world;

enum { PERIOD_NS = 100 * 1000 * 1000 };

/* Who has used up the quota goes on with the next period. */
static void throttle(world *w, bool polls)
{
    if (w->now_ns / PERIOD_NS != w->period) {
        w->period = w->now_ns / PERIOD_NS;
        w->had_ns = w->cpu_ns;
    }
    if (!w->quota_ns || w->cpu_ns - w->had_ns < w->quota_ns)
        return;
    uint64_t late_ns = (w->period + 1) * PERIOD_NS - w->now_ns;
    w->now_ns += late_ns;
    w->throttled++;
    if (polls && late_ns >= PS_TRIAL_PREEMPTED_NS)
        ps__trial_preempted(&w->trial, w->now_ns, late_ns);
}

static void live(world *w, const load *l, uint64_t requests)
{
    for (uint64_t i = 0; i < requests; i++) {
        if (ps__trial_is_due(&w->trial, w->now_ns, w->done))
            ps__trial_step(&w->trial, w->now_ns, w->cpu_ns, w->done);
        bool polls = ps__trial_polls(&w->trial);
        w->now_ns += l->each_ns[polls];
        w->cpu_ns += l->cpu_ns[polls];
        w->polled += polls;
        w->done++;
        throttle(w, polls);
    }
}

static const load OPEN = {{16000, 16000}, {7000, 16000}};    /* requests come by themselves, */
static const load CLOSED = {{17000, 11000}, {8000, 12000}};  /* after the reply to the last one, */
static const load EQUAL = {{3000, 3000}, {3000, 3000}};      /* so many that nobody ever sleeps, */
static const load CHEAPER = {{20000, 20000}, {9000, 8000}};  /* or so that polling spares work */

static void what_a_trial_finds(void)
{
    const struct {
        const load *load;
        bool pays;
    } cases[] = {{&OPEN, false}, {&CLOSED, true}, {&EQUAL, false}, {&CHEAPER, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        world w = {.now_ns = 1};
        live(&w, cases[i].load, 20000);
        CHECK_EQ(w.trial.pays, cases[i].pays);
    }
}

static void what_finding_out_costs(void)
{
    world open = {.now_ns = 1}, closed = {.now_ns = 1};
    live(&open, &OPEN, 1000 * 1000);
    CHECK_EQ(open.polled, 5670);
    live(&closed, &CLOSED, 1000 * 1000);
    CHECK_EQ(1000 * 1000 - closed.polled, 4130);
}

static void a_load_that_changes(void)
{
    world w = {.now_ns = 1};
    live(&w, &OPEN, 1000 * 1000);
    live(&w, &CLOSED, 100 * 1000);
    CHECK_EQ(w.trial.pays, true);
    live(&w, &OPEN, 100 * 1000);
    CHECK_EQ(w.trial.pays, false);
}

static void one_pair_is_disturbed(void)
{
    world w = {.now_ns = 1};
    live(&w, &OPEN, 100);
    w.now_ns += 20 * 1000 * 1000; /* while it didn't poll */
    live(&w, &OPEN, 2000);
    CHECK_EQ(w.trial.half, 0);
    CHECK_EQ(w.trial.pays, false);
}

static void an_idle_half_is_measured_again(void)
{
    world w = {.now_ns = 1};
    live(&w, &OPEN, 100);
    CHECK_EQ(w.trial.half, 2);
    w.now_ns += PS_TRIAL_MOST_NS;
    live(&w, &OPEN, 1);
    CHECK_EQ(w.trial.half, 2);
    live(&w, &OPEN, 63);
    CHECK_EQ(w.trial.half, 3);
    CHECK(w.now_ns - w.trial.start_ns < PS_TRIAL_MOST_NS); /* it's no part of the trial */
}

/* A request takes less with polling, but not under half a processor. */
static void a_quota(void)
{
    world w = {.now_ns = 1, .quota_ns = PERIOD_NS / 2};
    live(&w, &CLOSED, 600 * 1000);
    CHECK_EQ(w.throttled, 6);
    CHECK_EQ(w.trial.withdrawn, 4);
    live(&w, &CLOSED, 6 * 1000 * 1000);
    CHECK_EQ(w.trial.withdrawn, PS_TRIAL_WITHDRAWN_MAX);
    CHECK(w.throttled < 20);
    w.quota_ns = 0;
    live(&w, &CLOSED, 10 * 1000 * 1000);
    CHECK_EQ(w.trial.pays, true);
    CHECK(w.trial.withdrawn < PS_TRIAL_WITHDRAWN_MAX);
}

static void a_neighbour_now_and_then(void)
{
    world w = {.now_ns = 1};
    live(&w, &CLOSED, 10 * 1000);
    CHECK_EQ(w.trial.half, 0);
    for (int i = 0; i < 100; i++) {
        live(&w, &CLOSED, 20 * 1000);
        w.now_ns += PS_TRIAL_PREEMPTED_NS;
        ps__trial_preempted(&w.trial, w.now_ns, PS_TRIAL_PREEMPTED_NS);
    }
    CHECK_EQ(w.trial.pays, true);
    CHECK_EQ(w.trial.withdrawn, 0);
}

/* -- polls that are cut short, from below -------------------------------------------------------------------------- */

static ps_sys_table real;

/* Polling was found to pay for a fiftieth of a second. No trial is due soon. */
static ps_trial paying(void)
{
    const uint64_t due = ps__now_ns() + 3600 * SECOND;
    return (ps_trial){.pays = true, .due_ns = due, .start_ns = due - SECOND / 50};
}

static int late_wait(int epfd, struct epoll_event *events, int room, int timeout_ms)
{
    (void)epfd, (void)events, (void)room;
    return timeout_ms == 0 ? poll(NULL, 0, 10) : 0;
}

static void the_loop_is_preempted(uint64_t linger_ns, bool pays)
{
    echo e;
    ps_options options = echo_options(PS_PYSOCK);
    options.linger_ns = linger_ns;
    echo_new(&e, &options);
    CHECK_EQ(ps__loop_begin(e.engine), 0);
    e.engine->linger.trial = paying();
    ps_sys.epoll_wait = late_wait;
    CHECK_EQ(ps__wait(e.engine), 0);
    ps_sys = real;
    CHECK_EQ(e.engine->linger.trial.pays, pays);
    CHECK_EQ(ps__loop_end(e.engine), 0);
    ps__engine_free(e.engine);
}

static void the_loop(void)
{
    real = ps_sys;
    the_loop_is_preempted(PS_LINGER_AUTO, false);
    the_loop_is_preempted(PS_LINGER_USUAL_NS, true); /* a number is obeyed: it asks no trial */
}

static int looks; /* of the client: when it has sent, before it lingers, and while it does */
static bool found; /* by the last */

static ssize_t late_recvfrom(int fd, void *data, size_t room, int flags)
{
    if (looks++ < 2)
        return -EAGAIN;
    poll(NULL, 0, 10);
    return found ? real.recvfrom(fd, data, room, flags) : -EAGAIN;
}

static void nothing(void *context)
{
    (void)context;
}

static int go_on(void *context)
{
    (void)context;
    return 0;
}

static int taken(void *context, const ps_frame *frame, void *object)
{
    (void)context, (void)frame, (void)object;
    return 1;
}

static void the_client_is_preempted(bool finds, int result, uint8_t misses)
{
    const ps_payload payload = {(const uint8_t *)"x", 1};
    ps_sink sink = {.enter = nothing, .leave = nothing, .check = go_on, .take = taken};
    int error, fds[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    send_frame(fds[1], (ps_frame){.kind = PS_REPLY, .request_id = 1, .payload = payload.data, .size = 1});
    ps_link *link = ps__link_new(fds[0], PS_LINGER_AUTO, 1000, &error);
    CHECK(link);
    link->linger.trial = paying();
    link->linger.misses = 4;
    looks = 0;
    found = finds;
    ps_sys.recvfrom = late_recvfrom;
    CHECK_EQ(ps__link_exchange(link, 0, &payload, 1, 1, 1, ps__now_ns() + SECOND / 50, &sink), result);
    ps_sys = real;
    CHECK_EQ(link->linger.trial.pays, false);
    CHECK_EQ(link->linger.misses, misses);
    ps__link_free(link, &sink);
    CHECK_EQ(close(fds[1]), 0);
}

static void the_client(void)
{
    real = ps_sys;
    the_client_is_preempted(true, 0, 2); /* it has found something all the same */
    the_client_is_preempted(false, -ETIMEDOUT, 4);
}

int main(void)
{
    RUN(nothing_comes_soon);
    RUN(something_might);
    RUN(it_comes);
    RUN(a_number_is_obeyed);
    RUN(what_a_trial_finds);
    RUN(what_finding_out_costs);
    RUN(a_load_that_changes);
    RUN(one_pair_is_disturbed);
    RUN(an_idle_half_is_measured_again);
    RUN(a_quota);
    RUN(a_neighbour_now_and_then);
    RUN(the_loop);
    RUN(the_client);
    return 0;
}
