/* inside.c: what handlers call: push, broadcast and disconnect in the loop's own thread; from answer.c, what answers later;
 * and, from guest.c, what a loop of the program's calls. And what is called in the loop for others: once, or whenever a
 * descriptor of theirs is ready.
 *
 * A push, a broadcast or a disconnect in the loop's own thread may reach hooks, and hooks are called with the GIL held: so
 * these are no functions of the ABI, around which cffi lets the GIL go. That also spares a handler the wait for it beside
 * a thread that computes. */
#include <errno.h>

#include "base/texts.h"
#include "conn/dismiss.h"
#include "loop/command.h"
#include "loop/guest.h"
#include "python/python.h"
#include "table/deferred.h"
#include "table/table.h"

static ps_engine *engine_of(PyObject *self)
{
    return ((ps_python *)PyCapsule_GetPointer(self, NULL))->engine;
}

static PyObject *inside_push(PyObject *self, PyObject *args)
{
    unsigned long long id;
    Py_buffer view;
    if (!PyArg_ParseTuple(args, "Ky*", &id, &view))
        return NULL;
    size_t size = (size_t)view.len;
    int result = ps_engine_push(engine_of(self), id, view.buf, size);
    PyBuffer_Release(&view);
    if (result != -EMSGSIZE)
        return PyBool_FromLong(result > 0);
    ps_python *py = PyCapsule_GetPointer(self, NULL);
    return PyErr_Format(py->frame_too_large, PS_TEXT_PUSH_TOO_LARGE, size);
}

