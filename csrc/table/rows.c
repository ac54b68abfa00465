/* rows.c: all rows of the client table for somebody who looks, from any thread: packed, so that ten thousand cost little, and
 * made objects of when they are looked at. A row is of one moment; all of them together needn't be: the lock is held for a few
 * rows at a time, since the loop has to wait for it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "table/look.h"
#include "table/rows.h"
#include "table/table.h"

enum { AT_ONCE = 64 }; /* rows under the lock */

/* What is gathered. */
typedef struct row_list {
    ps_row *rows;
    uint8_t *texts;
    size_t count, room, texts_size, texts_room;
} row_list;

static uint8_t pack_text(const char *text, uint8_t *to, size_t *at)
{
    size_t size = strlen(text);
    memcpy(to + *at, text, size);
    *at += size;
    return (uint8_t)size;
}

size_t ps__pack_row(const ps_info *info, ps_row *row, uint8_t *texts, size_t at)
{
    size_t size = 0;
    *row = (ps_row){
        .client_id = info->client_id,
        .connected_at_ns = info->connected_at_ns,
        .idle_since_ns = info->idle_since_ns,
        .requests = info->requests,
        .bytes_in = info->bytes_in,
        .bytes_out = info->bytes_out,
        .frames_in = info->frames_in,
        .frames_out = info->frames_out,
        .queued = info->queued,
        .pushes_dropped = info->pushes_dropped,
        .pid = (int32_t)info->pid,
        .uid = (uint32_t)info->uid,
        .gid = (uint32_t)info->gid,
        .in_flight = info->in_flight,
        .texts = (uint32_t)at,
        .state = (uint8_t)info->state,
        .master = (uint8_t)info->master,
    };
    row->name_size = pack_text(info->name, texts, &size);
    row->software_size = pack_text(info->software, texts, &size);
    row->address_size = pack_text(info->address, texts, &size);
    row->via_size = pack_text(info->via, texts, &size);
    return size;
}

/* Room for so many more, so that nothing is allocated under the lock. */
static bool reserve_rows(row_list *all)
{
    if (all->room - all->count < AT_ONCE) {
        size_t room = 2 * all->room + AT_ONCE;
        ps_row *rows = ps_sys.resize(all->rows, room * sizeof *rows);
        if (!rows)
            return false;
        all->rows = rows;
        all->room = room;
    }
    if (all->texts_room - all->texts_size < AT_ONCE * PS_TEXTS_MAX) {
        size_t room = 2 * all->texts_room + AT_ONCE * PS_TEXTS_MAX;
        uint8_t *texts = ps_sys.resize(all->texts, room);
        if (!texts)
            return false;
        all->texts = texts;
        all->texts_room = room;
    }
    return true;
}

static void gather_one(const ps_engine *engine, const ps_conn *conn, row_list *all)
{
    ps_info info;
    if (!conn || !ps__is_client(conn))
        return;
    ps__copy_row(engine, conn, &info);
    all->texts_size +=
        ps__pack_row(&info, &all->rows[all->count++], all->texts + all->texts_size, all->texts_size);
}

/* among: NULL: those of these slots; whether there are more. */
static bool gather_some(ps_engine *engine, const uint64_t *among, size_t count, size_t from, row_list *all)
{
    pthread_mutex_lock(&engine->lock);
    const ps_table *table = &engine->table;
    size_t end = among ? count : table->made, most = end < from + AT_ONCE ? end : from + AT_ONCE;
    for (size_t i = from; i < most; i++)
        gather_one(engine, among ? ps__table_find(table, among[i]) : ps__slot(table, (uint32_t)i), all);
    pthread_mutex_unlock(&engine->lock);
    return most < end;
}

static int compare_rows(const void *left, const void *right)
{
    const ps_row *a = left, *b = right;
    return a->connected_at_ns < b->connected_at_ns ? -1 : a->connected_at_ns > b->connected_at_ns;
}

/* One block of both; the rows become part of it. */
static int join_rows(row_list *all, ps_rows *rows)
{
    size_t size = all->count * sizeof *all->rows;
    qsort(all->rows, all->count, sizeof *all->rows, compare_rows);
    uint8_t *data = ps_sys.resize(all->rows, size + all->texts_size + 1);
    if (!data)
        return -ENOMEM;
    all->rows = NULL;
    memcpy(data + size, all->texts, all->texts_size);
    *rows = (ps_rows){data, all->count, size + all->texts_size};
    return 0;
}

int ps_engine_rows(ps_engine *engine, const uint64_t *among, size_t count, ps_rows *rows)
{
    row_list all = {.rows = NULL};
    bool room = reserve_rows(&all);
    for (size_t from = 0; room && gather_some(engine, among, count, from, &all); from += AT_ONCE)
        room = reserve_rows(&all);
    int error = room ? join_rows(&all, rows) : -ENOMEM;
    ps__free(all.rows);
    ps__free(all.texts);
    return error;
}

void ps_rows_free(ps_rows *rows)
{
    ps__free(rows->data);
}
