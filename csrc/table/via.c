/* via.c: who came through a proxy, and what has come of headers that aren't complete.
 *
 * The rows are by slot, as in the client table, but beside it: they are made, a chunk at a time, where the first header comes,
 * and most servers get none. When it is good, the address in the client's row becomes the one that the header names, and the
 * proxy's own lies here. */
#include <string.h>

#include "base/proxy.h"
#include "base/sys.h"
#include "table/table.h"
#include "table/via.h"

enum { FIRST_PART = 256 };

/* Other threads look, too: under the lock, so that none is freed meanwhile; but the loop makes some without it. */
ps_via_row *ps__via_row(const ps_engine *engine, const ps_conn *conn)
{
    ps_via_row **chunks = __atomic_load_n(&engine->vias, __ATOMIC_ACQUIRE);
    ps_via_row *chunk = chunks ? __atomic_load_n(&chunks[conn->slot / PS_CHUNK_SLOTS], __ATOMIC_ACQUIRE) : NULL;
    return chunk ? &chunk[conn->slot % PS_CHUNK_SLOTS] : NULL;
}

static size_t chunks_of(const ps_engine *engine)
{
    return ((size_t)engine->table.most + PS_CHUNK_SLOTS - 1) / PS_CHUNK_SLOTS;
}

static void *allocate_zeros(size_t size)
{
    void *block = ps_sys.allocate(size);
    if (block)
        memset(block, 0, size);
    return block;
}

ps_via_row *ps__via(ps_engine *engine, const ps_conn *conn)
{
    if (!engine->vias)
        __atomic_store_n(&engine->vias, allocate_zeros(chunks_of(engine) * sizeof *engine->vias), __ATOMIC_RELEASE);
    if (!engine->vias)
        return NULL;
    ps_via_row **chunk = &engine->vias[conn->slot / PS_CHUNK_SLOTS];
    if (!*chunk)
        __atomic_store_n(chunk, allocate_zeros(PS_CHUNK_SLOTS * sizeof **chunk), __ATOMIC_RELEASE);
    return ps__via_row(engine, conn);
}

bool ps__via_add(ps_via_row *row, const uint8_t *data, size_t size)
{
    uint32_t room = row->room ? row->room : FIRST_PART;
    while (room < row->have + size)
        room *= 2;
    if (room > row->room) {
        uint8_t *part = ps_sys.resize(row->part, room);
        if (!part)
            return false;
        row->part = part;
        row->room = room;
    }
    memcpy(row->part + row->have, data, size);
    row->have += (uint32_t)size;
    return true;
}

static ps_via *via_of(const ps_conn *conn, const ps_proxy_header *header, const uint8_t *data)
{
    ps_via *via = ps_sys.allocate(sizeof *via + header->kept);
    if (!via)
        return NULL;
    *via = (ps_via){.family = conn->family, .port = conn->peer_port, .size = header->kept,
                     .has_path = header->family == AF_UNIX};
    memcpy(via->peer, conn->peer, sizeof via->peer);
    memcpy(via->header, data, header->kept);
    return via;
}

/* Its address of a Unix socket stays in the header: there is no room for it in the client's row. Whoever it is, it isn't the
 * process at the other end, whose user mustn't be taken for the client's. */
bool ps__via_tell(ps_engine *engine, ps_conn *conn, const ps_proxy_header *header, const uint8_t *data)
{
    ps_via *via = via_of(conn, header, data);
    ps_via_row *row = ps__via(engine, conn);
    if (!via || !row) {
        ps__free(via);
        return false;
    }
    pthread_mutex_lock(&engine->lock);
    row->via = via;
    if (header->family) {
        conn->origin = header->family == AF_UNIX ? 0u : header->family & 0xFu;
        conn->peer_port = header->port;
        memcpy(conn->peer, header->source, sizeof conn->peer);
    } else if (conn->family == AF_UNIX) {
        conn->origin = 0;
    }
    pthread_mutex_unlock(&engine->lock);
    return true;
}

void ps__via_forget(const ps_engine *engine, const ps_conn *conn)
{
    ps_via_row *row = ps__via_row(engine, conn);
    if (!row)
        return;
    ps__free(row->via);
    ps__free(row->part);
    *row = (ps_via_row){.via = NULL};
}

void ps__via_close(ps_engine *engine)
{
    for (size_t i = 0; engine->vias && i < chunks_of(engine); i++) {
        ps_via_row *chunk = engine->vias[i];
        for (size_t k = 0; chunk && k < PS_CHUNK_SLOTS; k++) {
            ps__free(chunk[k].via);
            ps__free(chunk[k].part);
        }
        ps__free(chunk);
    }
    ps__free(engine->vias);
    engine->vias = NULL;
}