static PyObject *inside_broadcast(PyObject *self, PyObject *args)
{
    Py_buffer view;
    if (!PyArg_ParseTuple(args, "y*", &view))
        return NULL;
    int64_t reached = ps_engine_broadcast(engine_of(self), view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return reached < 0 ? PyErr_NoMemory() : PyLong_FromLongLong(reached);
}

static PyObject *inside_push_to(PyObject *self, PyObject *args)
{
    Py_buffer ids, view;
    if (!PyArg_ParseTuple(args, "y*y*", &ids, &view))
        return NULL;
    size_t count = (size_t)ids.len / sizeof(uint64_t);
    int64_t reached = ps_engine_push_to(engine_of(self), ids.buf, count, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    PyBuffer_Release(&ids);
    return reached < 0 ? PyErr_NoMemory() : PyLong_FromLongLong(reached);
}

static PyObject *select_into(ps_engine *engine, const ps_selection *wanted)
{
    ps_stats stats;
    ps_engine_stats(engine, &stats);
    size_t room = wanted->among ? wanted->count : (size_t)stats.clients + 64; /* a few may come in meanwhile */
    PyObject *ids = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(room * sizeof(uint64_t)));
    if (!ids)
        return NULL;
    size_t count = ps_engine_select(engine, wanted, (uint64_t *)(void *)PyBytes_AS_STRING(ids), room);
    _PyBytes_Resize(&ids, (Py_ssize_t)(count * sizeof(uint64_t)));
    return ids;
}

/* select(name, uid, among, but): of a pattern in UTF-8, or None; and of ids, or None. */
static PyObject *inside_select(PyObject *self, PyObject *args)
{
    Py_buffer name, among;
    long long uid;
    unsigned long long but;
    if (!PyArg_ParseTuple(args, "z*Lz*K", &name, &uid, &among, &but))
        return NULL;
    const ps_selection wanted = {.name = name.buf, .name_size = (size_t)name.len, .among = among.buf,
                                 .count = (size_t)among.len / sizeof(uint64_t), .uid = uid, .but = but};
    PyObject *ids = select_into(engine_of(self), &wanted);
    PyBuffer_Release(&name);
    PyBuffer_Release(&among);
    return ids;
}

static PyObject *inside_disconnect(PyObject *self, PyObject *args)
{
    unsigned long long id;
    int replaced = 0;
    if (!PyArg_ParseTuple(args, "K|p", &id, &replaced))
        return NULL;
    if (!replaced)
        return PyBool_FromLong(ps_engine_disconnect(engine_of(self), id) > 0);
    ps_conn *conn = ps__table_find(&engine_of(self)->table, id);
    if (conn && ps__is_packed(conn))
        conn = NULL;
    if (conn)
        ps__dismiss(engine_of(self), conn, PS_END_REPLACED, 0, NULL);
    return PyBool_FromLong(conn != NULL);
}

/* ask(client_id, frame, size of the request in it) -> the sum of 1: sent, or left to the loop; and 2: a turn is wanted; or
 * -errno. From any thread. */
static PyObject *inside_ask(PyObject *self, PyObject *args)
{
    ps_python *py = PyCapsule_GetPointer(self, NULL);
    unsigned long long id;
    Py_buffer view;
    Py_ssize_t request;
    if (!PyArg_ParseTuple(args, "Ky*n", &id, &view, &request))
        return NULL;
    bool between = ps__py_where(py) == PS_BETWEEN_TURNS;
    if (between)
        ps__guest_enter(py->engine, true);
    int result = ps__engine_ask(py->engine, id, view.buf, (size_t)view.len, (size_t)request);
    if (between)
        ps__guest_leave(py->engine);
    PyBuffer_Release(&view);
    return PyLong_FromLong(result >= 0 && between && ps__py_has_work(py->engine) ? result + 2 : result);
}

static PyObject *row_of_request(uint64_t client_id, const ps_frame *frame)
{
    return Py_BuildValue("KIHdN", (unsigned long long)client_id, (unsigned)frame->request_id, (unsigned short)frame->code,
                         (double)frame->deadline_ns / 1e9, PyBool_FromLong(!(frame->flags & PS_NO_REPLY)));
}

/* current() -> (client_id, request_id, service, deadline, wants_reply), or None where no handler runs. */
static PyObject *inside_current(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    ps_python *py = PyCapsule_GetPointer(self, NULL);
    return py->request ? row_of_request(ps__id(py->client), py->request) : Py_NewRef(Py_None);
}

/* waiting(handle) -> the same, or None where it is over. */
static PyObject *inside_waiting(PyObject *self, PyObject *number)
{
    uint64_t handle = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred())
        return NULL;
    const ps_deferred *record = ps__deferred_find(engine_of(self), handle);
    return record ? row_of_request(record->pending.client_id, &record->pending.frame) : Py_NewRef(Py_None);
}

static PyObject *inside_later(PyObject *self, PyObject *function)
{
    int result = ps__post_call(engine_of(self), Py_NewRef(function));
    if (result < 0)
        Py_DECREF(function);
    return PyLong_FromLong(result < 0 ? result : 0);
}

/* -- what is called for them ---------------------------------------------------------------------------------------- */

int ps__py_on_call(void *context, void *function)
{
    ps_python *py = context;
    ps__py_leave_variables(py);
    PyObject *result = PyObject_CallNoArgs(function);
    if (!result && !PyErr_ExceptionMatches(PyExc_Exception))
        return ps__py_hand_over(py->raised);
    if (!result)
        PyErr_WriteUnraisable(function);
    Py_XDECREF(result);
    return 0;
}

int ps__py_on_watched(void *context, int fd)
{
    ps_python *py = context;
    PyObject *number = PyLong_FromLong(fd), *function = number ? PyDict_GetItemWithError(py->watched, number) : NULL;
    Py_XDECREF(number);
    if (!function) {
        PyErr_Clear(); /* an event from before it was given up; or there is no memory: it will be told again */
        return 0;
    }
    Py_INCREF(function);
    int error = ps__py_on_call(py, function);
    Py_DECREF(function);
    return error;
}

