/* libssl.c: libssl.so.3 and libcrypto.so.3 are looked for when somebody wants TLS, and found by the loader as any program's.
 * Another copy in the process, linked into some builds of Python, is a stranger to this one: RTLD_LOCAL (dlopen(3)). They are
 * never let go of again, for OpenSSL may have functions that are run when a thread or the process ends. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pysock.h"
#include "transport/libssl.h"

ps_libssl_table ps_libssl;

typedef struct symbol {
    const char *name;
    size_t at; /* its place in the table */
} symbol;

#define SYMBOL(result, name, arguments) {#name, offsetof(ps_libssl_table, name)},

static const symbol of_ssl[] = {PS_LIBSSL(SYMBOL)};
static const symbol of_crypto[] = {PS_LIBCRYPTO(SYMBOL)};

static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;
static bool is_loaded;

static int find_all(const char *library, const symbol *symbols, size_t count, ps_libssl_table *table, char *why, size_t room)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        snprintf(why, room, "%s", dlerror());
        return -ENOENT;
    }
    for (size_t i = 0; i < count; i++) {
        void *function = dlsym(handle, symbols[i].name);
        if (!function) {
            snprintf(why, room, "%s has no %s", library, symbols[i].name);
            return -ENOSYS;
        }
        memcpy((char *)table + symbols[i].at, &function, sizeof function);
    }
    return 0;
}

int ps_libssl_load(const char *ssl, const char *crypto, char *why, size_t room)
{
    ps_libssl_table table;
    int error = 0;
    pthread_mutex_lock(&load_lock);
    if (!is_loaded) {
        error = find_all(crypto, of_crypto, sizeof of_crypto / sizeof *of_crypto, &table, why, room);
        if (error == 0)
            error = find_all(ssl, of_ssl, sizeof of_ssl / sizeof *of_ssl, &table, why, room);
        if (error == 0) {
            ps_libssl = table;
            is_loaded = true;
        }
    }
    pthread_mutex_unlock(&load_lock);
    return error;
}
