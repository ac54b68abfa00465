/* table.h: the client table. */
#ifndef PYSOCK_TABLE_TABLE_H
#define PYSOCK_TABLE_TABLE_H

#include "core/engine.h"

int ps__table_open(ps_table *table, uint32_t most);
void ps__table_close(ps_table *table);
ps_conn *ps__table_add(ps_table *table);
void ps__table_remove(ps_table *table, ps_conn *conn);
/* Its own place, of a client that comes from another process. NULL: there is no memory, or *taken. Its chunk is made, if need
 * be; without it the next two are what they were. */
ps_conn *ps__table_take(ps_table *table, uint64_t id, bool *taken);
/* Make the list of free slots anew, of all that may be given away. */
void ps__table_relist(ps_table *table);
/* From now on whoever comes gets a slot behind so many, and a generation behind this one; before anybody has come: the table
 * becomes larger by so many. 0, -ENOMEM, -ENOSPC. */
int ps__table_reserve(ps_table *table, uint32_t slots, uint32_t generation);
ps_conn *ps__table_find(const ps_table *table, uint64_t id); /* of a connection that is not closed */
ps_conn *ps__table_row(const ps_table *table, uint64_t id);  /* also of one that is closed and not buried yet */
void ps__mark_dirty(ps_engine *engine, ps_conn *conn); /* it is looked at when the turn is over */

static inline ps_conn *ps__slot(const ps_table *table, uint32_t slot)
{
    return &table->chunks[slot / PS_CHUNK_SLOTS][slot % PS_CHUNK_SLOTS];
}

static inline ps_tally *ps__tally(const ps_table *table, const ps_conn *conn)
{
    ps_conn *behind = table->chunks[conn->slot / PS_CHUNK_SLOTS] + PS_CHUNK_SLOTS;
    return (ps_tally *)(void *)behind + conn->slot % PS_CHUNK_SLOTS;
}

/* For other threads, which hold the lock. A free slot has state 0, and still the marks of the client that was there. */
static inline bool ps__is_client(const ps_conn *conn)
{
    int state = ps__state(conn);
    return state && state != PS_CONN_CLOSED && __atomic_load_n(&conn->was_let_in, __ATOMIC_RELAXED);
}

#endif
