/* python.c: the only file that knows Python, with its parts: python_context.h keeps the context variables of clients apart,
 * python_request.h has requests answered (handlers are called by vectorcall, results become replies), python_server.h gives
 * the engine its hooks (the GIL is taken once a turn), python_client.h does the same for the client. They are included here
 * and nowhere else, so that Python.h is too.
 *
 * Ownership: objects reach the functions of the ABI as id() numbers that the caller keeps alive for the call; what is
 * kept longer is referenced here. A request object is the handler's; a reply object is held while bytes of it wait.
 * Every reference is taken and dropped with the GIL held. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client.h"

/* -- exceptions ---------------------------------------------------------------------------------------------------- */

/* The exception that is set, as an object with its traceback; it is cleared. */
static PyObject *take_exception(void)
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
static int hand_over(PyObject *raised)
{
    PyObject *exception = take_exception();
    if (exception)
        PyList_Append(raised, exception);
    Py_XDECREF(exception);
    PyErr_Clear();
    return -ECANCELED;
}

/* -- objects that the engine and the client receive into, or send from -------------------------------------------- */

static void *object_new(void *context, size_t size, uint8_t **data)
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

static void *object_resize(void *context, void *object, size_t size, uint8_t **data)
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

static void object_hold(void *context, void *object)
{
    (void)context;
    Py_INCREF((PyObject *)object);
}

static void object_release(void *context, void *object)
{
    (void)context;
    Py_DECREF((PyObject *)object);
}

/* -- a server ------------------------------------------------------------------------------------------------------ */

typedef struct kept_request {
    uint64_t client_id;
    ps_frame frame; /* payload unused */
    PyObject *client, *request;
} kept_request;

typedef struct service {
    PyObject *handler; /* NULL: there is no such service */
    bool batch;
    uint32_t max_batch;
    uint64_t max_wait_ns, due_ns;
    kept_request *kept;
    size_t kept_count, kept_room;
} service;

enum { ON_CLIENT, ON_CONNECT, ON_DISCONNECT, ON_FAILED, ON_DRAINING, ON_LOG, ON_DROPPED, ON_NOTED,
       ON_ALLOW, ON_CHALLENGE, ON_PROVE, FRAME_TOO_LARGE, CALLBACKS };

struct ps_python {
    ps_engine *engine;
    PyObject *callbacks[CALLBACKS];
    PyObject *raised; /* during a run: the list for what ends it */
    PyThreadState *thread;
    PyObject *entered; /* the context that the loop is in, of the client that was served last; or NULL */
    bool handles;      /* a handler runs */
    PyObject *spare; /* the memory of the last large request, if nobody kept it: the next one's */
    PyObject *small; /* likewise of the last small one: the next one's, if that is as long */
    bool said_no_service;
    uint32_t service_count;
    service services[];
};

#include "python_context.h"
#include "python_request.h"

#include "python_server.h"

#include "python_client.h"
