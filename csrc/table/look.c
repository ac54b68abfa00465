/* look.c: looking at the client table, from any thread: under the lock, which the loop takes where it adds, removes or names
 * a client. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "table/access.h"
#include "table/backlog.h"
#include "table/table.h"

static void format_peer(const ps_conn *conn, char *to, size_t room)
{
    char host[INET6_ADDRSTRLEN];
    to[0] = 0;
    if (conn->family != AF_UNIX && inet_ntop(conn->family, conn->peer, host, sizeof host))
        snprintf(to, room, conn->family == AF_INET6 ? "[%s]:%u" : "%s:%u", host, conn->peer_port);
}

static void copy_row(const ps_engine *engine, const ps_conn *conn, ps_info *info)
{
    const ps_backlog *backlog = ps__backlog_row(engine, conn);
    *info = (ps_info){
        .client_id = ps__id(conn),
        .connected_at_ns = conn->connected_at_ns,
        .requests = __atomic_load_n(&conn->requests, __ATOMIC_RELAXED),
        .bytes_in = __atomic_load_n(&conn->bytes_in, __ATOMIC_RELAXED),
        .bytes_out = __atomic_load_n(&conn->bytes_out, __ATOMIC_RELAXED),
        .pushes_dropped = backlog ? __atomic_load_n(&backlog->dropped, __ATOMIC_RELAXED) : 0,
        .queued = __atomic_load_n(&conn->queued, __ATOMIC_RELAXED),
        .in_flight = __atomic_load_n(&conn->in_flight, __ATOMIC_RELAXED),
        .state = (uint32_t)ps__state(conn),
        .fd = conn->fd,
        .master = conn->listener,
    };
    if (conn->name)
        strcpy(info->name, conn->name);
    format_peer(conn, info->address, sizeof info->address);
    ps__peer_credentials(conn, info);
}

int ps_engine_info(ps_engine *engine, uint64_t client_id, ps_info *info)
{
    pthread_mutex_lock(&engine->lock);
    const ps_conn *conn = ps__table_row(&engine->table, client_id);
    if (conn)
        copy_row(engine, conn, info);
    pthread_mutex_unlock(&engine->lock);
    return conn != NULL;
}

int ps_engine_attach(ps_engine *engine, uint64_t client_id)
{
    pthread_mutex_lock(&engine->lock);
    ps_conn *conn = ps__table_find(&engine->table, client_id);
    bool client = conn && ps__is_client(conn);
    if (client)
        __atomic_store_n(&conn->attached, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&engine->lock);
    return client;
}

uint64_t ps_engine_find(ps_engine *engine, const char *name)
{
    const ps_conn *found = NULL;
    pthread_mutex_lock(&engine->lock);
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        const ps_conn *conn = ps__slot(&engine->table, slot);
        if (!ps__is_client(conn) || !conn->name || strcmp(conn->name, name) != 0)
            continue;
        if (!found || conn->connected_at_ns >= found->connected_at_ns)
            found = conn;
    }
    uint64_t id = found ? ps__id(found) : 0;
    pthread_mutex_unlock(&engine->lock);
    return id;
}

typedef struct arrival {
    uint64_t at_ns, client_id;
} arrival;

static int compare_arrivals(const void *left, const void *right)
{
    const arrival *a = left, *b = right;
    return a->at_ns < b->at_ns ? -1 : a->at_ns > b->at_ns;
}

static size_t list_arrivals(ps_engine *engine, arrival *list, size_t room)
{
    size_t count = 0;
    pthread_mutex_lock(&engine->lock);
    for (uint32_t slot = 0; slot < engine->table.made && count < room; slot++) {
        const ps_conn *conn = ps__slot(&engine->table, slot);
        if (ps__is_client(conn))
            list[count++] = (arrival){conn->connected_at_ns, ps__id(conn)};
    }
    pthread_mutex_unlock(&engine->lock);
    return count;
}

/* Sorted here and not under the lock, for which the loop would have to wait. */
int64_t ps_engine_ids(ps_engine *engine, uint64_t *ids, size_t room)
{
    arrival *list = ps_sys.allocate(room * sizeof *list);
    if (!list)
        return -ENOMEM;
    size_t count = list_arrivals(engine, list, room);
    qsort(list, count, sizeof *list, compare_arrivals);
    for (size_t i = 0; i < count; i++)
        ids[i] = list[i].client_id;
    ps__free(list);
    return (int64_t)count;
}

void ps_engine_stats(ps_engine *engine, ps_stats *stats)
{
    const uint64_t *from = (const uint64_t *)&engine->stats;
    uint64_t *to = (uint64_t *)stats;
    for (size_t i = 0; i < sizeof *stats / sizeof *to; i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}
