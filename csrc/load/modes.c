/* modes.c: when the load generator opens connections and makes requests.
 *
 * Closed loop: each connection has in_flight requests with the server and sends a new one for each reply, all that a
 * read set free in one send. Open loop: requests are due at evenly spaced moments, whatever the server does, and
 * their latency counts from that moment, though they may have had to wait for room: a server that stalls can't hide
 * it (Tene's "coordinated omission"). Churn: connect, be let in, one request, close, as often as it goes.
 *
 * One connection goes first: whatever is wrong with the server or the options, it finds out before there are
 * thousands. */
#include <errno.h>

#include "load/load.h"

enum {
    OPENING_MAX = 256,             /* connections that wait to be let in at once: a quarter of what our server allows */
    RETRY_NS = 1000 * 1000,        /* before an attempt to connect is made again */
    DRAIN_NS = 1000 * 1000 * 1000, /* in which an open loop may still be answered after its time */
};

/* -- closed loop --------------------------------------------------------------------------------------------------- */

static void make_at_once(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t now_ns)
{
    if (count > load->left)
        count = load->left;
    load->left -= count;
    if (count)
        ps__load_make(load, conn, count, now_ns);
    ps__load_flush(load, conn);
}

static void fill(ps_load *load)
{
    for (uint32_t i = 0; i < load->options.connections && ps__load_runs(load); i++)
        make_at_once(load, &load->conns[i], load->options.in_flight, ps__now_ns());
}

static bool is_done(const ps_load *load)
{
    return load->now_ns >= load->end_ns || (load->options.count && load->answered >= load->options.count);
}

const ps_load_mode_ops ps__load_closed = {.started = fill, .answered = make_at_once, .is_over = is_done};

/* -- open loop ----------------------------------------------------------------------------------------------------- */

/* When this request is to be sent. */
static uint64_t due_ns(const ps_load *load, uint64_t number)
{
    return load->start_ns + (uint64_t)((double)number * load->interval_ns);
}

static void set_pace(ps_load *load)
{
    uint64_t duration_ns = load->options.duration_ns;
    load->interval_ns = 1e9 / load->options.rate;
    double in_time = (double)duration_ns / load->interval_ns;
    if (duration_ns && in_time < (double)load->most)
        load->most = (uint64_t)in_time + ((double)(uint64_t)in_time < in_time);
}

/* Request number n is connection n mod connections's. What is due and finds no room waits. */
static void make_due(ps_load *load, ps_load_conn *conn)
{
    uint64_t all = load->options.connections, index = (uint64_t)(conn - load->conns);
    while (conn->made - conn->done < load->options.in_flight && index + conn->made * all < load->due)
        ps__load_make(load, conn, 1, due_ns(load, index + conn->made * all));
    ps__load_flush(load, conn);
}

static void make_all_due(ps_load *load)
{
    uint64_t all = load->options.connections, before = load->due;
    load->now_ns = ps__now_ns();
    double passed = (double)(load->now_ns - load->start_ns) / load->interval_ns;
    load->due = passed + 1 < (double)load->most ? (uint64_t)passed + 1 : load->most;
    uint64_t more = load->due - before < all ? load->due - before : all;
    for (uint64_t i = 0; i < more && ps__load_runs(load); i++)
        make_due(load, &load->conns[(before + i) % all]);
}

static void make_next(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t now_ns)
{
    (void)count;
    (void)now_ns;
    make_due(load, conn);
}

/* When the next request is due; after the last one, the end, and then only replies are waited for. */
static uint64_t next_due_ns(const ps_load *load)
{
    uint64_t due = due_ns(load, load->due);
    bool drains = load->due == load->most && load->answered < load->most && due <= load->now_ns;
    return drains ? UINT64_MAX : due;
}

static bool is_drained(const ps_load *load)
{
    bool all_answered = load->answered == load->most && load->now_ns >= due_ns(load, load->most);
    return all_answered || (load->options.duration_ns && load->now_ns >= load->end_ns + DRAIN_NS);
}

const ps_load_mode_ops ps__load_paced = {
    .paced = true,
    .started = set_pace,
    .answered = make_next,
    .turn = make_all_due,
    .next_ns = next_due_ns,
    .is_over = is_drained,
};

/* -- churn --------------------------------------------------------------------------------------------------------- */

static void put_back(ps_load *load, ps_load_conn *conn)
{
    load->shut[load->shut_count++] = (uint32_t)(conn - load->conns);
}

static void make_only(ps_load *load, ps_load_conn *conn)
{
    ps__load_make(load, conn, 1, conn->opened_ns); /* its latency is that of the whole */
    ps__load_flush(load, conn);
}

static void close_answered(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t now_ns)
{
    (void)count;
    (void)now_ns;
    ps__load_close(conn);
    load->ready--;
    put_back(load, conn);
}

const ps_load_mode_ops ps__load_churn = {
    .reopens = true,
    .admitted = make_only,
    .answered = close_answered,
    .is_over = is_done,
};

/* -- opening the connections --------------------------------------------------------------------------------------- */

static bool may_open(const ps_load *load)
{
    uint32_t most = !load->scouted ? 1 : load->mode->reopens ? UINT32_MAX : OPENING_MAX;
    bool wanted = !load->mode->reopens || load->left;
    return load->shut_count && load->opening < most && wanted && load->now_ns >= load->retry_ns && ps__load_runs(load);
}

void ps__load_open_some(ps_load *load)
{
    while (may_open(load)) {
        ps_load_conn *conn = &load->conns[load->shut[--load->shut_count]];
        load->opening++;
        load->left -= load->mode->reopens;
        if (ps__load_open(load, conn) == 0)
            continue;
        conn->phase = PS_LOAD_SHUT;
        put_back(load, conn);
        load->opening--;
        load->left += load->mode->reopens;
        load->retry_ns = load->now_ns + RETRY_NS;
    }
}
