/* python.c: the only file that knows Python. The upper half gives the engine its hooks: handlers are called by vectorcall,
 * the GIL is taken once a turn, results become replies. The lower half does the same for the client.
 *
 * Ownership: objects reach the functions of the ABI as id() numbers that the caller keeps alive for the call; what is
 * kept longer is referenced here. A request object is the handler's; a reply object is held while bytes of it wait.
 * Every reference is taken and dropped with the GIL held. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <string.h>

#include "client.h"

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

enum { ON_CLIENT, ON_CONNECT, ON_DISCONNECT, ON_FAILED, ON_DRAINING, ON_LOG, FRAME_TOO_LARGE, CALLBACKS };

struct ps_python {
    ps_engine *engine;
    PyObject *callbacks[CALLBACKS];
    PyObject *raised; /* during a run: the list for what ends it */
    PyThreadState *thread;
    uint32_t service_count;
    service services[];
};

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

/* -- requests ------------------------------------------------------------------------------------------------------ */

/* Ask the facade about a failure that is set as an exception, and send what it says. */
static int failed(ps_python *py, ps_conn *conn, const ps_frame *frame)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return hand_over(py->raised);
    PyObject *exception = take_exception();
    PyObject *answer = PyObject_CallFunction(py->callbacks[ON_FAILED], "KIO", (unsigned long long)ps__id(conn),
                                             (unsigned)frame->code, exception);
    Py_DECREF(exception);
    unsigned short code;
    const char *text;
    Py_ssize_t size;
    if (!answer || !PyArg_ParseTuple(answer, "Hy#", &code, &text, &size)) {
        Py_XDECREF(answer);
        return hand_over(py->raised);
    }
    ps__cannot_serve(py->engine, conn, frame, code, text, (size_t)size);
    Py_DECREF(answer);
    return 0;
}

static int too_large(ps_python *py, ps_conn *conn, const ps_frame *frame, size_t size)
{
    PyErr_Format(py->callbacks[FRAME_TOO_LARGE], "the reply has %zu bytes, this client takes at most %u", size,
                 (unsigned)conn->max_reply);
    return failed(py, conn, frame);
}

static int send_reply(ps_python *py, ps_conn *conn, const ps_frame *frame, const void *data, size_t size, PyObject *object)
{
    if (size > conn->max_reply)
        return too_large(py, conn, frame, size);
    if (!(frame->flags & PS_NO_REPLY))
        ps__send(py->engine, conn, PS_REPLY, 0, frame->request_id, data, size, object);
    return 0;
}

static int not_bytes(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *result)
{
    PyErr_Format(PyExc_TypeError, "the handler returned %.200s, not a bytes-like object", Py_TYPE(result)->tp_name);
    return failed(py, conn, frame);
}

