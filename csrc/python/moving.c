/* moving.c: what moves clients to another process, and takes them from one. It may reach hooks, and those are called with the
 * GIL held: so these are no functions of the ABI, around which cffi lets the GIL go. They are made where somebody asks. */
#include <errno.h>

#include "base/sys.h"
#include "loop/accept.h"
#include "loop/guest.h"
#include "moving/add.h"
#include "moving/hold.h"
#include "moving/pack.h"
#include "python/python.h"
#include "table/table.h"

/* In the loop's thread, within a turn or not; or before there is a loop. */
static int begin_moving(ps_python *py)
{
    int where = ps__py_where(py);
    if (where == PS_BETWEEN_TURNS)
        ps__guest_enter(py->engine, true);
    else if (where == PS_ELSEWHERE)
        py->engine->inside = true;
    py->engine->now_ns = ps__now_ns();
    return where;
}

static void end_moving(ps_python *py, int where)
{
    if (where == PS_BETWEEN_TURNS)
        ps__guest_leave(py->engine);
    else if (where == PS_ELSEWHERE)
        py->engine->inside = false;
}

static ps_python *mover_of(PyObject *self)
{
    return PyCapsule_GetPointer(self, NULL);
}

static PyObject *list_of_ids(const uint64_t *ids, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *id = PyLong_FromUnsignedLongLong(ids[i]);
        if (!id)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, id);
    }
    return list;
}

static PyObject *moving_freeze(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    int where = begin_moving(mover_of(self));
    ps__freeze(mover_of(self)->engine);
    end_moving(mover_of(self), where);
    Py_RETURN_NONE;
}

/* hold(ids as bytes, the least first) -> a list of ids. */
static PyObject *moving_hold(PyObject *self, PyObject *args)
{
    ps_engine *engine = mover_of(self)->engine;
    Py_buffer but;
    if (!PyArg_ParseTuple(args, "y*", &but))
        return NULL;
    uint64_t *ids = ps_sys.allocate(engine->table.used * sizeof *ids + 1);
    PyObject *list = ids ? NULL : PyErr_NoMemory();
    if (ids) {
        int where = begin_moving(mover_of(self));
        size_t held = ps__hold(engine, but.buf, (size_t)but.len / sizeof *ids, ids);
        end_moving(mover_of(self), where);
        list = list_of_ids(ids, held);
    }
    ps__free(ids);
    PyBuffer_Release(&but);
    return list;
}

static PyObject *packed_of(const ps_packed *packed)
{
    PyObject *fds = PyList_New((Py_ssize_t)packed->count);
    for (size_t i = 0; fds && i < packed->count; i++) {
        PyObject *fd = PyLong_FromLong(packed->fds[i]);
        if (!fd)
            Py_CLEAR(fds);
        else
            PyList_SET_ITEM(fds, (Py_ssize_t)i, fd);
    }
    return fds ? Py_BuildValue("y#N", packed->data ? (const char *)packed->data : "", (Py_ssize_t)packed->size, fds) : NULL;
}

/* pack(ids as bytes) -> (rows, descriptors). */
static PyObject *moving_pack(PyObject *self, PyObject *args)
{
    Py_buffer ids;
    ps_packed packed;
    if (!PyArg_ParseTuple(args, "y*", &ids))
        return NULL;
    int where = begin_moving(mover_of(self));
    int error = ps__pack(mover_of(self)->engine, ids.buf, (size_t)ids.len / sizeof(uint64_t), &packed);
    end_moving(mover_of(self), where);
    PyBuffer_Release(&ids);
    if (error < 0)
        return PyErr_NoMemory();
    PyObject *both = packed_of(&packed);
    ps__packed_free(&packed);
    return both;
}

static PyObject *with_ids(PyObject *self, PyObject *args, void (*act)(ps_engine *, const uint64_t *, size_t))
{
    Py_buffer ids;
    if (!PyArg_ParseTuple(args, "y*", &ids))
        return NULL;
    int where = begin_moving(mover_of(self));
    act(mover_of(self)->engine, ids.buf, (size_t)ids.len / sizeof(uint64_t));
    end_moving(mover_of(self), where);
    PyBuffer_Release(&ids);
    Py_RETURN_NONE;
}

