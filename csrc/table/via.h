/* via.h: who came through a proxy, through which, and what it has said of them. */
#ifndef PYSOCK_TABLE_VIA_H
#define PYSOCK_TABLE_VIA_H

#include "core/engine.h"

typedef struct ps_via {
    uint8_t family, peer[16]; /* the proxy: AF_..., and its IP address */
    bool has_path;            /* its client's address is that of a Unix socket, in the header */
    uint16_t port;
    uint32_t size;
    uint8_t header[];         /* what is kept of it */
} ps_via;

typedef struct ps_via_row {
    ps_via *via;         /* NULL: the client came through none; other threads look at it */
    uint8_t *part;       /* what has come of the header: the loop's alone */
    uint32_t have, room;
} ps_via_row;

/* Its row, made where there is none; NULL: there is no memory. It never moves. */
ps_via_row *ps__via(ps_engine *engine, const ps_conn *conn);
/* Its row, or NULL; for other threads, which hold the lock, as well. */
ps_via_row *ps__via_row(const ps_engine *engine, const ps_conn *conn);
/* So many bytes more of the header. False: there is no memory. */
bool ps__via_add(ps_via_row *row, const uint8_t *data, size_t size);
/* The other end is a proxy, and this its good header: the client is whom that names. False: there is no memory. */
bool ps__via_tell(ps_engine *engine, ps_conn *conn, const ps_proxy_header *header, const uint8_t *data);
/* The slot is free; under the lock. */
void ps__via_forget(const ps_engine *engine, const ps_conn *conn);
void ps__via_close(ps_engine *engine);

#endif
