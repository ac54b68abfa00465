/* run.c: a run of the load generator, from its making to its end: requests from one thread over many connections to a
 * server that echoes, the replies checked, their latencies counted. modes.c decides when requests are made, conn.c has
 * the single connection. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "load/load.h"

enum {
    GLANCE_NS = 50 * 1000 * 1000,  /* at most between two looks at stop */
    SLACK_NS = 60 * 1000,          /* a sleep ends up to 50 us late (prctl(2), PR_SET_TIMERSLACK): the rest is polled */
    SHORT_NS = 2 * 1000 * 1000,    /* below this epoll's milliseconds are too coarse */
};

/* -- making and freeing -------------------------------------------------------------------------------------------- */

static const ps_load_framing_ops *const framings[] = {
    [PS_PYSOCK] = &ps__load_pysock,
    [PS_U32] = &ps__load_u32,
    [PS_LINE] = &ps__load_line,
    [PS_RAW] = &ps__load_raw,
};

static const ps_load_mode_ops *const modes[] = {
    [PS_LOAD_CLOSED] = &ps__load_closed,
    [PS_LOAD_OPEN] = &ps__load_paced,
    [PS_LOAD_CHURN] = &ps__load_churn,
};

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
    load->framing = framings[options->framing];
    load->mode = modes[options->mode];
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
    uint64_t due = load->started && load->mode->next_ns ? load->mode->next_ns(load) : UINT64_MAX;
    return due < next ? due : next;
}

static int look(ps_load *load, int timeout_ms)
{
    return ps_sys.epoll_wait(load->poll, load->events, PS_LOAD_EVENTS_MAX, timeout_ms);
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
    bool may_poll = load->options.linger_ns || load->mode->paced;
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

static void start(ps_load *load)
{
    const ps_load_options *o = &load->options;
    load->started = true;
    load->result.opening_ns = ps__now_ns() - load->begun_ns;
    load->result.polling_ns = load->result.sleeping_ns = 0;
    load->begun_cpu_ns = ps__cpu_ns();
    __atomic_store_n(&load->start_ns, ps__now_ns(), __ATOMIC_RELAXED);
    load->now_ns = load->heard_ns = load->start_ns;
    load->end_ns = o->duration_ns ? load->start_ns + o->duration_ns : UINT64_MAX;
    load->left = load->most = o->count ? o->count : UINT64_MAX;
    if (load->mode->started)
        load->mode->started(load);
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
        start(load);
    if (load->started && load->mode->turn)
        load->mode->turn(load);
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
    load->finished = true;
    ps__load_sum_up(load);
    close_all(load);
}

static void begin(ps_load *load)
{
    load->begun_ns = load->now_ns = load->heard_ns = ps__now_ns();
    load->end_ns = UINT64_MAX;
    if (load->mode->reopens)
        start(load);
}

static bool goes_on(const ps_load *load)
{
    bool over = load->started && load->mode->is_over(load);
    return ps__load_runs(load) && !over && !__atomic_load_n(&load->stop, __ATOMIC_RELAXED);
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

void ps_load_stop(ps_load *load)
{
    __atomic_store_n(&load->stop, true, __ATOMIC_RELAXED);
}
