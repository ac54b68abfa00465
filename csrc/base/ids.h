/* ids.h: which ids of requests are in flight, and whose request each is. */
#ifndef PYSOCK_BASE_IDS_H
#define PYSOCK_BASE_IDS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct ps_id {
    uint64_t client_id;
    uint64_t value; /* of whoever put it there; 0: a free row */
    uint32_t request_id;
} ps_id;

typedef struct ps_ids {
    ps_id *rows;
    uint32_t room, used; /* room: a power of two, or 0 */
    uint64_t seed;
} ps_ids;

/* 0 where there is none. */
uint64_t ps__ids_find(const ps_ids *ids, uint64_t client_id, uint32_t request_id);
/* One that isn't there, and a value that isn't 0. False: there is no memory. */
bool ps__ids_put(ps_ids *ids, uint64_t client_id, uint32_t request_id, uint64_t value);
/* Take it out where it is there with this value; returns whether it was. */
bool ps__ids_take(ps_ids *ids, uint64_t client_id, uint32_t request_id, uint64_t value);
void ps__ids_close(ps_ids *ids);

#endif
