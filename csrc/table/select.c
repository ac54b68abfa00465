/* select.c: which clients are meant, by what is known of each. From any thread, under the lock. */
#include "base/match.h"
#include "table/access.h"
#include "table/table.h"

static bool is_meant(const ps_engine *engine, const ps_conn *conn, const ps_selection *wanted)
{
    if (!ps__is_client(conn) || ps__id(conn) == wanted->but)
        return false;
    if (wanted->name && !ps__matches(wanted->name, wanted->name_size, conn->name ? conn->name : ""))
        return false;
    return wanted->uid < 0 || wanted->uid == ps__peer_uid(engine, conn);
}

static size_t select_among(const ps_engine *engine, const ps_selection *wanted, uint64_t *ids, size_t room)
{
    size_t count = 0;
    for (size_t i = 0; i < wanted->count && count < room; i++) {
        const ps_conn *conn = ps__table_find(&engine->table, wanted->among[i]);
        if (conn && is_meant(engine, conn, wanted))
            ids[count++] = wanted->among[i];
    }
    return count;
}

static size_t select_of_all(const ps_engine *engine, const ps_selection *wanted, uint64_t *ids, size_t room)
{
    size_t count = 0;
    for (uint32_t slot = 0; slot < engine->table.made && count < room; slot++) {
        const ps_conn *conn = ps__slot(&engine->table, slot);
        if (is_meant(engine, conn, wanted))
            ids[count++] = ps__id(conn);
    }
    return count;
}

size_t ps_engine_select(ps_engine *engine, const ps_selection *wanted, uint64_t *ids, size_t room)
{
    pthread_mutex_lock(&engine->lock);
    size_t count = wanted->among ? select_among(engine, wanted, ids, room) : select_of_all(engine, wanted, ids, room);
    pthread_mutex_unlock(&engine->lock);
    return count;
}
