/* sessions.h: what the transport of a connection keeps of it. */
#ifndef PYSOCK_TRANSPORT_SESSIONS_H
#define PYSOCK_TRANSPORT_SESSIONS_H

#include "core/engine.h"

/* It is the transport's own; NULL: there is none. For other threads, which hold the lock, as well. */
static inline void *ps__session(const ps_engine *engine, const ps_conn *conn)
{
    void **chunk = engine->sessions ? engine->sessions[conn->slot / PS_CHUNK_SLOTS] : NULL;
    return chunk ? chunk[conn->slot % PS_CHUNK_SLOTS] : NULL;
}

/* 0, or -ENOMEM; NULL can always be set. */
int ps__session_set(ps_engine *engine, const ps_conn *conn, void *session);
/* All that are left are forgotten. */
void ps__sessions_close(ps_engine *engine);

#endif
