/* stream.c: handlers that answer in pieces.
 *
 * Of a plain generator the loop takes the pieces itself: it steps it in C, in the context of its client, and closes it when
 * nobody wants more. Its record keeps a pair: the iterator, and what Python keeps of the client. Everything else, a task or
 * a worker, sends its pieces by a call, and is told when it may go on: its record keeps an object of the facade's. */
#include <errno.h>

#include "base/sys.h"
#include "base/texts.h"
#include "conn/defer.h"
#include "conn/stream.h"
#include "loop/command.h"
#include "loop/guest.h"
#include "python/python.h"
#include "table/table.h"

/* Pieces of one stream in a row, and bytes; then it is the next one's turn. */
enum { STEPS_MAX = 16, STEP_BYTES_MAX = 64 * 1024 };

/* -- one piece ----------------------------------------------------------------------------------------------------- */

/* As bytes of its own, a new reference; NULL and an exception. */
static PyObject *bytes_of(PyObject *piece)
{
    if (PyBytes_CheckExact(piece))
        return Py_NewRef(piece);
    if (PyObject_CheckBuffer(piece))
        return PyBytes_FromObject(piece);
    PyErr_Format(PyExc_TypeError, PS_TEXT_PIECE_NOT_BYTES, Py_TYPE(piece)->tp_name,
                 PyUnicode_Check(piece) ? PS_TEXT_ENCODE : "");
    return NULL;
}

/* 1: more may follow now, 0: not now; -1: nobody waits, or an exception is set: it can't be sent. */
static int send_piece(ps_python *py, uint64_t handle, PyObject *piece, uint64_t most)
{
    ps_deferred *record = ps__deferred_find(py->engine, handle);
    if (!record || !record->is_stream || record->is_answered || record->why)
        return -1;
    PyObject *bytes = bytes_of(piece);
    if (!bytes)
        return -1;
    record = ps__deferred_find(py->engine, handle); /* what a buffer does may be anything */
    ps_conn *conn = record ? ps__table_find(&py->engine->table, record->pending.client_id) : NULL;
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);
    int result = -1;
    if (conn && size > conn->max_reply)
        PyErr_Format(py->frame_too_large, PS_TEXT_REPLY_TOO_LARGE, size, (unsigned)conn->max_reply);
    else if (conn)
        result = ps__stream_send(py->engine, conn, record, PyBytes_AS_STRING(bytes), size, bytes, most);
    Py_DECREF(bytes);
    return result;
}

/* -- those that the loop asks -------------------------------------------------------------------------------------- */

