/* link.c: the blocking client, in Python's terms. */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "client/link.h"
#include "client/share.h"
#include "python/python.h"

struct ps_pylink {
    ps_link *link;
};

/* One call of one thread. */
typedef struct pycall {
    ps_sink sink;
    PyObject *inbox, *raised, *results;
    uint32_t first_id, count, errors;
    bool inside, any; /* any: it waits for one frame, whatever it is */
    bool listens;     /* it waits for one that nobody asked for */
    bool greets;      /* the connection isn't initiated yet */
    uint8_t answer;
    bool keeps; /* it began with the GIL held */
    PyGILState_STATE gil;
    PyThreadState *thread;
} pycall;

static void link_enter(void *context)
{
    pycall *call = context;
    if (!call->inside && call->keeps)
        PyEval_RestoreThread(call->thread);
    else if (!call->inside)
        call->gil = PyGILState_Ensure();
    call->inside = true;
}

static void link_leave(void *context)
{
    pycall *call = context;
    if (call->inside && call->keeps)
        call->thread = PyEval_SaveThread();
    else if (call->inside)
        PyGILState_Release(call->gil);
    call->inside = false;
}

static int link_check(void *context)
{
    pycall *call = context;
    return PyErr_CheckSignals() < 0 ? ps__py_hand_over(call->raised) : 0;
}

static PyObject *payload_object(const ps_frame *frame, void *object)
{
    return object ? object : PyBytes_FromStringAndSize((const char *)frame->payload, (Py_ssize_t)frame->size);
}

/* A frame nobody waits for in particular goes to the inbox. */
static int to_inbox(pycall *call, const ps_frame *frame, void *object)
{
    PyObject *payload = payload_object(frame, object), *item = NULL, *done = NULL;
    if (payload)
        item = Py_BuildValue("(iiiIO)", frame->kind, frame->flags, frame->code, (unsigned)frame->request_id, payload);
    if (item)
        done = PyObject_CallMethod(call->inbox, "append", "(O)", item);
    Py_XDECREF(payload);
    Py_XDECREF(item);
    if (!done)
        return ps__py_hand_over(call->raised);
    Py_DECREF(done);
    return call->any || call->listens;
}

static PyObject *result_object(const ps_frame *frame, void *object)
{
    PyObject *payload = payload_object(frame, object);
    if (!payload || frame->kind == PS_REPLY)
        return payload;
    return Py_BuildValue("(iINi)", frame->code, (unsigned)frame->request_id, payload, frame->flags);
}

/* What ends the initiation of a connection has no place in the middle of one. Where a frame is only sent it may be the
 * answer to a PROOF, which the caller looks for. */
static bool is_misplaced(const pycall *call, const ps_frame *frame)
{
    bool initiates = frame->kind == PS_CIR_ACCEPTED || frame->kind == PS_CIR_REFUSED || frame->kind == PS_CHALLENGE;
    return initiates && !call->any && !call->greets;
}

static bool is_unasked(const ps_frame *frame)
{
    bool answers = frame->kind == PS_REPLY || frame->kind == PS_PONG || (frame->kind == PS_ERROR && frame->request_id);
    return !answers;
}

static bool is_own(const pycall *call, const ps_frame *frame)
{
    Py_ssize_t index = (Py_ssize_t)(frame->request_id - call->first_id);
    return ps__answers(frame, call->answer, call->first_id, call->count) &&
           PyList_GET_ITEM(call->results, index) == Py_None;
}

static void keep_result(pycall *call, const ps_frame *frame, PyObject *result)
{
    call->errors += frame->kind == PS_ERROR;
    PyList_SetItem(call->results, (Py_ssize_t)(frame->request_id - call->first_id), result);
    __atomic_add_fetch(&call->sink.answered, 1, __ATOMIC_RELAXED);
}

