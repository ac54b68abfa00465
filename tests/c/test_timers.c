/* Deadlines, with a clock that the test sets. */
#include <errno.h>

#include "check.h"
#include "table/table.h"
#include "table/timers.h"

enum { CLIENTS = 8 };

#define MS ((uint64_t)1000000)

static ps_engine engine;
static ps_conn *conns[CLIENTS];
static struct {
    uint32_t slot;
    enum ps_timer_list list;
} late[4 * CLIENTS];
static size_t late_count;
static bool restarts; /* what is too late gets a new deadline */

static void look_at(uint64_t now_ns)
{
    engine.now_ns = engine.look_ns = now_ns;
}

static void begin(uint64_t now_ns)
{
    engine = (ps_engine){.look_ns = 0};
    look_at(now_ns);
    engine.options.limits = (ps_limits){.cir_timeout_ns = 100 * MS, .frame_timeout_ns = 200 * MS,
                                        .output_timeout_ns = 50 * MS, .idle_timeout_ns = 1000 * MS};
    for (int i = 0; i < PS_TIMER_LISTS; i++)
        engine.timers[i].first = engine.timers[i].last = PS_NO_SLOT;
    CHECK_EQ(ps__table_open(&engine.table, CLIENTS), 0);
    for (int i = 0; i < CLIENTS; i++)
        conns[i] = ps__table_add(&engine.table);
    late_count = 0;
    restarts = false;
}

static void end(void)
{
    ps__table_close(&engine.table);
}

static void expire(void)
{
    enum ps_timer_list list;
    for (ps_conn *conn; (conn = ps__timers_pop_late(&engine, &list)) != NULL; late_count++) {
        CHECK(late_count < sizeof late / sizeof *late);
        late[late_count].slot = conn->slot;
        late[late_count].list = list;
        if (restarts)
            ps__timer_start(&engine, conn, list);
    }
}

static void expire_at(uint64_t now_ns)
{
    late_count = 0;
    look_at(now_ns);
    expire();
}

static void nothing_runs(void)
{
    begin(0);
    CHECK(ps__timers_due_ns(&engine) == UINT64_MAX);
    CHECK(!ps__timer_first(&engine, PS_TIMER_CIR));
    expire_at(UINT64_MAX / 2);
    CHECK_EQ(late_count, 0);
    ps__timer_stop(&engine, conns[0], PS_LINK_INPUT); /* does no harm */
    end();
}

static void they_expire_in_order(void)
{
    begin(0);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        look_at(i * MS);
        ps__timer_start(&engine, conns[i], PS_TIMER_CIR);
    }
    CHECK(ps__timer_first(&engine, PS_TIMER_CIR) == conns[0]);
    CHECK_EQ(ps__timers_due_ns(&engine), (100 - (CLIENTS - 1)) * MS);
    expire_at(100 * MS - 1);
    CHECK_EQ(late_count, 0);
    expire_at(102 * MS);
    CHECK_EQ(late_count, 3);
    for (uint32_t i = 0; i < 3; i++)
        CHECK(late[i].slot == i && late[i].list == PS_TIMER_CIR);
    expire_at(1000 * MS);
    CHECK_EQ(late_count, CLIENTS - 3);
    for (uint32_t i = 3; i < CLIENTS; i++)
        CHECK_EQ(late[i - 3].slot, i);
    CHECK(ps__timers_due_ns(&engine) == UINT64_MAX);
    end();
}

static void stopped_ones_do_not(void)
{
    begin(0);
    for (uint32_t i = 0; i < CLIENTS; i++)
        ps__timer_start(&engine, conns[i], PS_TIMER_OUTPUT);
    ps__timer_stop(&engine, conns[0], PS_LINK_OUTPUT); /* the first, one in between, the last, and one of them twice */
    ps__timer_stop(&engine, conns[3], PS_LINK_OUTPUT);
    ps__timer_stop(&engine, conns[CLIENTS - 1], PS_LINK_OUTPUT);
    ps__timer_stop(&engine, conns[3], PS_LINK_OUTPUT);
    CHECK(ps__timer_first(&engine, PS_TIMER_OUTPUT) == conns[1]);
    expire_at(50 * MS);
    CHECK_EQ(late_count, CLIENTS - 3);
    for (size_t i = 0; i < late_count; i++)
        CHECK(late[i].slot != 0 && late[i].slot != 3 && late[i].slot != CLIENTS - 1);
    end();
}

