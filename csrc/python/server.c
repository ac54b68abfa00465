/* server.c: the engine's hooks, in Python's terms, and the server's functions of the ABI. */
#include <errno.h>
#include <string.h>

#include "base/meter.h"
#include "base/sys.h"
#include "loop/command.h"
#include "loop/engine.h"
#include "loop/turn.h"
#include "python/python.h"

static void on_enter(void *context)
{
    ps_python *py = context;
    PyEval_RestoreThread(py->thread);
}

static void on_leave(void *context)
{
    ps_python *py = context;
    py->thread = PyEval_SaveThread();
}

static int on_check(void *context)
{
    ps_python *py = context;
    ps__py_leave_variables(py);
    if (py->is_guest)
        return 0;
    return PyErr_CheckSignals() < 0 ? ps__py_hand_over(py->raised) : 0; /* does nothing outside the main thread */
}

/* The reason of a refusal, cut to what fits. */
static void copy_reason(PyObject *answer, char *reason, size_t room)
{
    const char *text = PyUnicode_AsUTF8(answer);
    if (!text) {
        PyErr_Clear();
        return;
    }
    size_t size = ps__py_fitting(text, strlen(text), room - 1);
    memcpy(reason, text, size);
    reason[size] = 0;
}

static int on_connect(void *context, ps_conn *conn, char *reason, size_t room)
{
    ps_python *py = context;
    PyObject *answer = PyObject_CallFunction(ps__py_callback(py, ON_CONNECT), "K", (unsigned long long)ps__id(conn));
    if (!answer) {
        int error = ps__py_callback_failed(py, ON_CONNECT);
        return error < 0 ? error : 1;
    }
    int refused = answer != Py_None;
    if (refused)
        copy_reason(answer, reason, room);
    Py_DECREF(answer);
    return refused;
}

/* Only the engine and the facade's table refer to the client's object: nobody can look at it any more. */
static bool is_forgotten(const ps_python *py, const ps_conn *conn)
{
    return conn->object && Py_REFCNT(object_of(conn)) == 2 && !ps__is_attached(conn) &&
           !py->engine->options.watch_disconnects && py->callbacks[ON_DROPPED] != Py_None;
}

static int on_disconnect(void *context, ps_conn *conn)
{
    ps_python *py = context;
    unsigned long long id = ps__id(conn);
    if (is_forgotten(py, conn))
        return ps__py_finish_call(py, ON_DROPPED, PyObject_CallFunction(ps__py_callback(py, ON_DROPPED), "K", id));
    PyObject *callback = ps__py_callback(py, ON_DISCONNECT);
    return ps__py_finish_call(py, ON_DISCONNECT, PyObject_CallFunction(callback, "Ki", id, (int)conn->reason));
}

#define NUMBERS_TOLD(name, text, numbers) numbers,

static int on_tell(void *context, enum ps_tell what, uint64_t first, uint64_t second)
{
    static const uint8_t numbers[] = {PS_TELLS(NUMBERS_TOLD)};
    static const char *const formats[] = {"", "K", "KK"};
    ps_python *py = context;
    PyObject *callback = ps__py_callback(py, (int)what);
    PyObject *result = PyObject_CallFunction(callback, formats[numbers[what]], (unsigned long long)first,
                                             (unsigned long long)second);
    return ps__py_finish_call(py, (int)what, result);
}

static int on_held_up(void *context, uint64_t worked_ns, uint64_t requests)
{
    ps_python *py = context;
    bool timed = py->timed_until_ns;
    ps__py_time_requests(py);
    if (py->served.every) /* that was what it was for */
        ps__engine_notice(py->engine, py->served.slow_ns);
    int error = worked_ns < py->engine->options.held_up_ns ? 0 : ps__py_tell_held_up(py, worked_ns, requests);
    return error || timed ? error : ps__py_tell_turn(py, worked_ns, requests);
}

/* -- access and keys ----------------------------------------------------------------------------------------------- */

static int truth(ps_python *py, int callback, PyObject *answer)
{
    int yes = answer ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    return yes < 0 ? ps__py_callback_failed(py, callback) : yes;
}

static int on_allow(void *context, int64_t pid, uint32_t uid, uint32_t gid)
{
    ps_python *py = context;
    return truth(py, ON_ALLOW, PyObject_CallFunction(ps__py_callback(py, ON_ALLOW), "LII", (long long)pid, uid, gid));
}

