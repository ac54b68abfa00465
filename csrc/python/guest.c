/* guest.c: begin, turn and end for a loop of the program's, which has the GIL: so these are no functions of the ABI, around
 * which cffi lets it go. */
#include <errno.h>

#include "loop/guest.h"
#include "python/python.h"

/* What ends it goes to the list, which the caller keeps. */
PyObject *ps__py_guest_begin(PyObject *self, PyObject *args)
{
    ps_python *py = PyCapsule_GetPointer(self, NULL);
    PyObject *raised, *want;
    if (!PyArg_ParseTuple(args, "OO", &raised, &want))
        return NULL;
    if (py->raised)
        return PyLong_FromLong(-EBUSY);
    int error = ps__guest_begin(py->engine);
    if (error == 0) {
        py->raised = raised;
        py->is_guest = true;
        Py_XSETREF(py->want, Py_NewRef(want));
    }
    return PyLong_FromLong(error);
}

/* -1: the program has closed it, or it is a forked child. */
PyObject *ps__py_guest_poll_fd(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    ps_python *py = PyCapsule_GetPointer(self, NULL);
    return PyLong_FromLong(py->engine->poll_handle);
}

/* Whether it goes on. The host's context is as it was: its loop leaves the one that it has entered for the call. */
PyObject *ps__py_guest_turn(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    ps_python *py = PyCapsule_GetPointer(self, NULL);
    if (py->turns)
        Py_RETURN_TRUE; /* a handler runs the host's loop: the turn that it is in goes on later */
    if (!py->raised)
        Py_RETURN_FALSE;
    py->turns = true;
    py->wants_turn = false;
    bool more = ps__guest_turn(py->engine);
    ps__py_leave_variables(py);
    py->turns = false;
    return PyBool_FromLong(more);
}

PyObject *ps__py_guest_end(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    ps_python *py = PyCapsule_GetPointer(self, NULL);
    if (!py->raised || py->turns)
        return PyLong_FromLong(-EBUSY);
    py->turns = true;
    int error = ps__guest_end(py->engine);
    ps__py_leave_variables(py);
    py->turns = false;
    py->raised = NULL;
    return PyLong_FromLong(error);
}
