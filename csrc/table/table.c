/* table.c: the client table: slots with generations. Adding, finding and removing are O(1).
 *
 * Slots lie in chunks that never move, so a pointer to a connection stays good while it lives. A slot's generation grows
 * each time it is freed: an id from before finds nothing, which is how a late event or a late reply can't reach the wrong
 * client. Generation 0 is never used by a client: keys of that generation are the engine's own. The freed slot is taken
 * again first, while it is warm in the cache. The engine owns what a slot points to, and the lock. */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "table/table.h"

int ps__table_open(ps_table *table, uint32_t most)
{
    if (most > 1u << PS_SLOT_BITS)
        return -EINVAL;
    size_t chunks = ((size_t)most + PS_CHUNK_SLOTS - 1) / PS_CHUNK_SLOTS;
    *table = (ps_table){.most = most, .free_slot = PS_NO_SLOT};
    table->chunks = ps_sys.allocate(chunks * sizeof *table->chunks);
    return table->chunks ? 0 : -ENOMEM;
}

void ps__table_close(ps_table *table)
{
    if (!table->chunks)
        return;
    for (uint32_t made = 0; made < table->made; made += PS_CHUNK_SLOTS)
        ps__free(table->chunks[made / PS_CHUNK_SLOTS]);
    ps__free(table->chunks);
    table->chunks = NULL;
    table->made = table->used = 0;
}

static int add_chunk(ps_table *table)
{
    size_t size = PS_CHUNK_SLOTS * (sizeof(ps_conn) + sizeof(ps_tally));
    ps_conn *chunk = ps_sys.allocate(size);
    if (!chunk)
        return -ENOMEM;
    memset(chunk, 0, size);
    uint32_t left = table->most - table->made;
    uint32_t count = left < PS_CHUNK_SLOTS ? left : PS_CHUNK_SLOTS;
    for (uint32_t i = count; i-- > 0;) {
        chunk[i].slot = table->made + i;
        chunk[i].generation = table->first_generation ? table->first_generation : 1;
        if (chunk[i].slot < table->reserved)
            continue;
        chunk[i].next = table->free_slot;
        table->free_slot = chunk[i].slot;
    }
    table->chunks[table->made / PS_CHUNK_SLOTS] = chunk;
    table->made += count;
    return 0;
}

static void begin_row(ps_table *table, ps_conn *conn)
{
    table->used++;
    *conn = (ps_conn){.slot = conn->slot, .generation = conn->generation, .fd = -1, .state = PS_CONN_ACCEPTED,
                       .deferred = PS_NO_SLOT};
    *ps__tally(table, conn) = (ps_tally){0};
}

ps_conn *ps__table_add(ps_table *table)
{
    while (table->free_slot == PS_NO_SLOT) /* a chunk may be reserved as a whole */
        if (table->made == table->most || add_chunk(table) < 0)
            return NULL;
    ps_conn *conn = ps__slot(table, table->free_slot);
    table->free_slot = conn->next;
    begin_row(table, conn);
    return conn;
}

void ps__table_remove(ps_table *table, ps_conn *conn)
{
    conn->state = 0;
    conn->generation = conn->generation == UINT32_MAX ? 1 : conn->generation + 1;
    table->used--;
    if (conn->slot < table->reserved)
        return;
    conn->next = table->free_slot;
    table->free_slot = conn->slot;
}

ps_conn *ps__table_take(ps_table *table, uint64_t id, bool *taken)
{
    uint32_t slot = (uint32_t)id;
    *taken = false;
    while (slot >= table->made && slot < table->most)
        if (add_chunk(table) < 0)
            return NULL;
    if (slot >= table->made)
        return NULL;
    ps_conn *conn = ps__slot(table, slot);
    *taken = conn->state != 0;
    if (*taken)
        return NULL;
    conn->generation = (uint32_t)(id >> 32);
    begin_row(table, conn);
    return conn;
}

void ps__table_relist(ps_table *table)
{
    table->free_slot = PS_NO_SLOT;
    for (uint32_t slot = table->made; slot-- > table->reserved;) {
        ps_conn *conn = ps__slot(table, slot);
        if (conn->state)
            continue;
        conn->next = table->free_slot;
        table->free_slot = slot;
    }
}

int ps__table_reserve(ps_table *table, uint32_t slots, uint32_t generation)
{
    if (!table->made && slots) {
        if ((uint64_t)table->most + slots > 1u << PS_SLOT_BITS)
            return -ENOSPC;
        size_t chunks = ((size_t)table->most + slots + PS_CHUNK_SLOTS - 1) / PS_CHUNK_SLOTS;
        ps_conn **more = ps_sys.resize(table->chunks, chunks * sizeof *more);
        if (!more)
            return -ENOMEM;
        table->chunks = more;
        table->most += slots;
    }
    if (slots > table->most)
        return -ENOSPC;
    if (generation && generation != UINT32_MAX)
        table->first_generation = generation + 1;
    table->reserved = slots;
    ps__table_relist(table);
    return 0;
}

ps_conn *ps__table_row(const ps_table *table, uint64_t id)
{
    uint32_t slot = (uint32_t)id;
    if (slot >= table->made)
        return NULL;
    ps_conn *conn = ps__slot(table, slot);
    return conn->generation == (uint32_t)(id >> 32) && ps__state(conn) ? conn : NULL;
}

ps_conn *ps__table_find(const ps_table *table, uint64_t id)
{
    ps_conn *conn = ps__table_row(table, id);
    return conn && ps__state(conn) != PS_CONN_CLOSED ? conn : NULL;
}

void ps__mark_dirty(ps_engine *engine, ps_conn *conn)
{
    if (conn->flags & PS_IS_DIRTY)
        return;
    conn->flags |= PS_IS_DIRTY;
    conn->next_dirty = engine->dirty;
    engine->dirty = conn->slot;
}