static int on_challenge(void *context, const uint8_t *nonce, const char *name, ps_challenge *made)
{
    ps_python *py = context;
    const char *fields, *expected;
    Py_ssize_t size, expected_size;
    PyObject *answer = PyObject_CallFunction(ps__py_callback(py, ON_CHALLENGE), "y#y", (const char *)nonce,
                                             (Py_ssize_t)PS_NONCE_SIZE, name);
    bool good = answer && PyArg_ParseTuple(answer, "y#y#", &fields, &size, &expected, &expected_size);
    if (good && (size > (Py_ssize_t)sizeof made->fields || expected_size != PS_MAC_SIZE)) {
        PyErr_SetString(PyExc_ValueError, "a challenge has at most 128 bytes, and 32 are expected in its proof");
        good = false;
    }
    if (good) {
        made->size = (size_t)size;
        memcpy(made->fields, fields, made->size);
        memcpy(made->expected, expected, PS_MAC_SIZE);
    }
    Py_XDECREF(answer);
    if (good)
        return 0;
    int error = ps__py_callback_failed(py, ON_CHALLENGE);
    return error < 0 ? error : 1;
}

static int on_prove(void *context, const uint8_t *expected, const uint8_t *got)
{
    ps_python *py = context;
    return truth(py, ON_PROVE, PyObject_CallFunction(ps__py_callback(py, ON_PROVE), "y#y#", (const char *)expected,
                                           (Py_ssize_t)PS_MAC_SIZE, (const char *)got, (Py_ssize_t)PS_MAC_SIZE));
}

/* -- what a client was asked --------------------------------------------------------------------------------------- */

static int on_answered(void *context, ps_conn *conn, const ps_frame *frame)
{
    ps_python *py = context;
    if (py->callbacks[ON_ANSWERED] == Py_None)
        return 0;
    int code = frame->kind == PS_ANSWER ? 0 : frame->code ? frame->code : PS_HANDLER_FAILED;
    PyObject *callback = ps__py_callback(py, ON_ANSWERED);
    return truth(py, ON_ANSWERED,
                 PyObject_CallFunction(callback, "KIiy#", (unsigned long long)ps__id(conn), (unsigned)frame->request_id,
                                       code, (const char *)frame->payload, (Py_ssize_t)frame->size));
}

static int on_traced(void *context, ps_conn *conn, const ps_frame *frame)
{
    ps_python *py = context;
    if (py->callbacks[ON_TRACED] == Py_None)
        return 0;
    PyObject *callback = ps__py_callback(py, ON_TRACED);
    return ps__py_finish_call(py, ON_TRACED,
                              PyObject_CallFunction(callback, "KIy#", (unsigned long long)ps__id(conn),
                                                    (unsigned)frame->request_id, (const char *)frame->payload,
                                                    (Py_ssize_t)frame->size));
}

/* -- the server's functions of the ABI ----------------------------------------------------------------------------- */

int ps_python_is_main(uintptr_t builtins)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *here = PyImport_AddModule("builtins"); /* borrowed */
    int is_main = here == (PyObject *)builtins && PyInterpreterState_Get() == PyInterpreterState_Main();
    PyErr_Clear();
    PyGILState_Release(gil);
    return is_main;
}

/* From the named tuple Service. */
static int read_service(service *s, PyObject *entry)
{
    PyObject *name, *handler;
    int batch, streams, endless;
    unsigned max_batch;
    double max_wait;
    if (!PyArg_ParseTuple(entry, "OOpIdpp", &name, &handler, &batch, &max_batch, &max_wait, &streams, &endless))
        return -EINVAL;
    s->streams = streams;
    s->endless = endless;
    s->handler = handler == Py_None ? NULL : Py_NewRef(handler);
    s->batch = batch;
    s->max_batch = max_batch ? max_batch : 1;
    s->max_wait_ns = (uint64_t)(max_wait * 1e9);
    return 0;
}

static void drop_references(ps_python *py)
{
    for (int i = 0; i < CALLBACKS; i++)
        Py_CLEAR(py->callbacks[i]);
    Py_CLEAR(py->frame_too_large);
    Py_CLEAR(py->spare);
    Py_CLEAR(py->small);
    Py_CLEAR(py->watched);
    Py_CLEAR(py->want);
    Py_CLEAR(py->secured);
    for (uint32_t i = 0; i < py->service_count; i++) {
        Py_CLEAR(py->services[i].handler);
        ps__free(py->services[i].waiting);
        py->services[i].waiting = NULL;
    }
}

