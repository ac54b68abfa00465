/* heldup.c: whose handlers have held up the loop: meanwhile nobody else is served.
 *
 * The engine tells of a turn that took long. What of it were the handlers of each service is known where they are timed:
 * batches and streams always are; plain requests only for a while after such a turn, for two looks at a clock would cost a
 * small one some hundredths. Before, a request that was alone in its turn is known all the same.
 *
 * And requests that are told of when they are over: those that took long, and while somebody looks on a few of all. Nobody
 * pays for that either before a turn takes as long as what is to be told of: so of a slow request that came with others, when
 * none had been slow for a minute, it is only known that it is one of so many. What is answered later, or in batches, is
 * looked at when it is answered. */
#include "base/sys.h"
#include "loop/engine.h"
#include "python/python.h"

void ps__py_took(const ps_python *py, service *s, uint64_t ns)
{
    if (s->turn_ns != py->engine->look_ns) {
        s->turn_ns = py->engine->look_ns;
        s->took_ns = 0;
    }
    s->took_ns += ns;
}

/* Until then each handler is timed, so that the next one can be named, whatever else is called in its turn. */
#define TIMED_NS (60 * 1000000000ull)

void ps__py_time_requests(ps_python *py)
{
    if (!py->engine->meter) /* that has a hook of its own, which times them meanwhile */
        py->engine->hooks.request = py->on_timed;
    py->timed_until_ns = ps__now_ns() + TIMED_NS;
}

/* The service that took most of this turn, at least half of it; or NULL. */
static const service *who(ps_python *py, uint64_t worked_ns)
{
    const service *most = NULL;
    uint64_t took_ns = worked_ns / 2;
    for (uint32_t i = 0; i < py->service_count; i++) {
        const service *s = &py->services[i];
        if (s->turn_ns != py->engine->look_ns || s->took_ns < took_ns)
            continue;
        most = s;
        took_ns = s->took_ns;
    }
    return most;
}

int ps__py_who(ps_python *py, uint64_t worked_ns, uint64_t requests)
{
    const service *s = who(py, worked_ns);
    return s ? (int)(s - py->services) : requests == 1 ? (int)py->called : -1;
}

/* With the number of the service, or -1 where that isn't known. */
int ps__py_tell_held_up(ps_python *py, uint64_t worked_ns, uint64_t requests)
{
    const service *s = who(py, worked_ns);
    int number = ps__py_who(py, worked_ns, requests);
    PyObject *callback = ps__py_callback(py, ON_HELD_UP);
    double seconds = (double)(s ? s->took_ns : worked_ns) / 1e9;
    return ps__py_finish_call(py, ON_HELD_UP, PyObject_CallFunction(callback, "id", number, seconds));
}

/* -- requests that are over ---------------------------------------------------------------------------------------- */

/* At most so many a turn; of others it is said: what isn't told of is counted. */
enum { SLOW_MAX = 64 };

static bool has_room(ps_python *py, bool is_slow)
{
    if (py->served.turn_ns != py->engine->look_ns) {
        py->served.turn_ns = py->engine->look_ns;
        py->served.slow = py->served.others = 0;
    }
    bool has = is_slow ? py->served.slow < SLOW_MAX : py->served.others < py->served.most;
    uint32_t *told = is_slow ? &py->served.slow : &py->served.others;
    *told += has;
    py->served.skipped += !has;
    return has;
}

/* What a pysock.engine.rows.Served is made of, and how many weren't told of. */
static int tell_of(ps_python *py, uint64_t id, int number, uint64_t came_ns, uint64_t began_ns, int64_t size, int64_t reply,
                bool failed, uint64_t among, PyObject *kept, bool sampled)
{
    PyObject *callback = ps__py_callback(py, ON_SERVED);
    uint64_t skipped = py->served.skipped;
    py->served.skipped = 0;
    PyObject *result = PyObject_CallFunction(
        callback, "(KidddLLNKON)K", (unsigned long long)id, number, (double)came_ns / 1e9, (double)began_ns / 1e9,
        (double)ps__now_ns() / 1e9, (long long)size, (long long)reply, PyBool_FromLong(failed), (unsigned long long)among,
        kept ? kept : Py_None, PyBool_FromLong(sampled), (unsigned long long)skipped);
    return ps__py_finish_call(py, ON_SERVED, result);
}

/* Also what is gathered, and isn't counted yet. */
static uint64_t sent_to(const ps_engine *engine, const ps_conn *conn)
{
    return conn->bytes_out + (engine->out_conn == conn ? engine->out_used + engine->out_lent : 0);
}

ps_served ps__py_serves(ps_python *py, ps_conn *conn, const ps_frame *frame, uint64_t came_ns, bool sampled)
{
    uint64_t sent = sent_to(py->engine, conn), errors = py->engine->stats.errors;
    py->served.is_later = false;
    return (ps_served){conn, frame->code, frame->size, sent, errors, came_ns, ps__now_ns(), sampled};
}

int ps__py_tell_served(ps_python *py, const ps_served *what, PyObject *kept)
{
    uint64_t began_ns = kept ? what->came_ns : what->began_ns, took = ps__now_ns() - began_ns;
    bool is_slow = took >= py->served.slow_ns;
    if (py->served.is_later || !(is_slow || what->sampled) || !has_room(py, is_slow))
        return 0;
    const ps_framing_facts *framing = ps__framing(py->engine, what->conn);
    uint64_t sent = sent_to(py->engine, what->conn) - what->bytes_out, around = framing->head_size + (framing->ends_line ? 1u : 0u);
    bool failed = py->engine->stats.errors != what->errors;
    int64_t reply = failed || sent < around ? 0 : (int64_t)(sent - around);
    return tell_of(py, ps__id(what->conn), what->number, what->came_ns, began_ns, what->size, reply, failed, 1, kept,
                   what->sampled);
}

/* This turn took so long, and its handlers weren't timed. */
int ps__py_tell_turn(ps_python *py, uint64_t worked_ns, uint64_t requests)
{
    bool is_told = py->served.turn_ns == py->engine->look_ns && py->served.slow;
    if (worked_ns < py->served.slow_ns || is_told)
        return 0;
    bool alone = requests == 1 && py->client;
    uint64_t now = ps__now_ns(), began = now > worked_ns ? now - worked_ns : 0;
    int number = ps__py_who(py, worked_ns, requests);
    return tell_of(py, alone ? ps__id(py->client) : 0, number, began, began, -1, -1, false, requests, NULL, false);
}

/* notice(seconds, every, most): requests that take so long are told of, less than 0: none is slow; and of all others each so
 * manieth, 0: none, but at most so many a turn. Before the loop runs: from the first one on. */
PyObject *ps__py_inside_notice(PyObject *self, PyObject *args)
{
    ps_python *py = PyCapsule_GetPointer(self, NULL);
    double seconds;
    unsigned every, most;
    if (!PyArg_ParseTuple(args, "dII", &seconds, &every, &most))
        return NULL;
    py->served.slow_ns = seconds < 0 ? UINT64_MAX : (uint64_t)(seconds * 1e9);
    py->served.least_ns = every ? 0 : py->served.slow_ns;
    py->served.every = every;
    py->served.most = most;
    py->served.until = py->served.until_later = 0;
    if (every && !py->raised)
        ps__py_time_requests(py);
    ps__engine_notice(py->engine, every && py->raised ? 0 : py->served.slow_ns); /* so that the next turn has them timed */
    Py_RETURN_NONE;
}
