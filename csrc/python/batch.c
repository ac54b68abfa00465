/* batch.c: requests that wait for one another, and how a batch of them is answered by one call. */
#include <string.h>

#include "conn/output.h"
#include "conn/rules.h"
#include "python/python.h"
#include "table/table.h"

static bool make_room(service *s)
{
    if (s->kept_count < s->kept_room)
        return true;
    size_t room = s->kept_room ? 2 * s->kept_room : 64;
    kept_request *kept = ps_sys.resize(s->kept, room * sizeof *kept);
    if (!kept)
        return false;
    s->kept = kept;
    s->kept_room = room;
    return true;
}

int ps__py_keep(ps_python *py, service *s, ps_conn *conn, const ps_frame *frame, PyObject *request)
{
    if (!make_room(s)) {
        PyErr_NoMemory();
        return ps__py_failed(py, conn, frame);
    }
    if (!s->kept_count)
        s->due_ns = py->engine->now_ns + s->max_wait_ns;
    s->kept[s->kept_count++] = (kept_request){ps__id(conn), *frame, Py_NewRef(object_of(conn)), Py_NewRef(request)};
    uint64_t due = s->kept_count >= s->max_batch ? 0 : s->due_ns;
    if (due < py->engine->batch_due_ns)
        py->engine->batch_due_ns = due;
    ps__kept(py->engine, conn, frame->size);
    return 0;
}

static void drop_kept(const kept_request *kept)
{
    Py_DECREF(kept->client);
    Py_DECREF(kept->request);
}

/* Leave out the requests of clients that have gone. */
static size_t drop_orphans(ps_python *py, kept_request *kept, size_t count)
{
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        if (ps__table_find(&py->engine->table, kept[i].client_id))
            kept[left++] = kept[i];
        else
            drop_kept(&kept[i]);
    }
    return left;
}

static PyObject *list_of(const kept_request *kept, size_t count, bool clients)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++)
        PyList_SET_ITEM(list, (Py_ssize_t)i, Py_NewRef(clients ? kept[i].client : kept[i].request));
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
static PyObject *call_batch(ps_python *py, const service *s, const kept_request *kept, size_t count)
{
    PyObject *clients = list_of(kept, count, true), *requests = list_of(kept, count, false);
    PyObject *result = NULL, *replies = NULL;
    if (clients && requests)
        result = ps__py_call_afresh(py, s->handler, clients, requests);
    Py_XDECREF(clients);
    Py_XDECREF(requests);
    if (!result)
        return NULL;
    if (!is_list_like(result))
        PyErr_Format(PyExc_TypeError, "the batch handler returned %.200s, not a sequence with one reply per request",
                     Py_TYPE(result)->tp_name);
    else
        replies = PySequence_Tuple(result);
    Py_DECREF(result);
    if (replies && PyTuple_GET_SIZE(replies) != (Py_ssize_t)count) {
        PyErr_Format(PyExc_ValueError, "the batch handler returned %zd replies for %zu requests",
                     PyTuple_GET_SIZE(replies), count);
        Py_CLEAR(replies);
    }
    return replies;
}

/* Answer one request; exception: what failed the whole batch, or NULL. */
static int answer_kept(ps_python *py, const kept_request *kept, PyObject *reply, PyObject *exception)
{
    ps_engine *engine = py->engine;
    ps_conn *conn = ps__table_find(&engine->table, kept->client_id);
    if (!conn)
        return 0; /* the handler, or its own reply, ended it */
    if (engine->out_conn != conn) {
        if (engine->out_conn)
            ps__output_end(engine, engine->out_conn);
        ps__output_begin(engine, conn);
    }
    ps__not_kept(engine, conn, kept->frame.size);
    if (conn->flags & PS_IS_BROKEN)
        return 0;
    if (reply && !PyType_IsSubtype(Py_TYPE(reply), (PyTypeObject *)PyExc_Exception))
        return ps__py_answer(py, conn, &kept->frame, reply);
    if (reply) /* an exception in the place of a reply: this one request failed */
        exception = reply;
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    return ps__py_failed(py, conn, &kept->frame);
}

static int run_slice(ps_python *py, const service *s, const kept_request *kept, size_t count)
{
    PyObject *replies = call_batch(py, s, kept, count), *exception = NULL;
    int error = 0;
    if (!replies && !PyErr_ExceptionMatches(PyExc_Exception))
        return ps__py_hand_over(py->raised);
    if (!replies)
        exception = ps__py_take_exception();
    for (size_t i = 0; i < count && error == 0; i++)
        error = answer_kept(py, &kept[i], replies ? PyTuple_GET_ITEM(replies, (Py_ssize_t)i) : NULL, exception);
    if (py->engine->out_conn)
        ps__output_end(py->engine, py->engine->out_conn);
    Py_XDECREF(replies);
    Py_XDECREF(exception);
    return error;
}

/* Full batches; and the rest too, if it has waited for long enough or `whole` asks for it. */
static int run_batch(ps_python *py, service *s, bool whole)
{
    kept_request *kept = s->kept;
    size_t all = s->kept_count, room = s->kept_room, last = whole ? all : all - all % s->max_batch;
    int error = 0;
    s->kept = NULL; /* nothing is kept while handlers run */
    s->kept_count = s->kept_room = 0;
    for (size_t at = 0; at < last; at += s->max_batch) {
        size_t count = last - at < s->max_batch ? last - at : s->max_batch;
        count = drop_orphans(py, kept + at, count); /* now: the slice before may have closed some */
        if (count && error == 0)
            error = run_slice(py, s, kept + at, count);
        for (size_t i = 0; i < count; i++)
            drop_kept(&kept[at + i]);
    }
    if (last == all) {
        ps__free(kept);
        return error;
    }
    memmove(kept, kept + last, (all - last) * sizeof *kept);
    s->kept = kept;
    s->kept_room = room;
    s->kept_count = all - last;
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
        if (s->kept_count && (whole || s->kept_count >= s->max_batch))
            error = run_batch(py, s, whole);
        if (s->kept_count && s->due_ns < next)
            next = s->due_ns;
    }
    if (next < *due_ns)
        *due_ns = next;
    return error;
}
