/* waiting.c: requests that wait for a call of an async handler. Their records keep the call itself, and it knows the record's
 * handle: so nothing else is made for them. */
#include "python/call.h"

/* In the one interpreter that there is. */
PyTypeObject *ps__py_type_of_calls;
struct ps_names ps__py_names;

int ps__py_intern_names(void)
{
#define INTERN(name)                                                                                                   \
    if (!ps__py_names.name && !(ps__py_names.name = PyUnicode_InternFromString(#name)))                                \
        return -1;
    CALL_NAMES(INTERN)
#undef INTERN
    return 0;
}

bool ps__py_is_new_call(PyObject *object)
{
    return Py_TYPE(object) == ps__py_type_of_calls && ((ps_call *)object)->is_new;
}

void ps__py_call_awaited(ps_python *py, PyObject *object, uint64_t handle)
{
    ps_call *call = (ps_call *)object;
    call->is_new = false;
    call->handle = handle;
    call->origin->py = py;
}

int ps__py_call_unwanted(PyObject *object, enum ps_why why)
{
    ps_call *call = (ps_call *)object;
    call->unwanted = true;
    PyObject *told = PyObject_CallMethod(call->origin->tasks, "ended", "Oi", object, (int)why);
    Py_XDECREF(told);
    return told ? 0 : -1;
}

bool ps__py_is_call(PyObject *object)
{
    return Py_TYPE(object) == ps__py_type_of_calls;
}
