/* look.c: looking at the client table, from any thread: under the lock, which the loop takes where it adds, removes or names
 * a client. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/proxy.h"
#include "base/sys.h"
#include "table/access.h"
#include "table/backlog.h"
#include "table/look.h"
#include "table/table.h"
#include "table/via.h"

static void format_peer(int family, const uint8_t *address, unsigned port, char *to, size_t room)
{
    char host[INET6_ADDRSTRLEN];
    to[0] = 0;
    if (family != AF_UNIX && inet_ntop(family, address, host, sizeof host))
        snprintf(to, room, family == AF_INET6 ? "[%s]:%u" : "%s:%u", host, port);
}

/* Of the header in which a proxy says so; what can't be shown as it is, is a question mark. */
static void format_path(const ps_via *via, char *to)
{
    size_t size = 5;
    const uint8_t *path = via->header + PS_PROXY_HEAD;
    strcpy(to, "unix:");
    for (size_t i = 0; i < PS_PROXY_PATH && (path[i] || (i == 0 && path[1])); i++)
        to[size++] = !path[i] ? '@' : path[i] > ' ' && path[i] < 0x7F ? (char)path[i] : '?';
    to[size] = 0;
}

static void format_addresses(const ps_engine *engine, const ps_conn *conn, ps_info *info)
{
    const ps_via_row *row = ps__via_row(engine, conn);
    const ps_via *via = row ? row->via : NULL;
    format_peer(conn->origin, conn->peer, conn->peer_port, info->address, sizeof info->address);
    if (!via)
        return;
    if (via->has_path)
        format_path(via, info->address);
    strcpy(info->via, "unix:");
    if (via->family != AF_UNIX)
        format_peer(via->family, via->peer, via->port, info->via, sizeof info->via);
}

static uint64_t counter_of(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* Its last bytes came so long ago, by the clock that only goes on; and by the clock on the wall that was then. */
static uint64_t idle_since_ns(const ps_conn *conn, const ps_tally *tally)
{
    uint64_t now = ps__now_ns(), heard = counter_of(&tally->heard_ns);
    return heard && heard <= now ? ps__wall_ns() - (now - heard) : conn->connected_at_ns;
}

static void copy_texts(const ps_conn *conn, ps_info *info)
{
    const char *software = conn->name ? conn->name + strlen(conn->name) + 1 : "";
    strcpy(info->name, conn->name ? conn->name : "");
    strcpy(info->software, software);
}

void ps__copy_row(const ps_engine *engine, const ps_conn *conn, ps_info *info)
{
    const ps_tally *tally = ps__tally(&engine->table, conn);
    const ps_backlog *backlog = ps__backlog_row(engine, conn);
    uint64_t requests = counter_of(&conn->requests);
    *info = (ps_info){
        .client_id = ps__id(conn),
        .connected_at_ns = conn->connected_at_ns,
        .idle_since_ns = idle_since_ns(conn, tally),
        .requests = requests,
        .bytes_in = counter_of(&conn->bytes_in),
        .bytes_out = counter_of(&conn->bytes_out),
        .frames_in = requests + __atomic_load_n(&tally->frames_in, __ATOMIC_RELAXED),
        .frames_out = counter_of(&tally->frames_out),
        .pushes_dropped = backlog ? counter_of(&backlog->dropped) : 0,
        .queued = counter_of(&conn->queued),
        .in_flight = __atomic_load_n(&conn->in_flight, __ATOMIC_RELAXED),
        .state = (uint32_t)ps__state(conn),
        .fd = conn->fd,
        .master = conn->listener,
    };
    copy_texts(conn, info);
    format_addresses(engine, conn, info);
    ps__peer_credentials(conn, info);
}

int ps_engine_info(ps_engine *engine, uint64_t client_id, ps_info *info)
{
    pthread_mutex_lock(&engine->lock);
    const ps_conn *conn = ps__table_row(&engine->table, client_id);
    if (conn)
        ps__copy_row(engine, conn, info);
    pthread_mutex_unlock(&engine->lock);
    return conn != NULL;
}

size_t ps_engine_header(ps_engine *engine, uint64_t client_id, uint8_t *data, size_t room)
{
    pthread_mutex_lock(&engine->lock);
    const ps_conn *conn = ps__table_row(&engine->table, client_id);
    const ps_via_row *row = conn ? ps__via_row(engine, conn) : NULL;
    size_t size = row && row->via && row->via->size <= room ? row->via->size : 0;
    if (size)
        memcpy(data, row->via->header, size);
    pthread_mutex_unlock(&engine->lock);
    return size;
}

int ps_engine_attach(ps_engine *engine, uint64_t client_id)
{
    pthread_mutex_lock(&engine->lock);
    ps_conn *conn = ps__table_find(&engine->table, client_id);
    bool client = conn && ps__is_client(conn);
    if (client)
        __atomic_store_n(&conn->attached, conn->attached | PS_ATTACHED, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&engine->lock);
    return client;
}

uint64_t ps_engine_find(ps_engine *engine, const char *name)
{
    const ps_conn *found = NULL;
    pthread_mutex_lock(&engine->lock);
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        const ps_conn *conn = ps__slot(&engine->table, slot);
        if (!ps__is_client(conn) || !conn->name || !*conn->name || strcmp(conn->name, name) != 0)
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