/* Anything but exact bytes: it may change or move while it waits to be sent, so it is copied. */
static int answer_other(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *result)
{
    if (result == Py_None)
        return py->engine->options.framing == PS_NATIVE ? send_reply(py, conn, frame, NULL, 0, NULL) : 0;
    Py_buffer view;
    if (PyObject_GetBuffer(result, &view, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        return not_bytes(py, conn, frame, result);
    }
    int error = send_reply(py, conn, frame, view.buf, (size_t)view.len, NULL);
    PyBuffer_Release(&view);
    return error;
}

static int answer(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *result)
{
    if (PyBytes_CheckExact(result))
        return send_reply(py, conn, frame, PyBytes_AS_STRING(result), (size_t)PyBytes_GET_SIZE(result), result);
    return answer_other(py, conn, frame, result);
}

static int make_client(ps_python *py, ps_conn *conn)
{
    conn->object = PyObject_CallFunction(py->callbacks[ON_CLIENT], "K", (unsigned long long)ps__id(conn));
    return conn->object ? 0 : hand_over(py->raised);
}

static int call_handler(ps_python *py, const service *s, ps_conn *conn, const ps_frame *frame, PyObject *request)
{
    PyObject *args[] = {NULL, conn->object, request};
    PyObject *result = PyObject_Vectorcall(s->handler, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (!result)
        return failed(py, conn, frame);
    int error = answer(py, conn, frame, result);
    Py_DECREF(result);
    return error;
}

/* -- batches ------------------------------------------------------------------------------------------------------- */

static bool make_room(service *s)
{
    if (s->kept_count < s->kept_room)
        return true;
    size_t room = s->kept_room ? 2 * s->kept_room : 64;
    kept_request *kept = ps_sys.resize(s->kept, room * sizeof *kept);
    if (!kept)
        return false;
    s->kept = kept;
    s->kept_room = room;
    return true;
}

static int keep(ps_python *py, service *s, ps_conn *conn, const ps_frame *frame, PyObject *request)
{
    if (!make_room(s)) {
        PyErr_NoMemory();
        return failed(py, conn, frame);
    }
    if (!s->kept_count)
        s->due_ns = py->engine->now_ns + s->max_wait_ns;
    s->kept[s->kept_count++] = (kept_request){ps__id(conn), *frame, Py_NewRef((PyObject *)conn->object), Py_NewRef(request)};
    if (s->kept_count >= s->max_batch)
        s->due_ns = 0;
    if (s->due_ns < py->engine->batch_due_ns)
        py->engine->batch_due_ns = s->due_ns;
    ps__kept(py->engine, conn);
    return 0;
}

static void drop_kept(const kept_request *kept)
{
    Py_DECREF(kept->client);
    Py_DECREF(kept->request);
}

/* Leave out the requests of clients that have gone. */
static size_t drop_orphans(ps_python *py, kept_request *kept, size_t count)
{
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        if (ps__table_find(&py->engine->table, kept[i].client_id))
            kept[left++] = kept[i];
        else
            drop_kept(&kept[i]);
    }
    return left;
}

static PyObject *list_of(const kept_request *kept, size_t count, bool clients)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++)
        PyList_SET_ITEM(list, (Py_ssize_t)i, Py_NewRef(clients ? kept[i].client : kept[i].request));
    return list;
}

/* What the handler returned, as a list or tuple with one reply for each request; NULL and an exception if it isn't. */
static PyObject *call_batch(const service *s, const kept_request *kept, size_t count)
{
    PyObject *clients = list_of(kept, count, true), *requests = list_of(kept, count, false);
    PyObject *args[] = {NULL, clients, requests}, *result = NULL, *replies = NULL;
    if (clients && requests)
        result = PyObject_Vectorcall(s->handler, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_XDECREF(clients);
    Py_XDECREF(requests);
    if (!result)
        return NULL;
    if (PyBytes_Check(result) || PyByteArray_Check(result) || PyUnicode_Check(result) || !PyObject_HasAttrString(result, "__iter__"))
        PyErr_Format(PyExc_TypeError, "the batch handler returned %.200s, not a sequence with one reply per request",
                     Py_TYPE(result)->tp_name);
    else
        replies = PySequence_Fast(result, "the batch handler's result can't be iterated");
    Py_DECREF(result);
    if (replies && PySequence_Fast_GET_SIZE(replies) != (Py_ssize_t)count) {
        PyErr_Format(PyExc_ValueError, "the batch handler returned %zd replies to %zu requests",
                     PySequence_Fast_GET_SIZE(replies), count);
        Py_CLEAR(replies);
    }
    return replies;
}

/* Answer one request; exception: what failed the whole batch, or NULL. */
static int answer_kept(ps_python *py, const kept_request *kept, PyObject *reply, PyObject *exception)
{
    ps_engine *engine = py->engine;
    ps_conn *conn = ps__table_find(&engine->table, kept->client_id);
    if (!conn)
        return 0; /* the handler, or its own reply, ended it */
    if (engine->out_conn != conn) {
        if (engine->out_conn)
            ps__output_end(engine, engine->out_conn);
        ps__output_begin(engine, conn);
    }
    ps__not_kept(engine, conn);
    if (reply && !PyExceptionInstance_Check(reply))
        return answer(py, conn, &kept->frame, reply);
    if (reply) /* an exception in the place of a reply: this one request failed */
        exception = reply;
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    return failed(py, conn, &kept->frame);
}

static int run_slice(ps_python *py, const service *s, const kept_request *kept, size_t count)
{
    PyObject *replies = call_batch(s, kept, count), *exception = NULL;
    int error = 0;
    if (!replies && !PyErr_ExceptionMatches(PyExc_Exception))
        return hand_over(py->raised);
    if (!replies)
        exception = take_exception();
    for (size_t i = 0; i < count && error == 0; i++)
        error = answer_kept(py, &kept[i], replies ? PySequence_Fast_GET_ITEM(replies, (Py_ssize_t)i) : NULL, exception);
    if (py->engine->out_conn)
        ps__output_end(py->engine, py->engine->out_conn);
    Py_XDECREF(replies);
    Py_XDECREF(exception);
    return error;
}

static int run_batch(ps_python *py, service *s)
{
    kept_request *kept = s->kept;
    size_t all = drop_orphans(py, kept, s->kept_count);
    int error = 0;
    s->kept = NULL; /* nothing is kept while handlers run, but be safe if that changes */
    s->kept_count = s->kept_room = 0;
    for (size_t at = 0; at < all && error == 0; at += s->max_batch) {
        size_t count = all - at < s->max_batch ? all - at : s->max_batch;
        error = run_slice(py, s, kept + at, count);
    }
    for (size_t i = 0; i < all; i++)
        drop_kept(&kept[i]);
    ps__free(kept);
    return error;
}

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
    return PyErr_CheckSignals() < 0 ? hand_over(py->raised) : 0; /* does nothing outside the main thread */
}

