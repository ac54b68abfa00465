/* histogram.h: latencies in ns, log-linear as an HDR histogram: each power of two in 128 buckets, so none is wider than
 * 1/128 of what it holds. Needs nothing of the engine. */
#ifndef PYSOCK_LOAD_HISTOGRAM_H
#define PYSOCK_LOAD_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

enum {
    PS_LOAD_SUB_BITS = 7,
    PS_LOAD_SUB = 1 << PS_LOAD_SUB_BITS,
    PS_LOAD_BUCKETS = (65 - PS_LOAD_SUB_BITS) * PS_LOAD_SUB,
};

typedef struct ps_histogram {
    uint64_t total, min_ns, max_ns, sum_ns;
    uint64_t counts[PS_LOAD_BUCKETS];
} ps_histogram;

static inline unsigned ps__bucket(uint64_t ns)
{
    if (ns < 2 * PS_LOAD_SUB)
        return (unsigned)ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - PS_LOAD_SUB_BITS;
    return shift * PS_LOAD_SUB + (unsigned)(ns >> shift);
}

static inline void ps__histogram_add(ps_histogram *h, uint64_t ns, uint64_t count)
{
    h->counts[ps__bucket(ns)] += count;
    h->total += count;
    h->sum_ns += ns * count;
    if (ns > h->max_ns)
        h->max_ns = ns;
    if (ns < h->min_ns)
        h->min_ns = ns;
}

void ps__histogram_clear(ps_histogram *h);
uint64_t ps__bucket_longest(unsigned bucket); /* the longest latency that falls into it */
size_t ps__histogram_rows(const ps_histogram *h, uint64_t *longest_ns, uint64_t *counts, size_t room);

#endif
