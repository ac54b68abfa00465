/* load.c: the load generator: requests from one thread over many connections to a server that echoes, the replies
 * checked, their latencies counted. load_modes.c decides when requests are made, load_conn.c has the single
 * connection. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "load.h"

enum {
    GLANCE_NS = 50 * 1000 * 1000,  /* at most between two looks at stop */
    SLACK_NS = 60 * 1000,          /* a sleep ends up to 50 us late (prctl(2), PR_SET_TIMERSLACK): the rest is polled */
    SHORT_NS = 2 * 1000 * 1000,    /* below this epoll's milliseconds are too coarse */
    DRAIN_NS = 1000 * 1000 * 1000, /* in which an open loop may still be answered after its time */
};

/* -- making and freeing -------------------------------------------------------------------------------------------- */

static bool makes_sense(const ps_load_options *o)
{
    return o->address_size >= sizeof(sa_family_t) && o->address_size <= sizeof((ps_load *)0)->address &&
           o->framing <= PS_RAW && o->mode <= PS_LOAD_CHURN && o->connections >= 1 &&
           o->connections <= PS_LOAD_CONNECTIONS_MAX && o->in_flight >= 1 && o->in_flight <= PS_LOAD_IN_FLIGHT_MAX &&
           o->size <= PS_LOAD_SIZE_MAX && (o->size || o->framing != PS_RAW) && (o->duration_ns || o->count) &&
           (o->mode != PS_LOAD_OPEN || o->rate > 0) && (o->mode != PS_LOAD_CHURN || o->in_flight == 1);
}

static void *copy(const void *data, size_t size)
{
    void *result = ps_sys.allocate(size + 1);
    if (result && size)
        memcpy(result, data, size);
    if (result)
        ((char *)result)[size] = 0;
    return result;
}

static int allocate_conns(ps_load *load)
{
    const ps_load_options *o = &load->options;
    while (load->flight_mask + 1 < o->in_flight)
        load->flight_mask = 2 * load->flight_mask + 1;
    size_t flights = load->flight_mask + 1;
    if (!(load->conns = ps_sys.allocate(o->connections * sizeof *load->conns)))
        return -ENOMEM;
    memset(load->conns, 0, o->connections * sizeof *load->conns);
    load->shut = ps_sys.allocate(o->connections * sizeof *load->shut);
    load->flights = ps_sys.allocate(o->connections * flights * sizeof *load->flights);
    if (!load->shut || !load->flights)
        return -ENOMEM;
    for (uint32_t i = 0; i < o->connections; i++) {
        load->conns[i].flights = load->flights + i * flights;
        load->shut[i] = o->connections - 1 - i;
    }
    load->shut_count = o->connections;
    return 0;
}

static int build(ps_load *load, const ps_load_options *options)
{
    load->options = *options;
    load->poll = -1;
    memcpy(load->address, options->address, options->address_size);
    load->cir = copy(options->cir, options->cir_size);
    load->service = copy(options->service, options->service ? strlen(options->service) : 0);
    ps__histogram_clear(&load->histogram);
    int error = load->cir && load->service ? ps__load_prepare(load) : -ENOMEM;
    if (error == 0)
        error = allocate_conns(load);
    if (error == 0)
        load->poll = ps_sys.epoll_create1(EPOLL_CLOEXEC);
    return load->poll < 0 && error == 0 ? load->poll : error;
}

ps_load *ps_load_new(const ps_load_options *options, int *error)
{
    ps_load *load = NULL;
    *error = -EINVAL;
    if (!makes_sense(options))
        return NULL;
    *error = -ENOMEM;
    if (!(load = ps_sys.allocate(sizeof *load)))
        return NULL;
    memset(load, 0, sizeof *load);
    *error = build(load, options);
    if (*error == 0)
        return load;
    ps_load_free(load);
    return NULL;
}

static void close_all(ps_load *load)
{
    for (uint32_t i = 0; load->conns && i < load->options.connections; i++)
        ps__load_close(&load->conns[i]);
}