static int on_request(void *context, ps_conn *conn, const ps_frame *frame, void *object)
{
    ps_python *py = context;
    service *s = &py->services[frame->code];
    PyObject *request = object;
    int error;
    if (!request)
        request = PyBytes_FromStringAndSize((const char *)frame->payload, (Py_ssize_t)frame->size);
    if (!request)
        return failed(py, conn, frame);
    if (!s->handler) {
        static const char text[] = "no such service";
        ps__cannot_serve(py->engine, conn, frame, PS_NO_SUCH_SERVICE, text, sizeof text - 1);
        error = 0;
    } else if (!conn->object && make_client(py, conn) < 0) {
        error = -ECANCELED;
    } else if (s->batch) {
        error = keep(py, s, conn, frame, request);
    } else {
        error = call_handler(py, s, conn, frame, request);
    }
    Py_DECREF(request);
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
        if (s->kept_count && (all || s->due_ns <= now))
            error = run_batch(py, s);
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
    size_t size = strlen(text);
    if (size >= room)
        for (size = room - 1; size && ((unsigned char)text[size] & 0xC0) == 0x80;) /* not inside a UTF-8 sequence */
            size--;
    memcpy(reason, text, size);
    reason[size] = 0;
}

static int on_connect(void *context, ps_conn *conn, char *reason, size_t room)
{
    ps_python *py = context;
    PyObject *answer = PyObject_CallFunction(py->callbacks[ON_CONNECT], "K", (unsigned long long)ps__id(conn));
    if (!answer)
        return hand_over(py->raised);
    int refused = answer != Py_None;
    if (refused)
        copy_reason(answer, reason, room);
    Py_DECREF(answer);
    return refused;
}

static int finish_call(ps_python *py, PyObject *result)
{
    if (!result)
        return hand_over(py->raised);
    Py_DECREF(result);
    return 0;
}

static int on_disconnect(void *context, ps_conn *conn)
{
    ps_python *py = context;
    return finish_call(py, PyObject_CallFunction(py->callbacks[ON_DISCONNECT], "Ki", (unsigned long long)ps__id(conn),
                                                 (int)conn->reason));
}

static int on_draining(void *context)
{
    ps_python *py = context;
    return finish_call(py, PyObject_CallNoArgs(py->callbacks[ON_DRAINING]));
}

static int on_log(void *context, int level, const char *message)
{
    ps_python *py = context;
    return finish_call(py, PyObject_CallFunction(py->callbacks[ON_LOG], "is", level, message));
}

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

/* -- the server's functions of the ABI ----------------------------------------------------------------------------- */

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
    for (uint32_t i = 0; i < py->service_count; i++) {
        Py_CLEAR(py->services[i].handler);
        ps__free(py->services[i].kept);
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
    .log = on_log,
    .object_new = object_new,
    .object_resize = object_resize,
    .object_hold = object_hold,
    .object_release = object_release,
};

