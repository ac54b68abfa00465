/* link.c: the blocking client, in Python's terms. */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "client/link.h"
#include "python/python.h"

struct ps_pylink {
    ps_link *link;
    ps_sink sink;
    /* of the call that runs: */
    PyObject *inbox, *raised, *results;
    uint32_t first_id, count, errors;
    bool inside, any; /* any: the call waits for one frame, whatever it is */
    bool busy;        /* a call runs: in another thread, or below a signal's handler in this one */
    PyGILState_STATE gil;
};

static void link_enter(void *context)
{
    ps_pylink *pylink = context;
    if (!pylink->inside)
        pylink->gil = PyGILState_Ensure();
    pylink->inside = true;
}

static void link_leave(void *context)
{
    ps_pylink *pylink = context;
    if (pylink->inside)
        PyGILState_Release(pylink->gil);
    pylink->inside = false;
}

static int link_check(void *context)
{
    ps_pylink *pylink = context;
    return PyErr_CheckSignals() < 0 ? ps__py_hand_over(pylink->raised) : 0;
}

static PyObject *payload_object(const ps_frame *frame, void *object)
{
    return object ? object : PyBytes_FromStringAndSize((const char *)frame->payload, (Py_ssize_t)frame->size);
}

/* A frame nobody waits for in particular goes to the inbox. */
static int to_inbox(ps_pylink *pylink, const ps_frame *frame, void *object)
{
    PyObject *payload = payload_object(frame, object), *item = NULL, *done = NULL;
    if (payload)
        item = Py_BuildValue("(iiiIO)", frame->kind, frame->flags, frame->code, (unsigned)frame->request_id, payload);
    if (item)
        done = PyObject_CallMethod(pylink->inbox, "append", "(O)", item);
    Py_XDECREF(payload);
    Py_XDECREF(item);
    if (!done)
        return ps__py_hand_over(pylink->raised);
    Py_DECREF(done);
    return pylink->any;
}

static PyObject *result_object(const ps_frame *frame, void *object)
{
    PyObject *payload = payload_object(frame, object);
    if (!payload || frame->kind == PS_REPLY)
        return payload;
    return Py_BuildValue("(iIN)", frame->code, (unsigned)frame->request_id, payload);
}

/* What ends the initiation of a connection has no place in an exchange. Where a frame is only sent it may be the answer
 * to a PROOF, which the caller looks for. */
static bool is_misplaced(const ps_pylink *pylink, const ps_frame *frame)
{
    bool initiates = frame->kind == PS_CIR_ACCEPTED || frame->kind == PS_CIR_REFUSED || frame->kind == PS_CHALLENGE;
    return initiates && pylink->results;
}

static int link_take(void *context, const ps_frame *frame, void *object)
{
    ps_pylink *pylink = context;
    uint32_t index = frame->request_id - pylink->first_id;
    bool answers = frame->kind == PS_REPLY || (frame->kind == PS_ERROR && frame->request_id);
    if (is_misplaced(pylink, frame)) {
        Py_XDECREF((PyObject *)object);
        return -EPROTO;
    }
    if (pylink->any || !answers)
        return to_inbox(pylink, frame, object);
    if (index >= pylink->count || PyList_GET_ITEM(pylink->results, (Py_ssize_t)index) != Py_None) {
        Py_XDECREF((PyObject *)object); /* the late answer to a request that was given up */
        return 0;
    }
    PyObject *result = result_object(frame, object);
    if (!result)
        return ps__py_hand_over(pylink->raised);
    pylink->errors += frame->kind == PS_ERROR;
    PyList_SetItem(pylink->results, (Py_ssize_t)index, result);
    return ++pylink->sink.answered == pylink->count;
}

ps_pylink *ps_pylink_new(int fd, uint64_t linger_ns, uint32_t max_payload, int *error)
{
    ps_pylink *pylink = ps_sys.allocate(sizeof *pylink);
    *error = -ENOMEM;
    if (!pylink)
        return NULL;
    memset(pylink, 0, sizeof *pylink);
    pylink->sink = (ps_sink){.context = pylink, .enter = link_enter, .leave = link_leave, .check = link_check,
                           .take = link_take, .object_new = ps__py_object_new, .object_unref = ps__py_object_unref};
    pylink->link = ps__link_new(fd, linger_ns, max_payload, error);
    if (pylink->link)
        return pylink;
    ps__free(pylink);
    return NULL;
}

