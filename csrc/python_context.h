/* python_context.h: the context variables (module contextvars) of handlers. Part of python.c.
 *
 * What a handler sets must not be seen by another client's. A fresh context for each request would cost some
 * 25 % of the CPU that a small message takes, entering one that is there 1 to 2 %: so each client has its own, made when a
 * handler is first called for it, as a copy of the one that the loop runs in. The engine has one place for what Python keeps of a client: a tuple
 * of its object and its context. */

static PyObject *object_of(const ps_conn *conn)
{
    return PyTuple_GET_ITEM((PyObject *)conn->object, 0);
}

static PyObject *variables_of(const ps_conn *conn)
{
    return PyTuple_GET_ITEM((PyObject *)conn->object, 1);
}

/* Of a new reference to a client's object, which it takes; NULL and an exception: there is no memory. */
static PyObject *with_variables(PyObject *object)
{
    PyObject *variables = object ? PyContext_CopyCurrent() : NULL, *both = NULL;
    if (variables)
        both = PyTuple_Pack(2, object, variables);
    Py_XDECREF(variables);
    Py_XDECREF(object);
    return both;
}

/* handler(first, second). Left is what was entered, whatever the handler raised. */
static PyObject *call_within(PyObject *variables, PyObject *handler, PyObject *first, PyObject *second)
{
    PyObject *args[] = {NULL, first, second};
    if (PyContext_Enter(variables) < 0)
        return NULL;
    PyObject *result = PyObject_Vectorcall(handler, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (PyContext_Exit(variables) < 0)
        Py_CLEAR(result);
    return result;
}

/* The same in a context of its own, for what isn't of one client. */
static PyObject *call_afresh(PyObject *handler, PyObject *first, PyObject *second)
{
    PyObject *variables = PyContext_CopyCurrent(), *result = NULL;
    if (variables)
        result = call_within(variables, handler, first, second);
    Py_XDECREF(variables);
    return result;
}
