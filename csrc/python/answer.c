/* answer.c: what a handler returned becomes a reply, at once or later.
 *
 * For later it is an object of the facade's, which the record of the request keeps; it is told when nobody waits any more,
 * and answers in its time, from any thread. */
#include <errno.h>

#include "base/texts.h"
#include "conn/defer.h"
#include "conn/stream.h"
#include "loop/command.h"
#include "loop/guest.h"
#include "python/python.h"

/* 1: its work had begun, 0: it had not. */
int ps__py_on_ended(void *context, void *object, enum ps_why why)
{
    ps_python *py = context;
    if (ps__py_is_call(object)) {
        ps__py_leave_variables(py);
        return ps__py_call_unwanted(object, why) < 0 ? ps__py_callback_failed(py, ON_ENDED) : 1;
    }
    PyObject *answer = PyObject_CallFunction(ps__py_callback(py, ON_ENDED), "Oi", object, (int)why);
    int begun = answer ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    if (begun >= 0)
        return begun;
    int error = ps__py_callback_failed(py, ON_ENDED);
    return error < 0 ? error : 1; /* its place is free when it is answered */
}

/* -- the handler has returned -------------------------------------------------------------------------------------- */

static int cannot_defer(ps_python *py, ps_conn *conn, const ps_frame *frame)
{
    PyErr_SetString(PyExc_TypeError, PS_TEXT_NO_IDS);
    return ps__py_failed(py, conn, frame);
}

/* The request is over already: answered, which the facade knows, or nobody waits. */
static int tell_at_once(ps_python *py, PyObject *kept)
{
    int begun = ps__py_on_ended(py, kept, PS_WHY_GONE);
    return begun < 0 ? begun : 0;
}

static void forget(ps_python *py, uint64_t handle)
{
    ps_work work;
    ps__defer_done(py->engine, handle, &work);
    Py_XDECREF((PyObject *)work.object);
}

int ps__py_on_flow(void *context, void *kept, int64_t left, uint64_t limit)
{
    ps_python *py = context;
    if (ps__py_is_call(kept) || py->callbacks[ON_FLOW] == Py_None)
        return 0;
    PyObject *result = PyObject_CallFunction(ps__py_callback(py, ON_FLOW), "OLK", kept, (long long)left,
                                             (unsigned long long)limit);
    return ps__py_finish_call(py, ON_FLOW, result);
}

/* What the facade makes of it, under this handle. 1: nothing, it isn't for later. */
static int defer_with(ps_python *py, ps_conn *conn, const ps_frame *frame, uint64_t handle, PyObject *result)
{
    unsigned long long number = handle;
    PyObject *kept = PyObject_CallFunction(ps__py_callback(py, ON_DEFER), "KO", number, result);
    if (!kept || kept == Py_None) {
        forget(py, handle);
        if (!kept)
            return ps__py_failed(py, conn, frame);
        Py_DECREF(kept);
        return 1;
    }
    if (ps__defer_keep(py->engine, handle, kept)) {
        ps_deferred *record = ps__deferred_find(py->engine, handle);
        if (record->is_stream) /* who sends the pieces itself learns how many it may send at first */
            ps__stream_tell(py->engine, record);
        return 0;
    }
    int error = tell_at_once(py, kept);
    Py_DECREF(kept);
    return error;
}

/* A call of an async handler needs no callback: it is what the record keeps. */
static int defer_call(ps_python *py, uint64_t handle, PyObject *call)
{
    ps__py_call_awaited(py, call, handle);
    if (handle && ps__defer_keep(py->engine, handle, call)) {
        Py_INCREF(call);
        return 0;
    }
    int error = ps__py_on_ended(py, call, PS_WHY_GONE);
    return error < 0 ? error : 0;
}

void ps__py_describe(const ps_python *py, uint64_t handle)
{
    ps_deferred *record = ps__deferred_find(py->engine, handle);
    const service *s = &py->services[record->pending.frame.code];
    record->is_stream = s->streams;
    record->is_endless = s->endless;
}

/* What a handler returned is neither bytes nor None. */
int ps__py_defer(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *result)
{
    bool is_call = ps__py_is_new_call(result);
    if (!is_call && py->callbacks[ON_DEFER] == Py_None)
        return 1;
    uint64_t handle = 0; /* of nobody */
    py->served.is_later = true;
    bool alone = conn->in_flight == 0 || ps__framing(py->engine, conn)->has_ids;
    if (alone && conn->state != PS_CONN_CLOSED)
        handle = ps__defer(py->engine, conn, frame);
    if (handle)
        ps__py_describe(py, handle);
    int error = is_call ? defer_call(py, handle, result) : defer_with(py, conn, frame, handle, result);
    if (error || handle || conn->state == PS_CONN_CLOSED)
        return error;
    if (!alone)
        return cannot_defer(py, conn, frame);
    PyErr_NoMemory();
    return ps__py_failed(py, conn, frame);
}

/* It was returned for a request that nobody waits for any more: if it is for later, whoever works for it is told. */
int ps__py_nobody_waits(ps_python *py, PyObject *result)
{
    bool is_exception = PyType_IsSubtype(Py_TYPE(result), (PyTypeObject *)PyExc_Exception);
    if (result == Py_None || is_exception || PyObject_CheckBuffer(result) || py->callbacks[ON_DEFER] == Py_None)
        return 0;
    PyObject *kept = PyObject_CallFunction(ps__py_callback(py, ON_DEFER), "KO", 0ULL, result);
    if (!kept)
        return ps__py_callback_failed(py, ON_DEFER);
    int error = kept == Py_None ? 0 : tell_at_once(py, kept);
    Py_DECREF(kept);
    return error;
}

