/* batch.c: requests that wait for one another, and how a batch of them is answered by one call. */
#include <string.h>

#include "base/meter.h"
#include "base/sys.h"
#include "base/texts.h"
#include "python/python.h"

static bool make_room(service *s)
{
    if (s->waiting_count < s->waiting_room)
        return true;
    size_t room = s->waiting_room ? 2 * s->waiting_room : 64;
    waiting_request *waiting = ps_sys.resize(s->waiting, room * sizeof *waiting);
    if (!waiting)
        return false;
    s->waiting = waiting;
    s->waiting_room = room;
    return true;
}

int ps__py_add_to_batch(ps_python *py, service *s, ps_conn *conn, const ps_frame *frame, PyObject *request)
{
    if (!make_room(s)) {
        PyErr_NoMemory();
        return ps__py_failed(py, conn, frame);
    }
    if (!s->waiting_count)
        s->due_ns = py->engine->now_ns + s->max_wait_ns;
    s->waiting[s->waiting_count++] = (waiting_request){
        ps__pending_add(py->engine, conn, frame), Py_NewRef(object_of(conn)), Py_NewRef(request),
    };
    uint64_t due = s->waiting_count >= s->max_batch ? 0 : s->due_ns;
    if (due < py->engine->batch_due_ns)
        py->engine->batch_due_ns = due;
    return 0;
}

static void drop_waiting(const waiting_request *waiting)
{
    Py_DECREF(waiting->client);
    Py_DECREF(waiting->request);
}

/* Leave out what isn't to be started any more. */
static size_t drop_unwanted(ps_python *py, waiting_request *waiting, size_t count)
{
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        if (ps__pending_may_start(py->engine, &waiting[i].pending))
            waiting[left++] = waiting[i];
        else
            drop_waiting(&waiting[i]);
    }
    ps__pending_flush(py->engine);
    return left;
}

static PyObject *list_of(const waiting_request *waiting, size_t count, bool clients)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++)
        PyList_SET_ITEM(list, (Py_ssize_t)i, Py_NewRef(clients ? waiting[i].client : waiting[i].request));
    return list;
}

/* A sequence, but not of bytes or characters: bytes in the place of a list are one reply where there should be many. */
static bool is_list_like(PyObject *result)
{
    bool is_one = PyBytes_Check(result) || PyByteArray_Check(result) || PyMemoryView_Check(result) || PyUnicode_Check(result);
    return !is_one && PySequence_Check(result);
}

/* What the handler returned, as a tuple of our own with one reply for each request; NULL and an exception if it isn't. Not
 * as the handler's own list: whatever Python code runs before the last of them is answered may change that. */
static PyObject *call_batch(ps_python *py, const service *s, const waiting_request *waiting, size_t count)
{
    PyObject *clients = list_of(waiting, count, true), *requests = list_of(waiting, count, false);
    PyObject *result = NULL, *replies = NULL;
    if (clients && requests)
        result = ps__py_call_afresh(py, s->handler, clients, requests);
    Py_XDECREF(clients);
    Py_XDECREF(requests);
    if (!result)
        return NULL;
    if (!is_list_like(result))
        PyErr_Format(PyExc_TypeError, PS_TEXT_NO_SEQUENCE, Py_TYPE(result)->tp_name);
    else
        replies = PySequence_Tuple(result);
    Py_DECREF(result);
    if (replies && PyTuple_GET_SIZE(replies) != (Py_ssize_t)count) {
        PyErr_Format(PyExc_ValueError, PS_TEXT_WRONG_COUNT, PyTuple_GET_SIZE(replies), count);
        Py_CLEAR(replies);
    }
    return replies;
}

static int nobody_is_owed(ps_python *py, const ps_frame *frame, PyObject *reply)
{
    ps_meter *meter = py->engine->meter;
    if (meter) {
        ps__meter_gone(meter, frame->code);
        ps__meter_later(meter, frame);
    }
    return reply ? ps__py_nobody_waits(py, reply) : 0;
}

