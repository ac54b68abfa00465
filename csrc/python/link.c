/* link.c: the blocking client, in Python's terms. */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "client/link.h"
#include "python/python.h"

struct ps_link {
    ps_client *client;
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
    return PyErr_CheckSignals() < 0 ? ps__py_hand_over(link->raised) : 0;
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
        return ps__py_hand_over(link->raised);
    Py_DECREF(done);
    return link->any;
}

static PyObject *result_object(const ps_frame *frame, void *object)
{
    PyObject *payload = payload_object(frame, object);
    if (!payload || frame->kind == PS_REPLY)
        return payload;
    return Py_BuildValue("(iN)", frame->code, payload);
}

/* What ends the initiation of a connection has no place in an exchange. Where a frame is only sent it may be the answer
 * to a PROOF, which the caller looks for. */
static bool is_misplaced(const ps_link *link, const ps_frame *frame)
{
    bool initiates = frame->kind == PS_CIR_ACCEPTED || frame->kind == PS_CIR_REFUSED || frame->kind == PS_CHALLENGE;
    return initiates && link->results;
}

static int link_take(void *context, const ps_frame *frame, void *object)
{
    ps_link *link = context;
    uint32_t index = frame->request_id - link->first_id;
    bool answers = frame->kind == PS_REPLY || (frame->kind == PS_ERROR && frame->request_id);
    if (is_misplaced(link, frame)) {
        Py_XDECREF((PyObject *)object);
        return -EPROTO;
    }
    if (link->any || !answers)
        return to_inbox(link, frame, object);
    if (index >= link->count || PyList_GET_ITEM(link->results, (Py_ssize_t)index) != Py_None) {
        Py_XDECREF((PyObject *)object); /* the late answer to a request that was given up */
        return 0;
    }
    PyObject *result = result_object(frame, object);
    if (!result)
        return ps__py_hand_over(link->raised);
    link->errors += frame->kind == PS_ERROR;
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
                           .take = link_take, .object_new = ps__py_object_new, .object_release = ps__py_object_unref};
    link->client = ps__client_new(fd, linger_ns, max_payload, error);
    if (link->client)
        return link;
    ps__free(link);
    return NULL;
}

/* False: another call runs. */
static bool begin(ps_link *link)
{
    return !__atomic_exchange_n(&link->busy, true, __ATOMIC_ACQUIRE);
}

static int end(ps_link *link, int result)
{
    __atomic_store_n(&link->busy, false, __ATOMIC_RELEASE);
    return result;
}

int ps_link_close(ps_link *link)
{
    if (!begin(link))
        return -EBUSY;
    link_enter(link);
    ps__client_close(link->client, &link->sink);
    link_leave(link);
    return end(link, 0);
}

void ps_link_free(ps_link *link)
{
    link_enter(link);
    ps__client_free(link->client, &link->sink);
    link_leave(link);
    ps__free(link);
}

int ps_link_broken(const ps_link *link)
{
    return link->client->broken;
}

void ps_link_abandon(ps_link *link)
{
    ps__client_abandon(link->client);
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

static bool begin_call(ps_link *link, uintptr_t inbox, uintptr_t raised)
{
    if (!begin(link))
        return false;
    link->inbox = (PyObject *)inbox;
    link->raised = (PyObject *)raised;
    link->results = NULL;
    link->count = link->errors = link->sink.answered = 0;
    link->any = false;
    return true;
}

int ps_link_send(ps_link *link, uint8_t kind, uint8_t flags, uint16_t code, uint32_t request_id, uintptr_t payload,
                 int64_t timeout_ns, uintptr_t inbox, uintptr_t raised)
{
    Py_buffer view;
    if (!begin_call(link, inbox, raised))
        return -EBUSY;
    link_enter(link);
    if (PyObject_GetBuffer((PyObject *)payload, &view, PyBUF_SIMPLE) < 0) {
        int error = ps__py_hand_over(link->raised);
        link_leave(link);
        return end(link, error);
    }
    ps_frame frame = {.payload = view.buf, .size = (uint32_t)view.len, .kind = kind, .flags = flags, .code = code,
                      .request_id = request_id};
    int error = ps__client_send(link->client, &frame, deadline(timeout_ns), &link->sink);
    link_enter(link);
    PyBuffer_Release(&view);
    link_leave(link);
    return end(link, error);
}

int ps_link_receive(ps_link *link, int64_t timeout_ns, uintptr_t inbox, uintptr_t raised)
{
    if (!begin_call(link, inbox, raised))
        return -EBUSY;
    link->any = true;
    return end(link, ps__client_receive(link->client, deadline(timeout_ns), &link->sink));
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
        else if (open_view(r, payload, count - r->count) < 0)
            return PyErr_Clear(), -EINVAL;
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

int ps_link_request(ps_link *link, uint16_t service_number, uintptr_t payloads, uint32_t most, uintptr_t results,
                    uint32_t window, int64_t timeout_ns, uintptr_t inbox, uintptr_t raised)
{
    requests r;
    uint64_t deadline_ns = deadline(timeout_ns);
    if (!begin_call(link, inbox, raised))
        return -EBUSY;
    link_enter(link);
    int error = open_requests(&r, (PyObject *)payloads, most);
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
    return end(link, error < 0 ? error : (int)link->errors);
}
