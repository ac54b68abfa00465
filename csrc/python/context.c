/* context.c: the context variables (module contextvars) of handlers.
 *
 * What a handler sets must not be seen by another client's. A fresh context for each request would cost some 10 to 30 % of
 * the processor that a small message takes (8 clients, 256 requests in flight). So each client has its own, made when a
 * handler is first called for it, as a copy of the one that the loop runs in; and it is entered once for all requests that
 * are served in a row, and left before anything else of Python's runs. The engine has one place for what Python keeps of a
 * client: a tuple of its object and its context. */
#include "python/python.h"

/* Of a new reference to a client's object, which it takes; NULL and an exception: there is no memory. */
PyObject *ps__py_with_variables(PyObject *object)
{
    PyObject *variables = object ? PyContext_CopyCurrent() : NULL, *both = NULL;
    if (variables)
        both = PyTuple_Pack(2, object, variables);
    Py_XDECREF(variables);
    Py_XDECREF(object);
    return both;
}

/* Of the client that was served last. A callback in the middle of a handler is still within. */
void ps__py_leave_variables(ps_python *py)
{
    if (!py->entered || py->handles)
        return;
    if (PyContext_Exit(py->entered) < 0)
        PyErr_WriteUnraisable(py->entered);
    Py_CLEAR(py->entered);
}

int ps__py_enter_variables(ps_python *py, PyObject *variables)
{
    if (py->entered == variables)
        return 0;
    ps__py_leave_variables(py);
    if (PyContext_Enter(variables) < 0)
        return -1;
    py->entered = Py_NewRef(variables);
    return 0;
}

/* To be called in the loop's own context. */
PyObject *ps__py_callback(ps_python *py, int callback)
{
    ps__py_leave_variables(py);
    return py->callbacks[callback];
}

/* handler(client, request) in the client's context. */
PyObject *ps__py_call_within(ps_python *py, const ps_conn *conn, PyObject *handler, PyObject *request)
{
    PyObject *args[] = {NULL, object_of(conn), request};
    if (ps__py_enter_variables(py, variables_of(conn)) < 0)
        return NULL;
    py->handles = true;
    PyObject *result = PyObject_Vectorcall(handler, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    py->handles = false;
    return result;
}

/* handler(clients, requests) in a context of its own, for what isn't of one client. */
PyObject *ps__py_call_afresh(ps_python *py, PyObject *handler, PyObject *clients, PyObject *requests)
{
    PyObject *args[] = {NULL, clients, requests}, *result = NULL;
    ps__py_leave_variables(py);
    PyObject *variables = PyContext_CopyCurrent();
    if (variables && PyContext_Enter(variables) == 0) {
        result = PyObject_Vectorcall(handler, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        if (PyContext_Exit(variables) < 0)
            Py_CLEAR(result);
    }
    Py_XDECREF(variables);
    return result;
}