static void the_only_one_is_stopped(void)
{
    begin(0);
    ps__timer_start(&engine, conns[2], PS_TIMER_IDLE);
    ps__timer_stop(&engine, conns[2], PS_LINK_IDLE);
    CHECK(ps__timers_due_ns(&engine) == UINT64_MAX);
    CHECK_EQ(conns[2]->flags, 0);
    ps__timer_start(&engine, conns[5], PS_TIMER_IDLE);
    CHECK(ps__timer_first(&engine, PS_TIMER_IDLE) == conns[5]);
    end();
}

static void starting_again_goes_to_the_end(void)
{
    begin(0);
    ps__timer_start(&engine, conns[0], PS_TIMER_IDLE);
    ps__timer_start(&engine, conns[1], PS_TIMER_IDLE);
    look_at(500 * MS);
    ps__timer_start(&engine, conns[0], PS_TIMER_IDLE);
    CHECK(ps__timer_first(&engine, PS_TIMER_IDLE) == conns[1]);
    expire_at(1000 * MS);
    CHECK(late_count == 1 && late[0].slot == 1);
    expire_at(1500 * MS);
    CHECK(late_count == 1 && late[0].slot == 0);
    end();
}

/* The CIR's deadline and a frame's share a link: starting one stops the other. */
static void a_frame_instead_of_a_cir(void)
{
    begin(0);
    ps__timer_start(&engine, conns[0], PS_TIMER_CIR);
    ps__timer_start(&engine, conns[0], PS_TIMER_FRAME);
    CHECK(!ps__timer_first(&engine, PS_TIMER_CIR));
    CHECK(ps__timer_first(&engine, PS_TIMER_FRAME) == conns[0]);
    expire_at(200 * MS);
    CHECK(late_count == 1 && late[0].list == PS_TIMER_FRAME);
    end();
}

static void lists_are_independent(void)
{
    begin(0);
    ps__timer_start(&engine, conns[0], PS_TIMER_FRAME);
    ps__timer_start(&engine, conns[0], PS_TIMER_OUTPUT);
    ps__timer_start(&engine, conns[0], PS_TIMER_IDLE);
    CHECK_EQ(ps__timers_due_ns(&engine), 50 * MS);
    ps__timer_stop(&engine, conns[0], PS_LINK_OUTPUT);
    CHECK_EQ(ps__timers_due_ns(&engine), 200 * MS);
    expire_at(5000 * MS);
    CHECK(late_count == 2 && late[0].list == PS_TIMER_FRAME && late[1].list == PS_TIMER_IDLE);
    end();
}

static void a_duration_of_0_is_never(void)
{
    begin(0);
    engine.options.limits.idle_timeout_ns = 0;
    ps__timer_start(&engine, conns[0], PS_TIMER_IDLE);
    CHECK(!ps__timer_first(&engine, PS_TIMER_IDLE));
    CHECK_EQ(conns[0]->flags, 0);
    end();
}

/* Expiring ends, even if everybody gets a new deadline at once. */
static void restarted_while_expiring(void)
{
    begin(0);
    restarts = true;
    for (uint32_t i = 0; i < CLIENTS; i++)
        ps__timer_start(&engine, conns[i], PS_TIMER_OUTPUT);
    expire_at(50 * MS);
    CHECK_EQ(late_count, CLIENTS);
    expire_at(99 * MS);
    CHECK_EQ(late_count, 0);
    expire_at(100 * MS);
    CHECK_EQ(late_count, CLIENTS);
    end();
}