static PyObject *moving_discard(PyObject *self, PyObject *args)
{
    return with_ids(self, args, ps__discard);
}

static PyObject *moving_dismiss(PyObject *self, PyObject *args)
{
    return with_ids(self, args, ps__dismiss_unmoved);
}

static PyObject *moving_thaw(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    int where = begin_moving(mover_of(self));
    ps__thaw(mover_of(self)->engine);
    ps__unfreeze(mover_of(self)->engine);
    end_moving(mover_of(self), where);
    Py_RETURN_NONE;
}

static PyObject *moving_hurry(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    int where = begin_moving(mover_of(self));
    ps__hurry(mover_of(self)->engine);
    end_moving(mover_of(self), where);
    Py_RETURN_NONE;
}

static PyObject *moving_places(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    uint32_t slots, generation;
    ps__places(mover_of(self)->engine, &slots, &generation);
    return Py_BuildValue("II", slots, generation);
}

/* reserve(slots, generation) -> 0 or -errno. */
static PyObject *moving_reserve(PyObject *self, PyObject *args)
{
    ps_engine *engine = mover_of(self)->engine;
    unsigned slots, generation;
    if (!PyArg_ParseTuple(args, "II", &slots, &generation))
        return NULL;
    pthread_mutex_lock(&engine->lock);
    int error = ps__table_reserve(&engine->table, slots, generation);
    pthread_mutex_unlock(&engine->lock);
    return PyLong_FromLong(error);
}

static PyObject *added_of(int error, const ps_added *added)
{
    if (error == -EBADMSG)
        return PyErr_Format(PyExc_ValueError, "row %zu: %s", added->wrong, added->why);
    return error < 0 ? PyLong_FromLong(error) : list_of_ids(added->ids, added->count);
}

/* add(rows, descriptors as bytes, each an int of C) -> a list of ids, or -errno. */
static PyObject *moving_add(PyObject *self, PyObject *args)
{
    Py_buffer rows, fds;
    if (!PyArg_ParseTuple(args, "y*y*", &rows, &fds))
        return NULL;
    ps_added added = {.rows = rows.buf, .size = (size_t)rows.len, .fds = fds.buf, .count = (size_t)fds.len / sizeof(int)};
    added.ids = ps_sys.allocate(added.count * sizeof *added.ids + 1);
    int error = -ENOMEM;
    if (added.ids) {
        int where = begin_moving(mover_of(self));
        error = ps__add(mover_of(self)->engine, &added);
        end_moving(mover_of(self), where);
    }
    PyObject *result = added_of(error, &added);
    ps__free(added.ids);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&fds);
    return result;
}

static PyObject *moving_moved(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    const ps_engine *engine = mover_of(self)->engine;
    return Py_BuildValue("KK", (unsigned long long)engine->moved_in, (unsigned long long)engine->moved_out);
}

static PyMethodDef moving_methods[] = {
    {"freeze", moving_freeze, METH_NOARGS, NULL},
    {"hold", moving_hold, METH_VARARGS, NULL},
    {"pack", moving_pack, METH_VARARGS, NULL},
    {"discard", moving_discard, METH_VARARGS, NULL},
    {"dismiss", moving_dismiss, METH_VARARGS, NULL},
    {"thaw", moving_thaw, METH_NOARGS, NULL},
    {"hurry", moving_hurry, METH_NOARGS, NULL},
    {"places", moving_places, METH_NOARGS, NULL},
    {"reserve", moving_reserve, METH_VARARGS, NULL},
    {"add", moving_add, METH_VARARGS, NULL},
    {"moved", moving_moved, METH_NOARGS, NULL},
};

/* moving() -> these functions, of the same object. */
PyObject *ps__py_inside_moving(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    PyObject *functions = PyList_New(0);
    for (size_t i = 0; functions && i < sizeof moving_methods / sizeof *moving_methods; i++) {
        PyObject *function = PyCFunction_New(&moving_methods[i], self);
        if (!function || PyList_Append(functions, function) < 0)
            Py_CLEAR(functions);
        Py_XDECREF(function);
    }
    return functions;
}
