/* test_gate.c: engines that share a listener, as workers do in processes of their own. */
#include "echo.h"
#include "loop/gate.h"

enum { WORKERS = 2, SLACK = 16, MOST = 4 };

static ps_seat seats[WORKERS];
static echo workers[WORKERS];

static ps_options options_of(uint32_t number)
{
    ps_options options = echo_options(PS_LINE);
    options.seats = seats;
    options.seat_count = WORKERS;
    options.seat = number;
    return options;
}

/* The second one has a listener of its own number, of the first one's socket. */
static void begin_workers(void)
{
    memset(seats, 0, sizeof seats);
    ps_options first = options_of(0), second = options_of(1);
    echo_open(&workers[0], &first, AF_UNIX);
    echo_new(&workers[1], &second);
    workers[1].master = dup(workers[0].master);
    CHECK(workers[1].master >= 0);
    CHECK_EQ(ps_engine_add_master(workers[1].engine, workers[1].master, 0), 0);
}

static void end_workers(int *fds, int count)
{
    for (int i = 0; i < count; i++)
        close(fds[i]);
    for (int i = 0; i < WORKERS; i++)
        echo_end(&workers[i]);
    for (int i = 0; i < WORKERS; i++)
        CHECK(!seats[i].open && !seats[i].clients && !seats[i].awake);
}

static uint32_t clients_of(int number)
{
    return __atomic_load_n(&seats[number].clients, __ATOMIC_RELAXED);
}

/* Turn by turn, by this thread alone, and the one with more first: two threads come to their turns when the machine is at
 * leisure. What a pause that has passed lets in on the way is made up for by those after. */
static void test_who_has_more_leaves_the_next_ones(void)
{
    int fds[4 * SLACK];
    begin_workers();
    for (int i = 0; i < WORKERS; i++)
        echo_guest_begin(&workers[i]);
    for (int i = 0; i < 4 * SLACK; i++) {
        fds[i] = echo_plug(&workers[0]);
        while (clients_of(0) + clients_of(1) <= (uint32_t)i)
            for (int n = 0; n < WORKERS; n++)
                CHECK(ps__guest_turn(workers[n].engine));
    }
    for (int i = 0; i < WORKERS; i++)
        CHECK(clients_of(i) <= clients_of(1 - i) + SLACK + MOST);
    for (int i = 0; i < WORKERS; i++)
        CHECK_EQ(pthread_create(&workers[i].thread, NULL, echo_guest_rest, &workers[i]), 0);
    end_workers(fds, 4 * SLACK);
}

/* One that doesn't run, or is in a turn for long, or has not been heard of, is no reason to wait for it. */
static void test_nobody_waits_for_who_is_not_there(void)
{
    int fds[3 * SLACK];
    begin_workers();
    echo_start(&workers[0]);
    for (int i = 0; i < 3 * SLACK; i++) {
        if (i == SLACK) /* as if it had begun a turn long ago */
            seats[1] = (ps_seat){.open = 1, .awake = 1, .turned_ns = ps__now_ns() - 1000u * 1000u * 1000u};
        if (i == 2 * SLACK)
            seats[1] = (ps_seat){.open = 1, .turned_ns = 1};
        fds[i] = echo_plug(&workers[0]);
        WAIT_FOR(clients_of(0) == (uint32_t)i + 1);
    }
    echo_start(&workers[1]);
    end_workers(fds, 3 * SLACK);
}

static void test_what_is_shut_opens_when_the_others_are_gone(void)
{
    int fds[SLACK + 2];
    begin_workers();
    seats[1] = (ps_seat){.open = 1, .turned_ns = ps__now_ns() + 3600ull * 1000000000u}; /* one that takes nobody, though it says so */
    echo_start(&workers[0]);
    for (int i = 0; i < SLACK + 1; i++)
        fds[i] = echo_plug(&workers[0]);
    WAIT_FOR(clients_of(0) == SLACK + 1);
    fds[SLACK + 1] = echo_plug(&workers[0]);
    poll(NULL, 0, 30);
    CHECK_EQ(clients_of(0), SLACK + 1);
    __atomic_store_n(&seats[1].open, 0, __ATOMIC_RELAXED);
    WAIT_FOR(clients_of(0) == SLACK + 2);
    echo_start(&workers[1]);
    end_workers(fds, SLACK + 2);
}

int main(void)
{
    test_who_has_more_leaves_the_next_ones();
    test_nobody_waits_for_who_is_not_there();
    test_what_is_shut_opens_when_the_others_are_gone();
    return 0;
}
