/* outcome.c: what comes of a run: the first thing that went wrong, and its figures, for other threads while it runs and
 * for everybody afterwards. */
#include "load/load.h"

_Static_assert(PS_LOAD_BUCKETS == PS_LOAD_ROWS_MAX, "who reads the histogram makes room for all of it");

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

void ps__load_sum_up(ps_load *load)
{
    ps_load_result *r = &load->result;
    if (load->started) {
        r->elapsed_ns = ps__now_ns() - load->start_ns;
        r->cpu_ns = ps__cpu_ns() - load->begun_cpu_ns;
    }
    r->max_ns = load->histogram.max_ns;
    r->min_ns = load->histogram.total ? load->histogram.min_ns : 0;
    r->sum_ns = load->histogram.sum_ns;
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
