/* python_server.h: the engine's hooks, in Python's terms, and the server's functions of the ABI. Part of python.c. */

/* -- the engine's hooks -------------------------------------------------------------------------------------------- */

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
    leave_variables(py);
    return PyErr_CheckSignals() < 0 ? hand_over(py->raised) : 0; /* does nothing outside the main thread */
}

enum { SPARE_MAX = 1 << 20 };

/* glibc gives the top of the heap back to the kernel after each large free, and each page is faulted in again by the next
 * large request. So the last one is kept, unless somebody else keeps it. */
static void held_release(void *context, void *object)
{
    ps_python *py = context;
    PyObject *held = object;
    Py_ssize_t size = PyBytes_CheckExact(held) ? PyBytes_GET_SIZE(held) : 0;
    if (!py->spare && Py_REFCNT(held) == 1 && size > PS_LARGE && size <= SPARE_MAX)
        py->spare = held;
    else
        Py_DECREF(held);
}

/* New bytes of this size in the memory of the spare. Its hash is forgotten by a change of size. */
static void *reuse(ps_python *py, size_t size, uint8_t **data)
{
    PyObject *bytes = py->spare;
    py->spare = NULL;
    if ((size_t)PyBytes_GET_SIZE(bytes) == size && _PyBytes_Resize(&bytes, (Py_ssize_t)size + 1) < 0)
        return PyErr_Clear(), NULL;
    return object_resize(NULL, bytes, size, data);
}

static void *request_new(void *context, size_t size, uint8_t **data)
{
    ps_python *py = context;
    return py->spare ? reuse(py, size, data) : object_new(NULL, size, data);
}

/* Most handlers let go of a request when they return, and most requests are as long as the one before: so no memory is
 * taken and given back for each. The hash that the old bytes may have is forgotten. */
static PyObject *small_request(ps_python *py, const ps_frame *frame)
{
    PyObject *bytes = py->small;
    py->small = NULL;
    if (!bytes || (size_t)PyBytes_GET_SIZE(bytes) != frame->size) {
        Py_XDECREF(bytes);
        return PyBytes_FromStringAndSize((const char *)frame->payload, (Py_ssize_t)frame->size);
    }
    memcpy(PyBytes_AS_STRING(bytes), frame->payload, frame->size);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* for readers: it may be gone one day, like the cast below */
    ((PyBytesObject *)bytes)->ob_shash = -1;
#pragma GCC diagnostic pop
    return bytes;
}

static void request_release(ps_python *py, PyObject *request)
{
    if (Py_REFCNT(request) == 1 && PyBytes_GET_SIZE(request) <= PS_LARGE && !py->small)
        py->small = request;
    else
        held_release(py, request);
}

static int finish_call(ps_python *py, int callback, PyObject *result)
{
    if (!result)
        return callback_failed(py, callback);
    Py_DECREF(result);
    return 0;
}

/* Where no frame can say so, the log does, once. */
static int no_handler(ps_python *py, ps_conn *conn, const ps_frame *frame)
{
    static const char text[] = "no such service";
    bool mute = !ps__framing(py->engine, conn)->has_texts;
    ps__cannot_serve(py->engine, conn, frame, PS_NO_SUCH_SERVICE, text, sizeof text - 1);
    if (!mute || py->said_no_service)
        return 0;
    py->said_no_service = true;
    return finish_call(py, ON_LOG, PyObject_CallFunction(callback_of(py, ON_LOG), "is", 40,
                                                         "a request came, and there is no service: the connection is closed"));
}

static int on_request(void *context, ps_conn *conn, const ps_frame *frame, void *object)
{
    ps_python *py = context;
    service *s = &py->services[frame->code];
    PyObject *request = object;
    int error;
    if (!request)
        request = small_request(py, frame);
    if (!request)
        return failed(py, conn, frame);
    if (!s->handler)
        error = no_handler(py, conn, frame);
    else if (!conn->object && ((error = make_client(py, conn)) < 0 || !conn->object))
        ;
    else if (s->batch)
        error = keep(py, s, conn, frame, request);
    else
        error = call_handler(py, s, conn, frame, request);
    request_release(py, request);
    return error;
}