/* The poll has it under the same key as long as it is in the dict. 0 or -errno; -1 and an exception. */
static int watch(ps_python *py, int fd, PyObject *number, PyObject *function, unsigned interest)
{
    ps_engine *engine = py->engine;
    int known = PyDict_Contains(py->watched, number);
    if (known < 0 || (function == Py_None && !known))
        return known;
    if (function == Py_None)
        return PyDict_DelItem(py->watched, number) < 0 ? -1 : engine->poll->remove(engine->poll_handle, fd);
    uint64_t key = PS_WATCH_KEY + (uint64_t)fd;
    if (PyDict_SetItem(py->watched, number, function) < 0)
        return -1;
    int error = known ? engine->poll->change(engine->poll_handle, fd, key, interest)
                      : engine->poll->add(engine->poll_handle, fd, key, interest);
    return error < 0 && !known && PyDict_DelItem(py->watched, number) < 0 ? -1 : error;
}

/* watch(fd, function or None, writes) -> 0 or -errno. */
static PyObject *inside_watch(PyObject *self, PyObject *args)
{
    ps_python *py = PyCapsule_GetPointer(self, NULL);
    int fd, writes;
    PyObject *function;
    if (!PyArg_ParseTuple(args, "iOp", &fd, &function, &writes))
        return NULL;
    PyObject *number = PyLong_FromLong(fd);
    if (number && !py->watched)
        py->watched = PyDict_New();
    int error = number && py->watched ? watch(py, fd, number, function, PS_POLL_IN | (writes ? PS_POLL_OUT : 0u)) : -1;
    Py_XDECREF(number);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(error);
}

/* -- for Python ---------------------------------------------------------------------------------------------------- */

static PyMethodDef inside_methods[] = {
    {"push", inside_push, METH_VARARGS, NULL},
    {"broadcast", inside_broadcast, METH_VARARGS, NULL},
    {"push_to", inside_push_to, METH_VARARGS, NULL},
    {"select", inside_select, METH_VARARGS, NULL},
    {"disconnect", inside_disconnect, METH_VARARGS, NULL},
    {"answer", (PyCFunction)(void (*)(void))ps__py_inside_answer, METH_FASTCALL, NULL},
    {"current", inside_current, METH_NOARGS, NULL},
    {"waiting", inside_waiting, METH_O, NULL},
    {"ask", inside_ask, METH_VARARGS, NULL},
    {"more", (PyCFunction)(void (*)(void))ps__py_inside_more, METH_FASTCALL, NULL},
    {"later", inside_later, METH_O, NULL},
    {"watch", inside_watch, METH_VARARGS, NULL},
    {"secure", ps__py_inside_secure, METH_VARARGS, NULL},
    {"notice", ps__py_inside_notice, METH_VARARGS, NULL},
    {"moving", ps__py_inside_moving, METH_NOARGS, NULL},
    {"begin", ps__py_guest_begin, METH_VARARGS, NULL},
    {"poll_fd", ps__py_guest_poll_fd, METH_NOARGS, NULL},
    {"turn", ps__py_guest_turn, METH_NOARGS, NULL},
    {"end", ps__py_guest_end, METH_NOARGS, NULL},
};

static int append_method(PyObject *list, PyMethodDef *method, PyObject *self)
{
    PyObject *function = PyCFunction_New(method, self);
    int error = function ? PyList_Append(list, function) : -1;
    Py_XDECREF(function);
    return error;
}

int ps_python_inside(ps_python *py, uintptr_t list)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *self = PyCapsule_New(py, NULL, NULL);
    int error = self ? 0 : -1;
    for (size_t i = 0; error == 0 && i < sizeof inside_methods / sizeof *inside_methods; i++)
        error = append_method((PyObject *)list, &inside_methods[i], self);
    if (error == 0)
        PyCapsule_SetDestructor(self, py->destroy);
    Py_XDECREF(self);
    PyErr_Clear();
    PyGILState_Release(gil);
    return error ? -ENOMEM : 0;
}