static ps_python *allocate(uint32_t services)
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
    ps_python *py = allocate(options->services);
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

void ps_python_free(ps_python *py)
{
    if (!py)
        return;
    ps__engine_free(py->engine);
    PyGILState_STATE gil = PyGILState_Ensure();
    drop_references(py);
    PyGILState_Release(gil);
    ps__free(py);
}

ps_engine *ps_python_engine(ps_python *py)
{
    return py->engine;
}

int ps_python_run(ps_python *py, uintptr_t raised)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    py->raised = (PyObject *)raised;
    py->thread = PyEval_SaveThread(); /* the hooks take it back with on_enter */
    int error = ps__engine_run(py->engine);
    PyEval_RestoreThread(py->thread);
    py->raised = NULL;
    PyGILState_Release(gil);
    return error;
}

/* -- the client ---------------------------------------------------------------------------------------------------- */

struct ps_link {
    ps_client *client;
    ps_sink sink;
    /* of the call that runs: */
    PyObject *inbox, *raised, *results;
    uint32_t first_id, count;
    bool inside, any; /* any: the call waits for one frame, whatever it is */
    PyGILState_STATE gil;
};

static void link_enter(void *context)
{
    ps_link *link = context;
    if (!link->inside)
        link->gil = PyGILState_Ensure();
    link->inside = true;
}

static void link_leave(void *context)
{
    ps_link *link = context;
    if (link->inside)
        PyGILState_Release(link->gil);
    link->inside = false;
}

static int link_check(void *context)
{
    ps_link *link = context;
    return PyErr_CheckSignals() < 0 ? hand_over(link->raised) : 0;
}

static PyObject *payload_object(const ps_frame *frame, void *object)
{
    return object ? object : PyBytes_FromStringAndSize((const char *)frame->payload, (Py_ssize_t)frame->size);
}

/* A frame nobody waits for in particular goes to the inbox. */
static int to_inbox(ps_link *link, const ps_frame *frame, void *object)
{
    PyObject *payload = payload_object(frame, object), *item = NULL, *done = NULL;
    if (payload)
        item = Py_BuildValue("(iiiIO)", frame->kind, frame->flags, frame->code, (unsigned)frame->request_id, payload);
    if (item)
        done = PyObject_CallMethod(link->inbox, "append", "(O)", item);
    Py_XDECREF(payload);
    Py_XDECREF(item);
    if (!done)
        return hand_over(link->raised);
    Py_DECREF(done);
    return link->any;
}

static PyObject *result_object(const ps_frame *frame, void *object)
{
    PyObject *payload = payload_object(frame, object);
    if (!payload || frame->kind == PS_REPLY)
        return payload;
    PyObject *pair = Py_BuildValue("(iN)", frame->code, payload);
    return pair;
}

static int link_take(void *context, const ps_frame *frame, void *object)
{
    ps_link *link = context;
    uint32_t index = frame->request_id - link->first_id;
    bool answers = frame->kind == PS_REPLY || (frame->kind == PS_ERROR && frame->request_id);
    if (link->any || !answers)
        return to_inbox(link, frame, object);
    if (index >= link->count || PyList_GET_ITEM(link->results, (Py_ssize_t)index) != Py_None) {
        Py_XDECREF((PyObject *)object); /* the late answer to a request that was given up */
        return 0;
    }
    PyObject *result = result_object(frame, object);
    if (!result)
        return hand_over(link->raised);
    PyList_SetItem(link->results, (Py_ssize_t)index, result);
    return ++link->sink.answered == link->count;
}

ps_link *ps_link_new(int fd, uint64_t linger_ns, uint32_t max_payload, int *error)
{
    ps_link *link = ps_sys.allocate(sizeof *link);
    *error = -ENOMEM;
    if (!link)
        return NULL;
    memset(link, 0, sizeof *link);
    link->sink = (ps_sink){.context = link, .enter = link_enter, .leave = link_leave, .check = link_check,
                           .take = link_take, .object_new = object_new, .object_release = object_release};
    link->client = ps__client_new(fd, linger_ns, max_payload, error);
    if (link->client)
        return link;
    ps__free(link);
    return NULL;
}