static int on_batches(void *context, bool all, uint64_t *due_ns)
{
    ps_python *py = context;
    uint64_t next = UINT64_MAX, now = py->engine->now_ns;
    int error = 0;
    *due_ns = UINT64_MAX;
    for (uint32_t i = 0; i < py->service_count && error == 0; i++) {
        service *s = &py->services[i];
        bool whole = all || s->due_ns <= now;
        if (s->kept_count && (whole || s->kept_count >= s->max_batch))
            error = run_batch(py, s, whole);
        if (s->kept_count && s->due_ns < next)
            next = s->due_ns;
    }
    if (next < *due_ns)
        *due_ns = next;
    return error;
}

/* The reason of a refusal, cut to what fits. */
static void copy_reason(PyObject *answer, char *reason, size_t room)
{
    const char *text = PyUnicode_AsUTF8(answer);
    if (!text) {
        PyErr_Clear();
        return;
    }
    size_t size = fitting(text, strlen(text), room - 1);
    memcpy(reason, text, size);
    reason[size] = 0;
}

static int on_connect(void *context, ps_conn *conn, char *reason, size_t room)
{
    ps_python *py = context;
    PyObject *answer = PyObject_CallFunction(callback_of(py, ON_CONNECT), "K", (unsigned long long)ps__id(conn));
    if (!answer) {
        int error = callback_failed(py, ON_CONNECT);
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
    return conn->object && Py_REFCNT(object_of(conn)) == 2 && !conn->attached &&
           !py->engine->options.watch_disconnects && py->callbacks[ON_DROPPED] != Py_None;
}

static int on_disconnect(void *context, ps_conn *conn)
{
    ps_python *py = context;
    unsigned long long id = ps__id(conn);
    if (is_forgotten(py, conn))
        return finish_call(py, ON_DROPPED, PyObject_CallFunction(callback_of(py, ON_DROPPED), "K", id));
    return finish_call(py, ON_DISCONNECT, PyObject_CallFunction(callback_of(py, ON_DISCONNECT), "Ki", id, (int)conn->reason));
}

static int on_draining(void *context)
{
    ps_python *py = context;
    return finish_call(py, ON_DRAINING, PyObject_CallNoArgs(callback_of(py, ON_DRAINING)));
}

static int on_noted(void *context, int cause, uint64_t times)
{
    ps_python *py = context;
    return finish_call(py, ON_NOTED, PyObject_CallFunction(callback_of(py, ON_NOTED), "iK", cause, (unsigned long long)times));
}

/* -- access and keys ----------------------------------------------------------------------------------------------- */

static int truth(ps_python *py, int callback, PyObject *answer)
{
    int yes = answer ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    return yes < 0 ? callback_failed(py, callback) : yes;
}

static int on_allow(void *context, int64_t pid, uint32_t uid, uint32_t gid)
{
    ps_python *py = context;
    return truth(py, ON_ALLOW, PyObject_CallFunction(callback_of(py, ON_ALLOW), "LII", (long long)pid, uid, gid));
}

static int on_challenge(void *context, const uint8_t *nonce, const char *name, ps_challenge *made)
{
    ps_python *py = context;
    const char *fields, *expected;
    Py_ssize_t size, expected_size;
    PyObject *answer = PyObject_CallFunction(callback_of(py, ON_CHALLENGE), "y#y", (const char *)nonce,
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
    int error = callback_failed(py, ON_CHALLENGE);
    return error < 0 ? error : 1;
}

static int on_prove(void *context, const uint8_t *expected, const uint8_t *got)
{
    ps_python *py = context;
    return truth(py, ON_PROVE, PyObject_CallFunction(callback_of(py, ON_PROVE), "y#y#", (const char *)expected,
                                           (Py_ssize_t)PS_MAC_SIZE, (const char *)got, (Py_ssize_t)PS_MAC_SIZE));
}

/* -- what handlers call -------------------------------------------------------------------------------------------- */

/* A push, a broadcast or a disconnect in the loop's own thread may reach hooks, and hooks are called with the GIL held: so
 * these are no functions of the ABI, around which cffi lets the GIL go. That also spares a handler the wait for it beside
 * a thread that computes. */

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
    return PyErr_Format(py->callbacks[FRAME_TOO_LARGE],
                        "a payload of %zu bytes is more than this client takes (max_payload= of its connect())", size);
}

static PyObject *inside_broadcast(PyObject *self, PyObject *args)
{
    Py_buffer view;
    if (!PyArg_ParseTuple(args, "y*", &view))
        return NULL;
    int64_t reached = ps_engine_broadcast(engine_of(self), view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return PyLong_FromLongLong(reached);
}

static PyObject *inside_disconnect(PyObject *self, PyObject *args)
{
    unsigned long long id;
    if (!PyArg_ParseTuple(args, "K", &id))
        return NULL;
    return PyBool_FromLong(ps_engine_disconnect(engine_of(self), id) > 0);
}

static PyMethodDef inside_methods[] = {
    {"push", inside_push, METH_VARARGS, NULL},
    {"broadcast", inside_broadcast, METH_VARARGS, NULL},
    {"disconnect", inside_disconnect, METH_VARARGS, NULL},
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
    Py_XDECREF(self);
    PyErr_Clear();
    PyGILState_Release(gil);
    return error ? -ENOMEM : 0;
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

/* From the named tuple Service: (name, handler, batch, max_batch, max_wait). */
static int read_service(service *s, PyObject *entry)
{
    PyObject *name, *handler;
    int batch;
    unsigned max_batch;
    double max_wait;
    if (!PyArg_ParseTuple(entry, "OOpId", &name, &handler, &batch, &max_batch, &max_wait))
        return -EINVAL;
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
    Py_CLEAR(py->spare);
    Py_CLEAR(py->small);
    for (uint32_t i = 0; i < py->service_count; i++) {
        Py_CLEAR(py->services[i].handler);
        ps__free(py->services[i].kept);
        py->services[i].kept = NULL;
    }
}

static int fill(ps_python *py, PyObject *services, PyObject *callbacks)
{
    for (int i = 0; i < CALLBACKS; i++)
        py->callbacks[i] = Py_NewRef(PyTuple_GET_ITEM(callbacks, i));
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
    .request = on_request,
    .batches = on_batches,
    .disconnect = on_disconnect,
    .draining = on_draining,
    .noted = on_noted,
    .allow = on_allow,
    .challenge = on_challenge,
    .prove = on_prove,
    .object_new = request_new,
    .object_resize = object_resize,
    .object_hold = object_hold,
    .object_release = held_release,
};

static ps_python *new_python(uint32_t services)
{
    size_t size = sizeof(ps_python) + services * sizeof(service);
    ps_python *py = ps_sys.allocate(size);
    if (!py)
        return NULL;
    memset(py, 0, size);
    py->service_count = services;
    return py;
}

ps_python *ps_python_new(const ps_options *options, uintptr_t services, uintptr_t callbacks, int *error)
{
    ps_python *py = new_python(options->services);
    *error = -ENOMEM;
    if (!py)
        return NULL;
    PyGILState_STATE gil = PyGILState_Ensure();
    ps_hooks hooks = python_hooks;
    hooks.context = py;
    *error = fill(py, (PyObject *)services, (PyObject *)callbacks);
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

int ps_python_run(ps_python *py, uintptr_t raised)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    int error = -EBUSY;
    if (!py->raised) {
        py->raised = (PyObject *)raised;
        py->thread = PyEval_SaveThread(); /* the hooks take it back with on_enter */
        error = ps__engine_run(py->engine);
        PyEval_RestoreThread(py->thread);
        leave_variables(py);
        py->raised = NULL;
    }
    PyGILState_Release(gil);
    return error;
}