static int link_take(void *context, const ps_frame *frame, void *object)
{
    pycall *call = context;
    if (is_misplaced(call, frame)) {
        Py_XDECREF((PyObject *)object);
        return -EPROTO;
    }
    if (call->any || is_unasked(frame) || !is_own(call, frame))
        return to_inbox(call, frame, object); /* the last are of streams, or come too late */
    PyObject *result = result_object(frame, object);
    if (!result)
        return ps__py_hand_over(call->raised);
    keep_result(call, frame, result);
    return call->sink.answered == call->count;
}

static void *link_result(void *context, const ps_frame *frame, void *object)
{
    (void)context;
    PyObject *result = result_object(frame, object);
    if (!result)
        PyErr_Clear();
    return result;
}

static bool link_keep(void *context, const ps_frame *frame, void *result)
{
    pycall *call = context;
    if (!is_own(call, frame))
        return false;
    keep_result(call, frame, result);
    return true;
}

static bool link_has(void *context)
{
    pycall *call = context;
    int truth = call->listens ? PyObject_IsTrue(call->inbox) : 0;
    if (truth < 0)
        ps__py_hand_over(call->raised);
    return truth != 0;
}

static void begin_call(pycall *call, uintptr_t inbox, uintptr_t raised)
{
    *call = (pycall){.inbox = (PyObject *)inbox, .raised = (PyObject *)raised};
    call->sink = (ps_sink){.context = call, .enter = link_enter, .leave = link_leave, .check = link_check,
                           .take = link_take, .result = link_result, .keep = link_keep, .has = link_has,
                           .object_new = ps__py_object_new, .object_unref = ps__py_object_unref};
}

ps_pylink *ps_pylink_new(int fd, uint64_t linger_ns, uint32_t max_payload, int *error)
{
    ps_pylink *pylink = ps_sys.allocate(sizeof *pylink);
    *error = -ENOMEM;
    if (!pylink)
        return NULL;
    pylink->link = ps__link_new(fd, linger_ns, max_payload, error);
    if (pylink->link)
        return pylink;
    ps__free(pylink);
    return NULL;
}

int ps_pylink_drain(ps_pylink *pylink, uintptr_t raised)
{
    pycall call;
    begin_call(&call, 0, raised);
    int result = ps__share_drain(pylink->link, &call.sink);
    link_leave(&call);
    return result;
}

void ps_pylink_close(ps_pylink *pylink)
{
    ps__share_break(pylink->link);
}

void ps_pylink_agree(ps_pylink *pylink, uint32_t features)
{
    pylink->link->timed = features & PS_FEATURE_DEADLINE;
    pylink->link->takes_back = features & PS_FEATURE_CANCEL;
    pylink->link->features = features;
}

void ps_pylink_disown(ps_pylink *pylink)
{
    pylink->link->fd = -1;
}

void ps_pylink_free(ps_pylink *pylink)
{
    pycall call;
    begin_call(&call, 0, 0);
    link_enter(&call);
    ps__link_free(pylink->link, &call.sink);
    link_leave(&call);
    ps__free(pylink);
}

int ps_pylink_broken(const ps_pylink *pylink)
{
    return pylink->link->broken;
}

void ps_pylink_abandon(ps_pylink *pylink)
{
    ps__link_abandon(pylink->link);
}

uint32_t ps_pylink_next_id(ps_pylink *pylink)
{
    return ps__share_ids(pylink->link, 1);
}

static uint64_t deadline(int64_t timeout_ns)
{
    return timeout_ns < 0 ? UINT64_MAX : ps__now_ns() + (uint64_t)timeout_ns;
}

int ps_pylink_send(ps_pylink *pylink, uint8_t kind, uint8_t flags, uint16_t code, uint32_t request_id, uintptr_t payload,
                 int64_t timeout_ns, uintptr_t inbox, uintptr_t raised)
{
    Py_buffer view;
    pycall call;
    begin_call(&call, inbox, raised);
    call.greets = kind == PS_PROOF;
    link_enter(&call);
    if (PyObject_GetBuffer((PyObject *)payload, &view, PyBUF_SIMPLE) < 0) {
        int error = ps__py_hand_over(call.raised);
        link_leave(&call);
        return error;
    }
    ps_frame frame = {.payload = view.buf, .size = (uint32_t)view.len, .kind = kind, .flags = flags, .code = code,
                      .request_id = request_id};
    int error = ps__link_send(pylink->link, &frame, deadline(timeout_ns), &call.sink);
    link_enter(&call);
    PyBuffer_Release(&view);
    link_leave(&call);
    return error;
}