void ps_link_free(ps_link *link)
{
    if (!link)
        return;
    link_enter(link);
    ps__client_free(link->client, &link->sink);
    link_leave(link);
    ps__free(link);
}

uint32_t ps_link_next_id(ps_link *link)
{
    if (++link->client->next_id == 0) /* 0 means "no id" in what the server sends of itself */
        link->client->next_id = 1;
    return link->client->next_id;
}

static uint64_t deadline(int64_t timeout_ns)
{
    return timeout_ns < 0 ? UINT64_MAX : ps__now_ns() + (uint64_t)timeout_ns;
}

static void begin_call(ps_link *link, uintptr_t inbox, uintptr_t raised)
{
    link->inbox = (PyObject *)inbox;
    link->raised = (PyObject *)raised;
    link->results = NULL;
    link->count = link->sink.answered = 0;
    link->any = false;
}

int ps_link_send(ps_link *link, uint8_t kind, uint8_t flags, uint16_t code, uint32_t request_id, uintptr_t payload,
                 int64_t timeout_ns, uintptr_t raised)
{
    Py_buffer view;
    begin_call(link, 0, raised);
    link_enter(link);
    if (PyObject_GetBuffer((PyObject *)payload, &view, PyBUF_SIMPLE) < 0) {
        int error = hand_over(link->raised);
        link_leave(link);
        return error;
    }
    ps_frame frame = {.payload = view.buf, .size = (uint32_t)view.len, .kind = kind, .flags = flags, .code = code,
                      .request_id = request_id};
    int error = ps__client_send(link->client, &frame, deadline(timeout_ns), &link->sink);
    link_enter(link);
    PyBuffer_Release(&view);
    link_leave(link);
    return error;
}

int ps_link_receive(ps_link *link, int64_t timeout_ns, uintptr_t inbox, uintptr_t raised)
{
    begin_call(link, inbox, raised);
    link->any = true;
    return ps__client_receive(link->client, deadline(timeout_ns), &link->sink);
}

/* The requests of one exchange, and the buffers they lie in. */
typedef struct requests {
    ps_payload *payloads;
    Py_buffer *views;
    Py_ssize_t count;
} requests;

static int open_requests(requests *r, PyObject *payloads)
{
    Py_ssize_t count = PyList_GET_SIZE(payloads);
    r->count = 0;
    r->payloads = ps_sys.allocate((size_t)count * sizeof *r->payloads);
    r->views = ps_sys.allocate((size_t)count * sizeof *r->views);
    if (!r->payloads || !r->views)
        return PyErr_NoMemory(), -1;
    for (; r->count < count; r->count++) {
        Py_buffer *view = &r->views[r->count];
        if (PyObject_GetBuffer(PyList_GET_ITEM(payloads, r->count), view, PyBUF_SIMPLE) < 0)
            return -1;
        r->payloads[r->count] = (ps_payload){view->buf, (size_t)view->len};
    }
    return 0;
}

static void close_requests(requests *r)
{
    for (Py_ssize_t i = 0; i < r->count; i++)
        PyBuffer_Release(&r->views[i]);
    ps__free(r->views);
    ps__free(r->payloads);
}

int ps_link_request(ps_link *link, uint16_t service_number, uintptr_t payloads, uintptr_t results, uint32_t window,
                    int64_t timeout_ns, uintptr_t inbox, uintptr_t raised)
{
    requests r;
    uint64_t deadline_ns = deadline(timeout_ns);
    begin_call(link, inbox, raised);
    link_enter(link);
    int error = open_requests(&r, (PyObject *)payloads) < 0 ? hand_over(link->raised) : 0;
    if (error == 0 && r.count) {
        uint32_t count = (uint32_t)r.count;
        link->results = (PyObject *)results;
        link->count = count;
        if (link->client->next_id > UINT32_MAX - count)
            link->client->next_id = 0; /* ids of one exchange don't wrap */
        link->first_id = link->client->next_id + 1;
        link->client->next_id += count;
        error = ps__client_exchange(link->client, service_number, r.payloads, count, link->first_id, window, deadline_ns,
                                    &link->sink);
    }
    link_enter(link);
    close_requests(&r);
    link_leave(link);
    return error;
}