void ps_load_free(ps_load *load)
{
    if (!load)
        return;
    close_all(load);
    if (load->poll >= 0)
        ps_sys.close(load->poll);
    ps__free(load->welcome);
    ps__free(load->flights);
    ps__free(load->shut);
    ps__free(load->conns);
    ps__free(load->memory);
    ps__free(load->service);
    ps__free(load->cir);
    ps__free(load);
}

/* -- what went wrong ----------------------------------------------------------------------------------------------- */

void ps__load_fail(ps_load *load, enum ps_load_failure failure, int error)
{
    if (load->result.failure != PS_LOAD_WELL)
        return;
    load->result.failure = (int32_t)failure;
    load->result.error = error;
}

void ps__load_wrong(ps_load *load, enum ps_load_failure failure, uint64_t expected, uint64_t got)
{
    if (load->result.failure == PS_LOAD_WELL) {
        load->result.expected = expected;
        load->result.got = got;
    }
    ps__load_fail(load, failure, 0);
}

/* -- the loop ------------------------------------------------------------------------------------------------------ */

/* When something is to be done though nothing comes. */
static uint64_t next_moment(const ps_load *load)
{
    uint64_t next = load->now_ns + GLANCE_NS;
    if (load->slice_end_ns < next)
        next = load->slice_end_ns;
    if (load->end_ns < next && load->now_ns < load->end_ns)
        next = load->end_ns;
    if (load->shut_count && load->retry_ns > load->now_ns && load->retry_ns < next)
        next = load->retry_ns;
    if (load->options.mode == PS_LOAD_OPEN && load->started) {
        uint64_t due = ps__load_due_ns(load, load->due); /* or, after the last, the end */
        bool drains = load->due == load->most && load->answered < load->most && due <= load->now_ns;
        next = due < next && !drains ? due : next;
    }
    return next;
}

static int look(ps_load *load, int timeout_ms)
{
    return ps_sys.epoll_wait(load->poll, load->events, PS_EVENTS_MAX, timeout_ms);
}

/* Sleep until something comes, or nearly until then: how the time is really spent, see SLACK_NS. */
static int sleep_until(ps_load *load, uint64_t then_ns)
{
    int64_t left = (int64_t)(then_ns - load->now_ns);
    if (left >= SHORT_NS)
        return look(load, (int)(left / 1000000 - 1));
    struct pollfd handle = {.fd = load->poll, .events = POLLIN};
    int error = ps_sys.ppoll(&handle, 1, left - SLACK_NS);
    return error < 0 ? error : look(load, 0);
}

/* Where the time went; only where the options make it poll is it worth a look at the clock. */
static void account(ps_load *load, uint64_t before_ns, bool polled, bool in_vain)
{
    if (!polled)
        load->result.sleeping_ns += load->now_ns - before_ns;
    else if (in_vain && load->looked)
        load->result.polling_ns += load->now_ns - before_ns;
    load->looked = in_vain;
}

static int wait_for_events(ps_load *load)
{
    bool may_poll = load->options.linger_ns || load->options.mode == PS_LOAD_OPEN;
    uint64_t then = next_moment(load), before = load->now_ns;
    bool polls = before - load->event_ns < load->options.linger_ns || then <= before + SLACK_NS;
    if (!polls && may_poll)
        before = ps__now_ns();
    int count = polls ? look(load, 0) : sleep_until(load, then);
    load->now_ns = ps__now_ns();
    if (count > 0)
        load->event_ns = load->now_ns;
    if (may_poll)
        account(load, before, polls, count == 0);
    return count;
}

static bool is_over(const ps_load *load)
{
    const ps_load_options *o = &load->options;
    if (!load->started)
        return false;
    if (o->mode != PS_LOAD_OPEN)
        return load->now_ns >= load->end_ns || (o->count && load->answered >= o->count);
    bool all_answered = load->answered == load->most && load->now_ns >= ps__load_due_ns(load, load->most);
    return all_answered || (o->duration_ns && load->now_ns >= load->end_ns + DRAIN_NS);
}