int ps_pylink_receive(ps_pylink *pylink, int64_t timeout_ns, uintptr_t inbox, uintptr_t raised)
{
    pycall call;
    begin_call(&call, inbox, raised);
    call.any = true;
    int result = ps__link_receive(pylink->link, deadline(timeout_ns), &call.sink);
    link_leave(&call);
    return result;
}

int ps_pylink_listen(ps_pylink *pylink, int has, int64_t timeout_ns, uintptr_t inbox, uintptr_t raised)
{
    pycall call;
    begin_call(&call, inbox, raised);
    call.listens = call.sink.greedy = true;
    if (!has)
        call.sink.has = NULL;
    int result = ps__link_receive(pylink->link, deadline(timeout_ns), &call.sink);
    link_leave(&call);
    return result;
}

/* The requests of one exchange. The caller's list keeps them; what isn't bytes has its buffer locked as well. */
typedef struct requests {
    ps_payload *payloads;
    Py_buffer *views; /* allocated for the first that isn't bytes */
    Py_ssize_t count, view_count;
} requests;

static int open_view(requests *r, PyObject *payload, Py_ssize_t most)
{
    if (!r->views)
        r->views = ps_sys.allocate((size_t)most * sizeof *r->views);
    if (!r->views)
        return -1;
    Py_buffer *view = &r->views[r->view_count];
    if (PyObject_GetBuffer(payload, view, PyBUF_SIMPLE) < 0)
        return -1;
    r->view_count++;
    r->payloads[r->count] = (ps_payload){view->buf, (size_t)view->len};
    return 0;
}

/* -EINVAL: one of them can't be sent, or is larger than most. */
static int open_requests(requests *r, PyObject *payloads, size_t most)
{
    Py_ssize_t count = PyList_GET_SIZE(payloads);
    *r = (requests){.payloads = ps_sys.allocate((size_t)count * sizeof *r->payloads)};
    if (!r->payloads)
        return -ENOMEM;
    for (; r->count < count; r->count++) {
        PyObject *payload = PyList_GET_ITEM(payloads, r->count);
        if (PyBytes_CheckExact(payload))
            r->payloads[r->count] =
                (ps_payload){(uint8_t *)PyBytes_AS_STRING(payload), (size_t)PyBytes_GET_SIZE(payload)};
        else if (open_view(r, payload, count - r->count) < 0) {
            PyErr_Clear();
            return -EINVAL;
        }
        if (r->payloads[r->count].size > most)
            return -EINVAL;
    }
    return 0;
}

static void close_requests(requests *r)
{
    for (Py_ssize_t i = 0; i < r->view_count; i++)
        PyBuffer_Release(&r->views[i]);
    ps__free(r->views);
    ps__free(r->payloads);
}

/* Nobody waits for these any more. What the kernel doesn't take now, or another thread is in the way of, is left: the
 * server does in vain then what it would have been spared. */
static void take_back(ps_link *link, const pycall *call, uint32_t window)
{
    uint32_t sent = call->sink.answered + window;
    for (uint32_t i = 0; i < call->count && i < sent; i++) {
        if (PyList_GET_ITEM(call->results, (Py_ssize_t)i) != Py_None)
            continue;
        pycall other;
        ps_frame frame = {.kind = PS_CANCEL, .request_id = call->first_id + i};
        begin_call(&other, (uintptr_t)call->inbox, (uintptr_t)call->raised);
        other.keeps = other.inside = true;
        int error = ps__link_send(link, &frame, ps__now_ns(), &other.sink);
        link_enter(&other);
        if (error)
            return;
    }
}

