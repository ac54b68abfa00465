/* heldup.c: whose handlers have held up the loop: meanwhile nobody else is served.
 *
 * The engine tells of a turn that took long. What of it were the handlers of each service is known where they are timed:
 * batches and streams always are; plain requests only for a while after such a turn, for two looks at a clock would cost a
 * small one some hundredths. Before, a request that was alone in its turn is known all the same. */
#include "python/python.h"

void ps__py_took(const ps_python *py, service *s, uint64_t ns)
{
    if (s->turn_ns != py->engine->look_ns) {
        s->turn_ns = py->engine->look_ns;
        s->took_ns = 0;
    }
    s->took_ns += ns;
}

/* The service that took most of this turn, at least half of it; or NULL. */
static service *who(ps_python *py, uint64_t worked_ns)
{
    service *most = NULL;
    uint64_t took_ns = worked_ns / 2;
    for (uint32_t i = 0; i < py->service_count; i++) {
        service *s = &py->services[i];
        if (s->turn_ns != py->engine->look_ns || s->took_ns < took_ns)
            continue;
        most = s;
        took_ns = s->took_ns;
    }
    return most;
}

/* With the number of the service, or -1 where that isn't known. */
int ps__py_tell_held_up(ps_python *py, uint64_t worked_ns, uint64_t requests)
{
    const service *s = who(py, worked_ns);
    int number = s ? (int)(s - py->services) : requests == 1 ? (int)py->called : -1;
    PyObject *callback = ps__py_callback(py, ON_HELD_UP);
    double seconds = (double)(s ? s->took_ns : worked_ns) / 1e9;
    return ps__py_finish_call(py, ON_HELD_UP, PyObject_CallFunction(callback, "id", number, seconds));
}
