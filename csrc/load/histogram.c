/* histogram.c: latencies counted in buckets. No allocation, no I/O; adding is inline, in histogram.h. */
#include <string.h>

#include "load/histogram.h"

void ps__histogram_clear(ps_histogram *h)
{
    memset(h, 0, sizeof *h);
    h->min_ns = UINT64_MAX;
}

uint64_t ps__bucket_longest(unsigned bucket)
{
    if (bucket < 2 * PS_LOAD_SUB)
        return bucket;
    unsigned shift = bucket / PS_LOAD_SUB - 1;
    uint64_t first = (uint64_t)(bucket - shift * PS_LOAD_SUB) << shift;
    return first + ((uint64_t)1 << shift) - 1;
}

size_t ps__histogram_rows(const ps_histogram *h, uint64_t *longest_ns, uint64_t *counts, size_t room)
{
    size_t rows = 0;
    for (unsigned bucket = 0; bucket < PS_LOAD_BUCKETS && rows < room; bucket++) {
        if (!h->counts[bucket])
            continue;
        longest_ns[rows] = ps__bucket_longest(bucket);
        counts[rows++] = h->counts[bucket];
    }
    return rows;
}