static int exchange(ps_link *link, pycall *call, uint8_t kind, uint16_t number, const requests *r, uint32_t window,
                    uint64_t deadline_ns)
{
    call->count = (uint32_t)r->count;
    call->first_id = ps__share_ids(link, call->count);
    call->answer = kind == PS_PING ? PS_PONG : PS_REPLY;
    if (kind == PS_PING)
        return ps__link_ping(link, r->payloads, call->first_id, deadline_ns, &call->sink);
    return ps__link_exchange(link, number, r->payloads, call->count, call->first_id, window, deadline_ns, &call->sink);
}

/* Of a call that failed, in the place of each answer that is missing: the request's id, where the kernel has taken it
 * whole, or False. */
static void tell_fates(const pycall *call)
{
    for (uint32_t i = 0; i < call->count; i++) {
        if (PyList_GET_ITEM(call->results, (Py_ssize_t)i) != Py_None)
            continue;
        PyObject *fate = i < call->sink.handed ? PyLong_FromUnsignedLong(call->first_id + i) : Py_NewRef(Py_False);
        if (!fate)
            PyErr_Clear(); /* None: it isn't known */
        else
            PyList_SetItem(call->results, (Py_ssize_t)i, fate);
    }
}

static int request(ps_pylink *pylink, pycall *call, PyObject *const *args)
{
    requests r = {.payloads = NULL};
    uint8_t kind = (uint8_t)PyLong_AsLong(args[0]);
    uint16_t number = (uint16_t)PyLong_AsLong(args[1]);
    uint32_t most = (uint32_t)PyLong_AsUnsignedLong(args[3]), window = (uint32_t)PyLong_AsUnsignedLong(args[5]);
    uint64_t deadline_ns = deadline(PyLong_AsLongLong(args[6]));
    int error = PyErr_Occurred() ? ps__py_hand_over(call->raised) : open_requests(&r, args[2], most);
    if (error == -ECANCELED)
        return error;
    if (error == 0 && r.count)
        error = exchange(pylink->link, call, kind, number, &r, window, deadline_ns);
    link_enter(call);
    if (error == -ETIMEDOUT && kind == PS_SRM && pylink->link->takes_back && !pylink->link->broken)
        take_back(pylink->link, call, window);
    if (error < 0 && error != -EINVAL)
        tell_fates(call);
    close_requests(&r);
    return error < 0 ? error : (int)call->errors;
}

static PyObject *link_request(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    ps_pylink *pylink = PyCapsule_GetPointer(self, NULL);
    pycall call;
    if (!pylink || count != 10)
        return PyErr_Occurred() ? NULL : PyLong_FromLong(-EINVAL);
    begin_call(&call, (uintptr_t)args[7], (uintptr_t)args[8]);
    call.keeps = call.inside = true;
    call.results = args[4];
    if (PyBytes_CheckExact(args[9]) && PyBytes_GET_SIZE(args[9]) == PS_TRACE_SIZE)
        call.sink.trace = (const uint8_t *)PyBytes_AS_STRING(args[9]);
    return PyLong_FromLong(request(pylink, &call, args));
}

static PyMethodDef link_method = {"request", (PyCFunction)(void (*)(void))link_request, METH_FASTCALL, NULL};

static void link_free(PyObject *self)
{
    ps_pylink_free(PyCapsule_GetPointer(self, NULL));
}

int ps_pylink_method(ps_pylink *pylink, uintptr_t list)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *self = PyCapsule_New(pylink, NULL, NULL);
    PyObject *function = self ? PyCFunction_New(&link_method, self) : NULL;
    int error = function ? PyList_Append((PyObject *)list, function) : -1;
    if (error == 0)
        PyCapsule_SetDestructor(self, link_free);
    Py_XDECREF(function);
    Py_XDECREF(self);
    PyErr_Clear();
    PyGILState_Release(gil);
    return error ? -ENOMEM : 0;
}
