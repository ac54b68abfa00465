/* sessions.c: what the transport of a connection keeps of it. It lies beside the client table, in chunks that are made where
 * the first connection comes that needs one: who has no TLS pays nothing. */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "table/table.h"
#include "transport/sessions.h"
#include "transport/transport.h"

static void *cleared(size_t size)
{
    void *block = ps_sys.allocate(size);
    if (block)
        memset(block, 0, size);
    return block;
}

static void **chunk_of(ps_engine *engine, uint32_t slot)
{
    size_t chunks = ((size_t)engine->table.most + PS_CHUNK_SLOTS - 1) / PS_CHUNK_SLOTS;
    if (!engine->sessions)
        engine->sessions = cleared(chunks * sizeof *engine->sessions);
    if (!engine->sessions)
        return NULL;
    void ***chunk = &engine->sessions[slot / PS_CHUNK_SLOTS];
    if (!*chunk)
        *chunk = cleared(PS_CHUNK_SLOTS * sizeof **chunk);
    return *chunk;
}

int ps__session_set(ps_engine *engine, const ps_conn *conn, void *session)
{
    pthread_mutex_lock(&engine->lock);
    void **chunk = chunk_of(engine, conn->slot);
    if (chunk)
        chunk[conn->slot % PS_CHUNK_SLOTS] = session;
    pthread_mutex_unlock(&engine->lock);
    return chunk || !session ? 0 : -ENOMEM;
}

void ps__sessions_close(ps_engine *engine)
{
    if (!engine->sessions)
        return;
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        ps_conn *conn = ps__slot(&engine->table, slot);
        if (ps__session(engine, conn))
            ps__listener(engine, conn)->transport->forget(engine, conn);
    }
    pthread_mutex_lock(&engine->lock);
    size_t chunks = ((size_t)engine->table.most + PS_CHUNK_SLOTS - 1) / PS_CHUNK_SLOTS;
    for (size_t i = 0; i < chunks; i++)
        ps__free(engine->sessions[i]);
    ps__free(engine->sessions);
    engine->sessions = NULL;
    pthread_mutex_unlock(&engine->lock);
}
