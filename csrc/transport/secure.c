/* secure.c: from when on a listener's clients must speak TLS, and what anybody may ask about them. */
#include <errno.h>
#include <stdio.h>

#include "table/table.h"
#include "transport/tls.h"

void ps__security_close(ps_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    for (uint32_t i = 0; i < engine->listener_count; i++) {
        ps__security_drop(engine->listeners[i].security);
        engine->listeners[i].security = NULL;
    }
    ps__tls_room_free(engine);
    pthread_mutex_unlock(&engine->lock);
}

int ps__secure_hosted(ps_engine *engine, uint32_t master)
{
    if (master >= engine->listener_count)
        return -EINVAL;
    pthread_mutex_lock(&engine->lock);
    int error = ps__tls_room(engine);
    if (error == 0)
        engine->listeners[master].transport = &ps__hosted;
    pthread_mutex_unlock(&engine->lock);
    return error;
}

int ps_engine_secure(ps_engine *engine, uint32_t master, const ps_tls_options *options, char *why, size_t room)
{
    int error;
    if (master >= engine->listener_count || options->alpn_size > sizeof ((ps_security *)0)->alpn)
        return -EINVAL;
    snprintf(why, room, "there is no memory");
    ps_security *security = ps__security_new(options, &error, why, room);
    if (!security)
        return error;
    pthread_mutex_lock(&engine->lock);
    error = ps__tls_room(engine);
    if (error == 0)
        error = ps__tls_method(engine);
    ps_listener *listener = &engine->listeners[master];
    ps_security *old = error < 0 ? security : listener->security;
    if (error == 0) {
        listener->security = security;
        listener->transport = &ps__libssl;
    }
    ps__security_drop(old);
    pthread_mutex_unlock(&engine->lock);
    return error;
}

int64_t ps_engine_facts(ps_engine *engine, uint64_t client_id, uint8_t *to, size_t room)
{
    size_t size = 0;
    pthread_mutex_lock(&engine->lock);
    const ps_conn *conn = ps__table_row(&engine->table, client_id);
    const ps_transport *transport = conn ? ps__listener(engine, conn)->transport : &ps__plain;
    if (transport->facts)
        size = transport->facts(engine, conn, to, room);
    pthread_mutex_unlock(&engine->lock);
    return (int64_t)size;
}