/* False: another call runs. */
static bool claim(ps_pylink *pylink)
{
    return !__atomic_exchange_n(&pylink->busy, true, __ATOMIC_ACQUIRE);
}

static int give_back(ps_pylink *pylink, int result)
{
    __atomic_store_n(&pylink->busy, false, __ATOMIC_RELEASE);
    return result;
}

int ps_pylink_close(ps_pylink *pylink)
{
    if (!claim(pylink))
        return -EBUSY;
    link_enter(pylink);
    ps__link_close(pylink->link, &pylink->sink);
    link_leave(pylink);
    return give_back(pylink, 0);
}

void ps_pylink_free(ps_pylink *pylink)
{
    link_enter(pylink);
    ps__link_free(pylink->link, &pylink->sink);
    link_leave(pylink);
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
    if (++pylink->link->next_id == 0) /* 0 means "no id" in what the server sends of itself */
        pylink->link->next_id = 1;
    return pylink->link->next_id;
}

static uint64_t deadline(int64_t timeout_ns)
{
    return timeout_ns < 0 ? UINT64_MAX : ps__now_ns() + (uint64_t)timeout_ns;
}

static bool begin_call(ps_pylink *pylink, uintptr_t inbox, uintptr_t raised)
{
    if (!claim(pylink))
        return false;
    pylink->inbox = (PyObject *)inbox;
    pylink->raised = (PyObject *)raised;
    pylink->results = NULL;
    pylink->count = pylink->errors = pylink->sink.answered = 0;
    pylink->any = false;
    return true;
}

int ps_pylink_send(ps_pylink *pylink, uint8_t kind, uint8_t flags, uint16_t code, uint32_t request_id, uintptr_t payload,
                 int64_t timeout_ns, uintptr_t inbox, uintptr_t raised)
{
    Py_buffer view;
    if (!begin_call(pylink, inbox, raised))
        return -EBUSY;
    link_enter(pylink);
    if (PyObject_GetBuffer((PyObject *)payload, &view, PyBUF_SIMPLE) < 0) {
        int error = ps__py_hand_over(pylink->raised);
        link_leave(pylink);
        return give_back(pylink, error);
    }
    ps_frame frame = {.payload = view.buf, .size = (uint32_t)view.len, .kind = kind, .flags = flags, .code = code,
                      .request_id = request_id};
    int error = ps__link_send(pylink->link, &frame, deadline(timeout_ns), &pylink->sink);
    link_enter(pylink);
    PyBuffer_Release(&view);
    link_leave(pylink);
    return give_back(pylink, error);
}

int ps_pylink_receive(ps_pylink *pylink, int64_t timeout_ns, uintptr_t inbox, uintptr_t raised)
{
    if (!begin_call(pylink, inbox, raised))
        return -EBUSY;
    pylink->any = true;
    return give_back(pylink, ps__link_receive(pylink->link, deadline(timeout_ns), &pylink->sink));
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
            r->payloads[r->count] = (ps_payload){(uint8_t *)PyBytes_AS_STRING(payload), (size_t)PyBytes_GET_SIZE(payload)};
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

int ps_pylink_request(ps_pylink *pylink, uint16_t service_number, uintptr_t payloads, uint32_t most, uintptr_t results,
                    uint32_t window, int64_t timeout_ns, uintptr_t inbox, uintptr_t raised)
{
    requests r;
    uint64_t deadline_ns = deadline(timeout_ns);
    if (!begin_call(pylink, inbox, raised))
        return -EBUSY;
    link_enter(pylink);
    int error = open_requests(&r, (PyObject *)payloads, most);
    if (error == 0 && r.count) {
        uint32_t count = (uint32_t)r.count;
        pylink->results = (PyObject *)results;
        pylink->count = count;
        if (pylink->link->next_id > UINT32_MAX - count)
            pylink->link->next_id = 0; /* ids of one exchange don't wrap */
        pylink->first_id = pylink->link->next_id + 1;
        pylink->link->next_id += count;
        error = ps__link_exchange(pylink->link, service_number, r.payloads, count, pylink->first_id, window, deadline_ns,
                                    &pylink->sink);
    }
    link_enter(pylink);
    close_requests(&r);
    link_leave(pylink);
    return give_back(pylink, error < 0 ? error : (int)pylink->errors);
}