#define NAME_OF_CALLBACK(name, text) text,
#define NAME_OF_TELL(name, text, numbers) text,
static const char *const callback_names[] = {PS_TELLS(NAME_OF_TELL) CALLBACK_NAMES(NAME_OF_CALLBACK)};

static int take_references(ps_python *py, PyObject *services, PyObject *callbacks)
{
    for (int i = 0; i < CALLBACKS; i++) {
        py->callbacks[i] = PyObject_GetAttrString(callbacks, callback_names[i]);
        if (!py->callbacks[i])
            return -EINVAL;
    }
    for (uint32_t i = 0; i < py->service_count; i++) {
        int error = read_service(&py->services[i], PyTuple_GET_ITEM(services, (Py_ssize_t)i));
        if (error < 0)
            return error;
    }
    return 0;
}

static const ps_hooks python_hooks = {
    .enter = on_enter,
    .leave = on_leave,
    .check = on_check,
    .connect = on_connect,
    .request = ps__py_on_request,
    .batches = ps__py_on_batches,
    .answer = ps__py_on_answer,
    .answered = on_answered,
    .traced = on_traced,
    .ended = ps__py_on_ended,
    .call = ps__py_on_call,
    .watched = ps__py_on_watched,
    .pull = ps__py_on_pull,
    .close = ps__py_on_close,
    .flow = ps__py_on_flow,
    .more = ps__py_on_more,
    .disconnect = on_disconnect,
    .tell = on_tell,
    .held_up = on_held_up,
    .allow = on_allow,
    .challenge = on_challenge,
    .prove = on_prove,
    .tls_begin = ps__py_on_tls_begin,
    .tls_step = ps__py_on_tls_step,
    .tls_end = ps__py_on_tls_end,
    .object_new = ps__py_request_new,
    .object_resize = ps__py_object_resize,
    .object_ref = ps__py_object_ref,
    .object_unref = ps__py_request_unref,
};

static ps_python *new_python(uint32_t services)
{
    size_t size = sizeof(ps_python) + services * sizeof(service);
    ps_python *py = ps_sys.allocate(size);
    if (!py)
        return NULL;
    memset(py, 0, size);
    py->service_count = services;
    py->served.slow_ns = py->served.least_ns = UINT64_MAX;
    return py;
}

static void destroy(PyObject *capsule)
{
    ps_python_free(PyCapsule_GetPointer(capsule, NULL));
}

ps_python *ps_python_new(const ps_options *options, uintptr_t services, uintptr_t callbacks, uintptr_t frame_too_large,
                         int *error)
{
    ps_python *py = new_python(options->services);
    *error = -ENOMEM;
    if (!py)
        return NULL;
    PyGILState_STATE gil = PyGILState_Ensure();
    ps_hooks hooks = python_hooks;
    hooks.context = py;
    py->frame_too_large = Py_NewRef((PyObject *)frame_too_large);
    py->destroy = destroy;
    py->on_request = hooks.request;
    py->on_timed = ps__py_on_request_timed;
    *error = take_references(py, (PyObject *)services, (PyObject *)callbacks);
    PyErr_Clear();
    if (*error == 0)
        py->engine = ps__engine_new(options, &hooks, error);
    if (*error < 0)
        drop_references(py);
    PyGILState_Release(gil);
    if (*error == 0)
        return py;
    ps__free(py);
    return NULL;
}

void ps_python_close(ps_python *py)
{
    ps__engine_close(py->engine);
    PyGILState_STATE gil = PyGILState_Ensure();
    ps__free_commands(py->engine); /* answers of the last moment, which nobody reads */
    drop_references(py);
    PyGILState_Release(gil);
}

void ps_python_free(ps_python *py)
{
    ps_python_close(py);
    ps__engine_free(py->engine);
    ps__free(py);
}

ps_engine *ps_python_engine(ps_python *py)
{
    return py->engine;
}

int ps_python_measure(ps_python *py, uint64_t *counters, uint64_t *rows)
{
    int error = ps__meter_open(&py->engine->meter, counters, rows, py->service_count);
    if (error == 0)
        py->engine->hooks.request = py->on_request = ps__py_on_request_measured;
    return error;
}

int ps_python_run(ps_python *py, uintptr_t raised)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    int error = -EBUSY;
    if (!py->raised) {
        py->raised = (PyObject *)raised;
        py->thread = PyEval_SaveThread(); /* the hooks take it back with on_enter */
        error = ps__engine_run(py->engine);
        PyEval_RestoreThread(py->thread);
        ps__py_leave_variables(py);
        py->raised = NULL;
    }
    PyGILState_Release(gil);
    return error;
}