static int not_bytes(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *result)
{
    const char *advice = PyUnicode_Check(result) ? PS_TEXT_ENCODE : PyGen_CheckExact(result) ? PS_TEXT_STREAM : "";
    PyErr_Format(PyExc_TypeError, PS_TEXT_NOT_BYTES, Py_TYPE(result)->tp_name, advice);
    return ps__py_failed(py, conn, frame);
}

/* Anything but exact bytes: it may change or move while it waits to be sent, so it is copied. */
int ps__py_answer_other(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *result)
{
    if (result == Py_None)
        return ps__framing(py->engine, conn)->has_ids ? ps__py_send_reply(py, conn, frame, NULL, 0, NULL) : 0;
    if (!PyObject_CheckBuffer(result)) {
        int error = ps__py_defer(py, conn, frame, result);
        return error == 1 ? not_bytes(py, conn, frame, result) : error;
    }
    PyObject *bytes = PyBytes_FromObject(result);
    if (!bytes)
        return ps__py_failed(py, conn, frame);
    int error = ps__py_send_reply(py, conn, frame, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes), bytes);
    Py_DECREF(bytes);
    return error;
}

/* -- the answer, later --------------------------------------------------------------------------------------------- */

/* reply: an exception is what made it fail. */
int ps__py_answer_with(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *reply)
{
    if (!PyType_IsSubtype(Py_TYPE(reply), (PyTypeObject *)PyExc_Exception))
        return ps__py_answer(py, conn, frame, reply);
    PyErr_SetObject((PyObject *)Py_TYPE(reply), reply);
    return ps__py_failed(py, conn, frame);
}

static int answer_owed(ps_python *py, ps_conn *conn, const ps_work *work, PyObject *reply)
{
    ps_measuring outer = ps__answer_begins(py->engine, &work->frame);
    bool outer_is_later = py->served.is_later;
    bool sampled = ps__py_samples(py, &py->served.until_later);
    ps_served what = ps__py_serves(py, conn, &work->frame, work->began_ns, sampled);
    int error = ps__py_answer_with(py, conn, &work->frame, reply);
    ps__answer_is_over(py->engine, work->began_ns, outer);
    if (error == 0 && ps__py_notices(py))
        error = ps__py_tell_served(py, &what, work->object ? work->object : Py_None);
    py->served.is_later = outer_is_later;
    return error;
}

/* Whether somebody has waited for it goes to *waited. */
static int answer(ps_python *py, uint64_t handle, PyObject *reply, bool *waited)
{
    ps_work work;
    ps_conn *conn = ps__defer_done(py->engine, handle, &work);
    uint64_t outer_ns = py->began_ns;
    *waited = conn;
    py->began_ns = conn ? work.began_ns : 0;
    int error = conn ? answer_owed(py, conn, &work, reply) : ps__py_nobody_waits(py, reply);
    py->began_ns = outer_ns;
    Py_XDECREF((PyObject *)work.object);
    return error;
}

int ps__py_on_answer(void *context, uint64_t handle, void *reply)
{
    bool waited;
    return answer(context, handle, reply, &waited);
}

int ps__py_where(const ps_python *py)
{
    if (py->aside)
        return PS_ELSEWHERE;
    if (!py->is_guest)
        return ps__in_loop(py->engine) ? PS_IN_TURN : PS_ELSEWHERE;
    if (!py->raised || !pthread_equal(py->engine->thread, pthread_self()))
        return PS_ELSEWHERE;
    return __atomic_load_n(&py->engine->running, __ATOMIC_RELAXED) ? PS_IN_TURN : PS_BETWEEN_TURNS;
}

/* Where this is the loop's own thread: and whether somebody has waited. */
static int answer_here(ps_python *py, uint64_t handle, PyObject *reply, bool *waited)
{
    int where = ps__py_where(py);
    if (where == PS_ELSEWHERE)
        return where;
    if (where == PS_BETWEEN_TURNS)
        ps__guest_enter(py->engine, true);
    ps__fail(py->engine, answer(py, handle, reply, waited));
    if (where == PS_BETWEEN_TURNS)
        ps__guest_leave(py->engine);
    return where;
}

/* Of a call of an async handler. Whether a turn is wanted for it, and for no other before. */
bool ps__py_answer_of_call(ps_python *py, uint64_t handle, PyObject *reply)
{
    bool waited;
    if (answer_here(py, handle, reply, &waited) != PS_BETWEEN_TURNS || py->wants_turn)
        return false;
    py->wants_turn = true;
    return true;
}

/* Also where only a place is free, or a client was closed. */
bool ps__py_has_work(const ps_engine *engine)
{
    return engine->dirty != PS_NO_SLOT || engine->dead != PS_NO_SLOT || engine->fatal;
}

/* answer(handle, reply) -> the sum of 1: somebody has waited, or may; and 2: a turn is wanted; or -errno. */
PyObject *ps__py_inside_answer(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    ps_python *py = PyCapsule_GetPointer(self, NULL);
    uint64_t handle = count == 2 ? PyLong_AsUnsignedLongLong(args[0]) : 0;
    if (PyErr_Occurred())
        return NULL;
    bool waited = false;
    int result = count == 2 ? answer_here(py, handle, args[1], &waited) : PS_IN_TURN;
    if (result == PS_IN_TURN)
        return PyLong_FromLong(waited);
    if (result == PS_BETWEEN_TURNS)
        return PyLong_FromLong((waited ? 1 : 0) + (ps__py_has_work(py->engine) ? 2 : 0));
    result = ps__post_answer(py->engine, handle, Py_NewRef(args[1]));
    if (result < 0)
        Py_DECREF(args[1]);
    return PyLong_FromLong(result);
}