/* What it raises is logged, and none of its client's: that has had its answer, or will have another one. */
static int close_iterator(ps_python *py, PyObject *pair, uint64_t client_id, const ps_frame *frame)
{
    PyObject *iterator = PyTuple_GET_ITEM(pair, 0), *close = NULL, *done = NULL;
    if (ps__py_enter_variables(py, PyTuple_GET_ITEM(PyTuple_GET_ITEM(pair, 1), 1)) == 0)
        close = PyObject_GetAttrString(iterator, "close");
    py->handles = true;
    if (close)
        done = PyObject_CallNoArgs(close);
    else if (PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Clear(); /* an iterator that isn't a generator */
    py->handles = false;
    Py_XDECREF(close);
    Py_XDECREF(done);
    return PyErr_Occurred() ? ps__py_log_failure(py, client_id, frame) : 0;
}

/* pysock.current() knows the request meanwhile. */
typedef struct outer {
    const ps_conn *client;
    const ps_frame *request;
} outer;

static outer begin_current(ps_python *py, const ps_conn *conn, const ps_frame *frame)
{
    outer before = {py->client, py->request};
    py->client = conn;
    py->request = conn ? frame : NULL;
    return before;
}

static void end_current(ps_python *py, outer before)
{
    py->client = before.client;
    py->request = before.request;
}

/* Nobody wants more of it. */
int ps__py_on_close(void *context, ps_conn *conn, const ps_frame *frame, void *pair)
{
    ps_python *py = context;
    outer before = begin_current(py, conn, frame);
    int error = close_iterator(py, pair, conn ? ps__id(conn) : 0, frame);
    end_current(py, before);
    return error;
}

static PySendResult next_piece(ps_python *py, PyObject *pair, PyObject **piece)
{
    *piece = NULL;
    if (ps__py_enter_variables(py, PyTuple_GET_ITEM(PyTuple_GET_ITEM(pair, 1), 1)) < 0)
        return PYGEN_ERROR;
    py->handles = true;
    PySendResult status = PyIter_Send(PyTuple_GET_ITEM(pair, 0), Py_None, piece);
    py->handles = false;
    return status;
}

static int answer_stream(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *last)
{
    ps_measuring around = ps__answer_begins(py->engine, frame);
    ps_served what = ps__py_serves(py, conn, frame, py->began_ns, ps__py_samples(py, &py->served.until_later));
    int error = last ? ps__py_answer(py, conn, frame, last) : ps__py_failed(py, conn, frame);
    ps__answer_is_over(py->engine, py->began_ns, around);
    return error || !ps__py_notices(py) ? error : ps__py_tell_served(py, &what, Py_None);
}

/* It has returned its last piece, or raised what is set as an exception. */
static int stream_ended(ps_python *py, uint64_t handle, const ps_frame *frame, PyObject *last)
{
    ps_work work = {.began_ns = 0};
    ps_conn *conn = ps__defer_done(py->engine, handle, &work);
    uint64_t outer_ns = py->began_ns;
    int error = 0;
    py->began_ns = work.began_ns;
    if (conn)
        error = answer_stream(py, conn, frame, last);
    else if (!last)
        error = ps__py_log_failure(py, ps__id(py->client), frame);
    py->began_ns = outer_ns;
    Py_XDECREF((PyObject *)work.object);
    return error;
}

/* A piece can't be sent: an exception is set. */
static int broken_off(ps_python *py, PyObject *pair, uint64_t handle, const ps_frame *frame)
{
    PyObject *exception = ps__py_take_exception();
    int error = close_iterator(py, pair, ps__id(py->client), frame);
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
    int ended = stream_ended(py, handle, frame, NULL);
    return error < 0 ? error : ended;
}

/* Of a generator that takes its time it is one or two: after those, and after the 4th and the 8th, it is looked at the clock. */
static bool takes_long(unsigned taken, uint64_t until_ns)
{
    return (taken & (taken - 1)) == 0 && ps__now_ns() >= until_ns;
}

static int take_pieces_of(ps_python *py, PyObject *pair, uint64_t handle, const ps_frame *frame, uint64_t until_ns)
{
    size_t bytes = 0;
    for (unsigned steps = 0; steps < STEPS_MAX && bytes < STEP_BYTES_MAX; steps++) {
        PyObject *piece;
        PySendResult status = next_piece(py, pair, &piece);
        if (status != PYGEN_NEXT) {
            int error = stream_ended(py, handle, frame, piece);
            Py_XDECREF(piece);
            return error;
        }
        bytes += PyBytes_Check(piece) ? (size_t)PyBytes_GET_SIZE(piece) : 0;
        int result = send_piece(py, handle, piece, STEP_BYTES_MAX);
        Py_DECREF(piece);
        if (result < 0 && PyErr_Occurred())
            return broken_off(py, pair, handle, frame);
        if (result <= 0 || takes_long(steps + 1, until_ns))
            return 0;
    }
    return 0;
}

int ps__py_on_pull(void *context, ps_conn *conn, uint64_t handle, void *pair, uint64_t until_ns)
{
    ps_python *py = context;
    const ps_frame frame = ps__deferred_find(py->engine, handle)->pending.frame;
    outer before = begin_current(py, conn, &frame);
    Py_INCREF((PyObject *)pair);
    uint64_t began = ps__tick_ns();
    int error = take_pieces_of(py, pair, handle, &frame, until_ns);
    ps__py_took(py, &py->services[frame.code], ps__tick_ns() - began);
    Py_DECREF((PyObject *)pair);
    end_current(py, before);
    return error;
}

/* NULL and an exception: it is none, or there is no memory. */
static PyObject *pair_of(const ps_conn *conn, PyObject *result)
{
    PyObject *iterator = PyUnicode_Check(result) ? NULL : PyObject_GetIter(result);
    PyObject *pair = iterator ? PyTuple_Pack(2, iterator, (PyObject *)conn->object) : NULL;
    Py_XDECREF(iterator);
    return pair;
}

/* What its handler returned: an iterator, or what sends the pieces itself; or it is the whole answer. */
int ps__py_begin_stream(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *result)
{
    bool is_whole = result == Py_None || PyObject_CheckBuffer(result) || PyUnicode_Check(result);
    int error = is_whole || PyGen_CheckExact(result) ? 1 : ps__py_defer(py, conn, frame, result);
    if (error != 1)
        return error;
    PyObject *pair = is_whole ? NULL : pair_of(conn, result);
    if (!pair && !is_whole && !PyErr_ExceptionMatches(PyExc_TypeError))
        return ps__py_failed(py, conn, frame);
    if (!pair) {
        PyErr_Clear(); /* then it is said what it is not */
        return ps__py_answer(py, conn, frame, result);
    }
    uint64_t handle = conn->state == PS_CONN_CLOSED ? 0 : ps__defer(py->engine, conn, frame);
    if (handle) {
        ps__defer_keep(py->engine, handle, pair);
        ps__py_describe(py, handle);
        ps__stream_pull(py->engine, handle);
        py->served.is_later = true;
        return 0;
    }
    Py_DECREF(pair); /* a generator that hasn't begun needs no close */
    if (conn->state == PS_CONN_CLOSED)
        return 0;
    PyErr_NoMemory();
    return ps__py_failed(py, conn, frame);
}

/* -- those that send by themselves --------------------------------------------------------------------------------- */

/* As send_piece; what is wrong with it is told. *error: what ends the loop. */
static int more(ps_python *py, uint64_t handle, PyObject *piece, uint64_t most, int *error)
{
    int result = send_piece(py, handle, piece, most);
    if (result >= 0 || !PyErr_Occurred())
        return result;
    const ps_deferred *record = ps__deferred_find(py->engine, handle);
    if (!record) {
        PyErr_Clear();
        return -1;
    }
    const ps_frame frame = record->pending.frame;
    uint64_t outer_ns = py->began_ns;
    py->began_ns = record->began_ns;
    *error = ps__py_failed(py, ps__table_find(&py->engine->table, record->pending.client_id), &frame);
    py->began_ns = outer_ns;
    ps__defer_fail(py->engine, handle);
    return -1;
}

/* Of another thread's. That counts itself, and doesn't know that the client doesn't take what is sent. */
int ps__py_on_more(void *context, uint64_t handle, void *piece)
{
    ps_python *py = context;
    int error = 0;
    more(py, handle, piece, py->engine->options.limits.output_pause, &error);
    ps__stream_seen(py->engine, handle);
    return error;
}

static int want_turn(ps_python *py)
{
    if (py->wants_turn || !py->want)
        return 0;
    py->wants_turn = true;
    PyObject *done = PyObject_CallNoArgs(py->want);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static PyObject *post_more(ps_python *py, uint64_t handle, PyObject *piece)
{
    PyObject *kept = PyObject_CheckBuffer(piece) ? bytes_of(piece) : Py_NewRef(piece); /* what it isn't the loop says */
    if (!kept)
        return NULL;
    int posted = ps__post_more(py->engine, handle, kept);
    if (posted < 0)
        Py_DECREF(kept);
    return PyLong_FromLong(posted);
}

/* more(handle, piece) -> 1: more may follow now; 0: not before flow says so; -1: nobody waits. In another thread than the
 * loop's, which has to count itself: 1 or -errno. */
PyObject *ps__py_inside_more(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    ps_python *py = PyCapsule_GetPointer(self, NULL);
    uint64_t handle = count == 2 ? PyLong_AsUnsignedLongLong(args[0]) : 0;
    if (PyErr_Occurred() || count != 2)
        return PyErr_Occurred() ? NULL : PyLong_FromLong(-EINVAL);
    int where = ps__py_where(py), error = 0;
    if (where == PS_ELSEWHERE)
        return post_more(py, handle, args[1]);
    if (where == PS_BETWEEN_TURNS)
        ps__guest_enter(py->engine, !py->wants_turn);
    int result = more(py, handle, args[1], STEP_BYTES_MAX, &error);
    ps__fail(py->engine, error);
    if (where == PS_BETWEEN_TURNS)
        ps__guest_leave(py->engine);
    return where == PS_BETWEEN_TURNS && want_turn(py) < 0 ? NULL : PyLong_FromLong(result);
}