/* Moments are kept as 32 bits of milliseconds, which wrap after 49 days. */
static void the_clock_wraps(void)
{
    uint64_t wrap = ((uint64_t)UINT32_MAX + 1) * MS;
    begin(wrap - 30 * MS);
    ps__timer_start(&engine, conns[0], PS_TIMER_OUTPUT);
    look_at(wrap - 1);
    CHECK_EQ(ps__timers_due_ns(&engine), 21 * MS);
    ps__timer_start(&engine, conns[1], PS_TIMER_OUTPUT);
    expire_at(wrap + 20 * MS - 1);
    CHECK_EQ(late_count, 0);
    expire_at(wrap + 20 * MS);
    CHECK(late_count == 1 && late[0].slot == 0);
    expire_at(wrap + 49 * MS);
    CHECK(late_count == 1 && late[0].slot == 1);
    end();
}

static void work_until(uint64_t now_ns)
{
    engine.now_ns = now_ns;
    ps__timers_worked(&engine);
}

/* Time in which the loop does not look counts for an eighth of the deadline at most, in each turn. */
static void long_work_makes_nobody_late(void)
{
    begin(0);
    ps__timer_start(&engine, conns[0], PS_TIMER_FRAME);
    for (uint64_t turn = 1; turn < 8; turn++) {
        work_until(turn * 1000 * MS);
        CHECK_EQ(ps__timers_due_ns(&engine), (200 - 25 * turn) * MS);
        expire_at(turn * 1000 * MS);
        CHECK_EQ(late_count, 0);
    }
    work_until(8000 * MS);
    expire_at(8000 * MS);
    CHECK_EQ(late_count, 1);
    end();
}

/* Sleeping counts in full, and so does work that isn't long. */
static void short_work_and_sleep_count(void)
{
    begin(0);
    ps__timer_start(&engine, conns[0], PS_TIMER_FRAME);
    work_until(20 * MS);
    CHECK_EQ(ps__timers_due_ns(&engine), 180 * MS);
    expire_at(200 * MS - 1);
    CHECK_EQ(late_count, 0);
    expire_at(200 * MS);
    CHECK_EQ(late_count, 1);
    end();
}

/* A deadline that is started in the middle of long work has all its time. */
static void started_in_long_work(void)
{
    begin(0);
    engine.now_ns = 5000 * MS;
    ps__timer_start(&engine, conns[0], PS_TIMER_CIR);
    expire();
    CHECK_EQ(late_count, 0);
    work_until(5001 * MS);
    CHECK_EQ(ps__timers_due_ns(&engine), 100 * MS);
    CHECK_EQ(ps__timer_age_ms(&engine, conns[0], PS_TIMER_CIR), 0);
    expire_at(5100 * MS - 1); /* moments are cut to milliseconds */
    CHECK_EQ(late_count, 0);
    expire_at(5101 * MS);
    CHECK_EQ(late_count, 1);
    end();
}

/* It isn't enough to look: everybody who is ready must have been seen. */
static void more_is_ready_than_was_told_of(void)
{
    begin(0);
    ps__timer_start(&engine, conns[0], PS_TIMER_CIR);
    engine.table.used = 2 * PS_EVENTS_MAX + 1;
    for (engine.full_looks = 1; engine.full_looks <= 2; engine.full_looks++) {
        expire_at(1000 * MS);
        CHECK_EQ(late_count, 0);
    }
    expire_at(1000 * MS);
    CHECK_EQ(late_count, 1);
    CHECK_EQ(engine.full_looks, 0);
    engine.table.used = CLIENTS;
    end();
}

int main(void)
{
    RUN(nothing_runs);
    RUN(they_expire_in_order);
    RUN(stopped_ones_do_not);
    RUN(the_only_one_is_stopped);
    RUN(starting_again_goes_to_the_end);
    RUN(a_frame_instead_of_a_cir);
    RUN(lists_are_independent);
    RUN(a_duration_of_0_is_never);
    RUN(restarted_while_expiring);
    RUN(the_clock_wraps);
    RUN(long_work_makes_nobody_late);
    RUN(short_work_and_sleep_count);
    RUN(started_in_long_work);
    RUN(more_is_ready_than_was_told_of);
    return 0;
}
