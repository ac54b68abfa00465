/* load_modes.c: when the load generator opens connections and makes requests.
 *
 * Closed loop: each connection has in_flight requests with the server and sends a new one for each reply, all that a
 * read set free in one send. Open loop: requests are due at evenly spaced moments, whatever the server does, and
 * their latency counts from that moment, though they may have had to wait for room: a server that stalls can't hide
 * it (Tene's "coordinated omission"). Churn: connect, be let in, one request, close, as often as it goes.
 *
 * One connection goes first: whatever is wrong with the server or the options, it finds out before there are
 * thousands. */
#include <errno.h>

#include "load.h"

enum { RETRY_NS = 1000 * 1000 }; /* before an attempt to connect is made again */

/* -- the three modes ----------------------------------------------------------------------------------------------- */

static void make_at_once(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t now_ns)
{
    if (count > load->left)
        count = load->left;
    load->left -= count;
    if (count)
        ps__load_make(load, conn, count, now_ns);
    ps__load_flush(load, conn);
}

/* Open loop: request number n is connection n mod connections's. What is due and finds no room waits. */
static void make_due(ps_load *load, ps_load_conn *conn)
{
    uint64_t all = load->options.connections, index = (uint64_t)(conn - load->conns);
    while (conn->made - conn->done < load->options.in_flight && index + conn->made * all < load->due)
        ps__load_make(load, conn, 1, ps__load_due_ns(load, index + conn->made * all));
    ps__load_flush(load, conn);
}

void ps__load_make_all_due(ps_load *load)
{
    uint64_t all = load->options.connections, before = load->due;
    load->now_ns = ps__now_ns();
    double passed = (double)(load->now_ns - load->start_ns) / load->interval_ns;
    load->due = passed + 1 < (double)load->most ? (uint64_t)passed + 1 : load->most;
    uint64_t more = load->due - before < all ? load->due - before : all;
    for (uint64_t i = 0; i < more && ps__load_runs(load); i++)
        make_due(load, &load->conns[(before + i) % all]);
}

static void put_back(ps_load *load, ps_load_conn *conn)
{
    load->shut[load->shut_count++] = (uint32_t)(conn - load->conns);
}

void ps__load_admitted(ps_load *load, ps_load_conn *conn)
{
    conn->phase = PS_LOAD_READY;
    load->scouted = true;
    load->heard_ns = load->now_ns;
    load->opening--;
    load->ready++;
    PS_ADD(load->result.connections, 1u);
    if (load->options.mode != PS_LOAD_CHURN)
        return;
    ps__load_make(load, conn, 1, conn->opened_ns); /* its latency is that of the whole */
    ps__load_flush(load, conn);
}

void ps__load_answered(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t now_ns)
{
    load->answered += count;
    load->heard_ns = now_ns;
    if (load->options.mode == PS_LOAD_OPEN) {
        make_due(load, conn);
    } else if (load->options.mode == PS_LOAD_CLOSED) {
        make_at_once(load, conn, count, now_ns);
    } else {
        ps__load_close(conn);
        load->ready--;
        put_back(load, conn);
    }
}

/* -- opening the connections --------------------------------------------------------------------------------------- */

static bool may_open(const ps_load *load)
{
    uint32_t most = !load->scouted ? 1 : load->options.mode == PS_LOAD_CHURN ? UINT32_MAX : PS_LOAD_OPENING_MAX;
    bool wanted = load->options.mode != PS_LOAD_CHURN || load->left;
    return load->shut_count && load->opening < most && wanted && load->now_ns >= load->retry_ns && ps__load_runs(load);
}

void ps__load_open_some(ps_load *load)
{
    while (may_open(load)) {
        ps_load_conn *conn = &load->conns[load->shut[--load->shut_count]];
        load->opening++;
        if (load->options.mode == PS_LOAD_CHURN)
            load->left--;
        if (ps__load_open(load, conn) == 0)
            continue;
        conn->phase = PS_LOAD_SHUT;
        put_back(load, conn);
        load->opening--;
        load->left += load->options.mode == PS_LOAD_CHURN;
        load->retry_ns = load->now_ns + RETRY_NS;
    }
}

void ps__load_start(ps_load *load)
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
    if (o->mode == PS_LOAD_OPEN) {
        load->interval_ns = 1e9 / o->rate;
        double in_time = (double)o->duration_ns / load->interval_ns;
        if (o->duration_ns && in_time < (double)load->most)
            load->most = (uint64_t)in_time + ((double)(uint64_t)in_time < in_time);
    }
    for (uint32_t i = 0; o->mode == PS_LOAD_CLOSED && i < o->connections && ps__load_runs(load); i++)
        make_at_once(load, &load->conns[i], o->in_flight, ps__now_ns());
}
