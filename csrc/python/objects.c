/* objects.c: exceptions, and the objects that the engine and the client receive into, or send from. */
#include "python/python.h"

/* The exception that is set, as an object with its traceback; it is cleared. */
PyObject *ps__py_take_exception(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

/* Put the exception that is set on the list for the caller. */
int ps__py_hand_over(PyObject *raised)
{
    PyObject *exception = ps__py_take_exception();
    if (exception)
        PyList_Append(raised, exception);
    Py_XDECREF(exception);
    PyErr_Clear();
    return -ECANCELED;
}

/* -- objects that the engine and the client receive into, or send from -------------------------------------------- */

void *ps__py_object_new(void *context, size_t size, uint8_t **data)
{
    (void)context;
    PyObject *object = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (!object) {
        PyErr_Clear();
        return NULL;
    }
    *data = (uint8_t *)PyBytes_AS_STRING(object);
    return object;
}

void *ps__py_object_resize(void *context, void *object, size_t size, uint8_t **data)
{
    (void)context;
    PyObject *bytes = object;
    if (_PyBytes_Resize(&bytes, (Py_ssize_t)size) < 0) {
        PyErr_Clear();
        return NULL;
    }
    *data = (uint8_t *)PyBytes_AS_STRING(bytes);
    return bytes;
}

void ps__py_object_ref(void *context, void *object)
{
    (void)context;
    Py_INCREF((PyObject *)object);
}

void ps__py_object_unref(void *context, void *object)
{
    (void)context;
    Py_DECREF((PyObject *)object);
}
