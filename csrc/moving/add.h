/* add.h: rows become clients, which sleep. */
#ifndef PYSOCK_MOVING_ADD_H
#define PYSOCK_MOVING_ADD_H

#include "core/engine.h"

typedef struct ps_added {
    const uint8_t *rows;
    size_t size;
    const int *fds;
    size_t count;     /* of these, and of rows */
    uint64_t *ids;    /* room for as many */
    const char *why;  /* of -EBADMSG, and of which row */
    size_t wrong;
} ps_added;

/* All, or none of them: 0; -EBADMSG; -ENOMEM; -ENOSPC: the table has no such slot. */
int ps__add(ps_engine *engine, ps_added *added);

#endif
