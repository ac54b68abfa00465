/* sessions.c: TLS by Python's module ssl, for csrc/transport/hosted.c: each session is an object of the class HostedSession in
 * pysock/engine/native/hosted.py, whose methods are the steps, and return what was said, opened and sealed.
 *
 * A step runs in the middle of receiving or sending. Whatever else runs meanwhile in the loop's thread, a signal handler or the
 * __del__ of garbage, isn't to touch a connection: what it wants of clients is left to the loop, as another thread's. */
#include <errno.h>

#include "python/python.h"
#include "transport/tls.h"

#define STEP_NAMES(each) each(shake) each(unseal) each(seal) each(close) /* as enum ps_tls_step */
#define NAME_OF_STEP(name) #name,
static PyObject *steps[4];

static int intern_steps(void)
{
    static const char *const names[] = {STEP_NAMES(NAME_OF_STEP)};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!steps[i])
            steps[i] = PyUnicode_InternFromString(names[i]);
        if (!steps[i])
            return -1;
    }
    return 0;
}

/* Nothing raises here but MemoryError, and what ends the loop; anything else costs the client its connection as well. */
static int session_failed(ps_python *py)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return ps__py_hand_over(py->raised);
    PyErr_WriteUnraisable(py->secured);
    return -ENOMEM;
}

/* Between the two, nobody is in the loop. */
static bool stand_aside(ps_python *py)
{
    bool running = __atomic_exchange_n(&py->engine->running, false, __ATOMIC_RELAXED);
    py->aside = true;
    return running;
}

static void stand_back(ps_python *py, bool running)
{
    py->aside = false;
    __atomic_store_n(&py->engine->running, running, __ATOMIC_RELAXED);
}

int ps__py_on_tls_begin(void *context, const ps_conn *conn, void **session)
{
    ps_python *py = context;
    ps__py_leave_variables(py);
    bool running = stand_aside(py);
    *session = PyObject_CallFunction(py->secured, "KI", (unsigned long long)ps__id(conn), (unsigned)conn->listener);
    stand_back(py, running);
    return *session ? 0 : session_failed(py);
}

static PyObject *call_step(ps_python *py, PyObject *session, enum ps_tls_step step, const uint8_t *data, size_t size,
                           size_t most)
{
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    PyObject *number = PyLong_FromSize_t(most), *result = NULL;
    PyObject *args[] = {session, bytes, number};
    if (bytes && number) {
        bool running = stand_aside(py);
        result = PyObject_VectorcallMethod(steps[step], args, 3, NULL);
        stand_back(py, running);
    }
    Py_XDECREF(bytes);
    Py_XDECREF(number);
    return result;
}

int ps__py_on_tls_step(void *context, void *session, enum ps_tls_step step, const uint8_t *data, size_t size, size_t most,
                       ps_tls_made *made)
{
    ps_python *py = context;
    const char *opened, *sealed;
    Py_ssize_t opened_size, sealed_size;
    ps__py_leave_variables(py);
    PyObject *result = call_step(py, session, step, data, size, most);
    if (!result)
        return session_failed(py);
    bool good = PyArg_ParseTuple(result, "Iy#y#", &made->said, &opened, &opened_size, &sealed, &sealed_size);
    if (good && (size_t)opened_size > most) {
        PyErr_SetString(PyExc_ValueError, "a TLS session gave more than was asked for");
        good = false;
    }
    if (!good) {
        Py_DECREF(result);
        return session_failed(py);
    }
    made->opened = (const uint8_t *)opened;
    made->sealed = (const uint8_t *)sealed;
    made->opened_size = (size_t)opened_size;
    made->sealed_size = (size_t)sealed_size;
    made->object = result;
    return 0;
}

/* When a row is buried, in the loop, or when an engine is closed or freed, by whomever. */
void ps__py_on_tls_end(void *context, void *session)
{
    (void)context;
    PyGILState_STATE gil = PyGILState_Ensure();
    Py_DECREF((PyObject *)session);
    PyGILState_Release(gil);
}

/* secure(master, begin): from now on clients of this master speak TLS by what begin(client_id, master) returns. -> 0 or -errno */
PyObject *ps__py_inside_secure(PyObject *self, PyObject *args)
{
    ps_python *py = PyCapsule_GetPointer(self, NULL);
    unsigned master;
    PyObject *begin;
    if (!PyArg_ParseTuple(args, "IO", &master, &begin) || intern_steps() < 0)
        return NULL;
    Py_XSETREF(py->secured, Py_NewRef(begin));
    return PyLong_FromLong(ps__secure_hosted(py->engine, master));
}