static void watch_for_stall(ps_load *load)
{
    bool expects = load->opening || load->made > load->answered || (load->shut_count && (!load->started || load->left));
    if (!expects)
        load->heard_ns = load->now_ns;
    else if (load->now_ns > load->heard_ns && load->now_ns - load->heard_ns > load->options.stall_ns)
        ps__load_fail(load, PS_LOAD_STALLED, 0);
}

static void turn(ps_load *load)
{
    if (load->shut_count)
        ps__load_open_some(load);
    if (!load->started && load->ready == load->options.connections)
        ps__load_start(load);
    if (load->started && load->options.mode == PS_LOAD_OPEN)
        ps__load_make_all_due(load);
    if (!ps__load_runs(load))
        return;
    int count = wait_for_events(load);
    if (count == -EINTR)
        load->slice_end_ns = 0; /* somebody may want to look at the signal */
    else if (count < 0)
        ps__load_fail(load, PS_LOAD_SYSTEM, count);
    for (int i = 0; i < count && ps__load_runs(load); i++)
        ps__load_event(load, &load->conns[load->events[i].data.u32], load->events[i].events);
    if (ps__load_runs(load))
        watch_for_stall(load);
}

static void finish(ps_load *load)
{
    ps_load_result *r = &load->result;
    uint64_t now = ps__now_ns();
    load->finished = true;
    if (load->started) {
        r->elapsed_ns = now - load->start_ns;
        r->cpu_ns = ps__cpu_ns() - load->begun_cpu_ns;
    }
    r->max_ns = load->histogram.max_ns;
    r->min_ns = load->histogram.total ? load->histogram.min_ns : 0;
    r->sum_ns = load->histogram.sum_ns;
    close_all(load);
}

static void begin(ps_load *load)
{
    load->begun_ns = load->now_ns = load->heard_ns = ps__now_ns();
    load->end_ns = UINT64_MAX;
    if (load->options.mode == PS_LOAD_CHURN)
        ps__load_start(load);
}

static bool goes_on(const ps_load *load)
{
    return ps__load_runs(load) && !is_over(load) && !__atomic_load_n(&load->stop, __ATOMIC_RELAXED);
}

int ps_load_run(ps_load *load, uint64_t slice_ns)
{
    if (!load->begun_ns)
        begin(load);
    load->slice_end_ns = slice_ns < UINT64_MAX - load->now_ns ? load->now_ns + slice_ns : UINT64_MAX;
    while (goes_on(load)) {
        if (load->now_ns >= load->slice_end_ns)
            return 1;
        turn(load);
    }
    if (!load->finished)
        finish(load);
    return ps__load_runs(load) ? 0 : -ECANCELED;
}

/* -- for other threads, and afterwards ----------------------------------------------------------------------------- */

void ps_load_stop(ps_load *load)
{
    __atomic_store_n(&load->stop, true, __ATOMIC_RELAXED);
}

void ps_load_watch(const ps_load *load, ps_load_progress *progress)
{
    uint64_t start_ns = __atomic_load_n(&load->start_ns, __ATOMIC_RELAXED);
    progress->connections = __atomic_load_n(&load->result.connections, __ATOMIC_RELAXED);
    progress->messages = __atomic_load_n(&load->result.messages, __ATOMIC_RELAXED);
    progress->errors = __atomic_load_n(&load->result.errors, __ATOMIC_RELAXED);
    progress->elapsed_ns = start_ns ? ps__now_ns() - start_ns : 0;
}

void ps_load_get_result(const ps_load *load, ps_load_result *result)
{
    *result = load->result;
}

size_t ps_load_histogram(const ps_load *load, uint64_t *longest_ns, uint64_t *counts, size_t room)
{
    return ps__histogram_rows(&load->histogram, longest_ns, counts, room);
}
