/* When the linger polls: each row of tries in vain doubles the waits that don't. And whether it is to poll at all: what
 * a trial finds. tests/unit/test_linger.py asks the same of the pure engine. */
#include "check.h"
#include "base/linger.h"
#include "base/trial.h"

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
} world;

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
    return 0;
}
