/* gone.c: who was there: the last clients that went, each as it was in its last moment, packed. The loop adds them, any thread
 * may ask; also when the loop has ended. Where there is no memory for one, it isn't remembered. */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "table/gone.h"
#include "table/look.h"
#include "table/rows.h"
#include "table/table.h"

struct ps_gone {
    ps_row row;
    uint8_t texts[];
};

static size_t texts_of(const ps_row *row)
{
    return (size_t)row->name_size + row->software_size + row->address_size + row->via_size;
}

struct ps_gone *ps__make_gone(const ps_conn *conn)
{
    size_t size = conn->name ? strlen(conn->name) + strlen(conn->name + strlen(conn->name) + 1) : 0;
    return ps_sys.allocate(sizeof(struct ps_gone) + size + PS_ADDRESS_MAX + PS_VIA_MAX);
}

static void fill(const ps_engine *engine, const ps_conn *conn, struct ps_gone *gone, uint64_t left_at_ns)
{
    ps_info info;
    ps__copy_row(engine, conn, &info);
    ps__pack_row(&info, &gone->row, gone->texts, 0);
    gone->row.left_at_ns = left_at_ns;
    gone->row.reason = conn->reason;
}

struct ps_gone *ps__remember_gone(ps_engine *engine, const ps_conn *conn, struct ps_gone *gone)
{
    struct ps_gone **place = &engine->gone[engine->gone_count % PS_GONE_MAX], *oldest = *place;
    if (!gone)
        return NULL;
    fill(engine, conn, gone, ps__wall_ns());
    *place = gone;
    ps__tally(&engine->table, conn)->gone = (uint32_t)++engine->gone_count;
    return oldest;
}

void ps__complete_gone(ps_engine *engine, const ps_conn *conn)
{
    uint32_t number = ps__tally(&engine->table, conn)->gone, later = (uint32_t)engine->gone_count - number;
    if (!number || later >= PS_GONE_MAX)
        return;
    struct ps_gone *gone = engine->gone[(engine->gone_count - later - 1) % PS_GONE_MAX];
    fill(engine, conn, gone, gone->row.left_at_ns);
}

void ps__forget_gone(ps_engine *engine)
{
    for (size_t i = 0; i < PS_GONE_MAX; i++)
        ps__free(engine->gone[i]);
}

static uint64_t first_gone(const ps_engine *engine)
{
    return engine->gone_count > PS_GONE_MAX ? engine->gone_count - PS_GONE_MAX : 0;
}

static const struct ps_gone *gone_at(const ps_engine *engine, uint64_t number)
{
    return engine->gone[number % PS_GONE_MAX];
}

static size_t size_of_gone(const ps_engine *engine)
{
    size_t size = 0;
    for (uint64_t i = first_gone(engine); i < engine->gone_count; i++)
        size += sizeof(ps_row) + texts_of(&gone_at(engine, i)->row);
    return size;
}

static void copy_gone(const ps_engine *engine, ps_rows *rows)
{
    uint64_t first = first_gone(engine);
    rows->count = (size_t)(engine->gone_count - first);
    rows->size = rows->count * sizeof(ps_row);
    uint8_t *texts = rows->data + rows->size;
    for (uint64_t i = first; i < engine->gone_count; i++) {
        const struct ps_gone *gone = gone_at(engine, i);
        ps_row row = gone->row;
        row.texts = (uint32_t)(rows->data + rows->size - texts);
        memcpy(rows->data + (i - first) * sizeof row, &row, sizeof row);
        memcpy(rows->data + rows->size, gone->texts, texts_of(&row));
        rows->size += texts_of(&row);
    }
}

/* Room for it is made without the lock, as long as it takes. */
int ps_engine_gone(ps_engine *engine, ps_rows *rows)
{
    size_t room = 0;
    *rows = (ps_rows){NULL, 0, 0};
    for (;;) {
        pthread_mutex_lock(&engine->lock);
        size_t size = size_of_gone(engine);
        if (size < room)
            copy_gone(engine, rows);
        pthread_mutex_unlock(&engine->lock);
        if (size < room)
            return 0;
        ps__free(rows->data);
        room = size + PS_TEXTS_MAX + sizeof(ps_row);
        rows->data = ps_sys.allocate(room);
        if (!rows->data)
            return -ENOMEM;
    }
}