/* Answer one request; exception: what failed the whole batch, or NULL. */
static int answer_waiting(ps_python *py, const waiting_request *waiting, PyObject *reply, PyObject *exception)
{
    const ps_frame *frame = &waiting->pending.frame;
    ps_conn *conn = ps__pending_done(py->engine, &waiting->pending);
    if (!conn) /* the handler, or its own reply, ended it; or nobody is owed this one any more */
        return nobody_is_owed(py, frame, reply);
    bool sampled = ps__py_samples(py, &py->served.until_later);
    if (!py->served.batch_ns || (!sampled && py->served.slow_ns == UINT64_MAX))
        return ps__py_answer_with(py, conn, frame, reply ? reply : exception);
    ps_served what = ps__py_serves(py, conn, frame, py->began_ns, sampled);
    what.began_ns = py->served.batch_ns;
    int error = ps__py_answer_with(py, conn, frame, reply ? reply : exception);
    return error ? error : ps__py_tell_served(py, &what, NULL);
}

static int answer_measured(ps_python *py, const waiting_request *waiting, PyObject *reply, PyObject *exception)
{
    ps_meter *meter = py->engine->meter;
    uint64_t began_ns = py->began_ns;
    ps__meter_answering(meter, &waiting->pending.frame);
    int error = answer_waiting(py, waiting, reply, exception);
    ps__meter_answered(meter, began_ns, meter->answered_ns);
    return error;
}

/* The call of the handler began then: when it is to be told of, for it was slow or somebody looks on; or 0. */
static uint64_t noticed(const ps_python *py, uint64_t began_ns)
{
    return began_ns && ps__now_ns() - began_ns >= py->served.least_ns ? began_ns : 0;
}

static int run_slice(ps_python *py, service *s, const waiting_request *waiting, size_t count)
{
    uint64_t began = ps__tick_ns(), called_ns = ps__py_notices(py) ? ps__now_ns() : 0;
    PyObject *replies = call_batch(py, s, waiting, count), *exception = NULL;
    ps__py_took(py, s, ps__tick_ns() - began);
    int error = 0;
    if (!replies && !PyErr_ExceptionMatches(PyExc_Exception))
        return ps__py_hand_over(py->raised);
    if (!replies)
        exception = ps__py_take_exception();
    py->began_ns = s->due_ns - s->max_wait_ns;
    py->served.batch_ns = noticed(py, called_ns);
    ps_meter *meter = py->engine->meter;
    if (meter)
        meter->answered_ns = ps__now_ns();
    for (size_t i = 0; i < count && error == 0; i++)
        error = (meter ? answer_measured : answer_waiting)(
            py, &waiting[i], replies ? PyTuple_GET_ITEM(replies, (Py_ssize_t)i) : NULL, exception);
    py->began_ns = 0;
    ps__pending_flush(py->engine);
    Py_XDECREF(replies);
    Py_XDECREF(exception);
    return error;
}

/* Full batches; and the rest too, if it has waited for long enough or `whole` asks for it. */
static int run_batch(ps_python *py, service *s, bool whole)
{
    waiting_request *waiting = s->waiting;
    size_t all = s->waiting_count, room = s->waiting_room, last = whole ? all : all - all % s->max_batch;
    int error = 0;
    s->waiting = NULL; /* nothing is waiting while handlers run */
    s->waiting_count = s->waiting_room = 0;
    for (size_t at = 0; at < last; at += s->max_batch) {
        size_t count = last - at < s->max_batch ? last - at : s->max_batch;
        count = drop_unwanted(py, waiting + at, count); /* now: the slice before may have closed some */
        if (count && error == 0)
            error = run_slice(py, s, waiting + at, count);
        for (size_t i = 0; i < count; i++)
            drop_waiting(&waiting[at + i]);
    }
    if (last == all) {
        ps__free(waiting);
        return error;
    }
    memmove(waiting, waiting + last, (all - last) * sizeof *waiting);
    s->waiting = waiting;
    s->waiting_room = room;
    s->waiting_count = all - last;
    s->due_ns = py->engine->now_ns + s->max_wait_ns; /* they came in this turn: what was older was at the front */
    return error;
}

int ps__py_on_batches(void *context, bool all, uint64_t *due_ns)
{
    ps_python *py = context;
    uint64_t next = UINT64_MAX, now = py->engine->now_ns;
    int error = 0;
    *due_ns = UINT64_MAX;
    for (uint32_t i = 0; i < py->service_count && error == 0; i++) {
        service *s = &py->services[i];
        bool whole = all || s->due_ns <= now;
        if (s->waiting_count && (whole || s->waiting_count >= s->max_batch))
            error = run_batch(py, s, whole);
        if (s->waiting_count && s->due_ns < next)
            next = s->due_ns;
    }
    if (next < *due_ns)
        *due_ns = next;
    return error;
}
