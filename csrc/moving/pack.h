/* pack.h: held clients become rows. */
#ifndef PYSOCK_MOVING_PACK_H
#define PYSOCK_MOVING_PACK_H

#include "core/engine.h"

typedef struct ps_packed {
    uint8_t *data; /* to be freed, as the descriptors' numbers are */
    size_t size, room;
    int *fds;
    size_t count;
} ps_packed;

/* The rows of those of these clients that are held: from now on nothing can be sent to them. 0, or -ENOMEM. */
int ps__pack(ps_engine *engine, const uint64_t *ids, size_t count, ps_packed *packed);
void ps__packed_free(ps_packed *packed);

#endif
