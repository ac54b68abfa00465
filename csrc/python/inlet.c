/* inlet.c: what comes in on a client's connection that somebody else's loop watches. It never waits.
 *
 * One call takes what the kernel has, cuts it into frames, and gives each reply to whoever waits for it, in a dict by its
 * request id: to a future or the like. What is left is Python's. The call keeps the GIL: around one that doesn't block,
 * to let it go would only be a chance for others to keep it. Who calls owns the descriptor. */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "base/wire.h"
#include "client/link.h"
#include "python/python.h"

/* A payload from LARGE on is received where it stays. So often is read at most in one call: the program's own work is
 * next in its loop. */
enum { INLET_ROOM = 256 * 1024, INLET_LARGE = 16 * 1024, INLET_READS = 4 };

typedef struct inlet {
    uint32_t max_payload, features;
    size_t have;     /* bytes of the buffer */
    ps_frame head;   /* of the large frame that is being received */
    PyObject *large; /* its payload; NULL: there is none */
    size_t large_have;
    PyObject *waiting, *inbox; /* of the call that runs */
    uint8_t *in;
} inlet;

/* Of one name, each, for all calls. */
static PyObject *inlet_set_result, *inlet_done;

/* 0; -1 with an exception set. Whoever waits may have been cancelled a moment ago: then nobody wants it. */
static int inlet_resolve(PyObject *waiter, PyObject *payload)
{
    PyObject *done = PyObject_CallMethodObjArgs(waiter, inlet_set_result, payload, NULL);
    if (done) {
        Py_DECREF(done);
        return 0;
    }
    PyObject *exception = ps__py_take_exception();
    done = PyObject_CallMethodObjArgs(waiter, inlet_done, NULL);
    bool was_cancelled = done == Py_True;
    Py_XDECREF(done);
    if (!was_cancelled)
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
    return was_cancelled ? 0 : -1;
}

static int inlet_append(const inlet *in, const ps_frame *frame, PyObject *payload)
{
    PyObject *item = Py_BuildValue("(iiiIO)", frame->kind, frame->flags, frame->code, (unsigned)frame->request_id, payload);
    PyObject *done = item ? PyObject_CallMethod(in->inbox, "append", "(O)", item) : NULL;
    Py_XDECREF(item);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int inlet_reply(const inlet *in, const ps_frame *frame, PyObject *payload)
{
    PyObject *id = PyLong_FromUnsignedLong(frame->request_id);
    PyObject *waiter = id ? PyDict_GetItemWithError(in->waiting, id) : NULL;
    int error = -1;
    if (waiter) {
        Py_INCREF(waiter);
        error = PyDict_DelItem(in->waiting, id);
        if (error == 0)
            error = inlet_resolve(waiter, payload);
        Py_DECREF(waiter);
    } else if (id && !PyErr_Occurred())
        error = inlet_append(in, frame, payload);
    Py_XDECREF(id);
    return error;
}

/* A whole frame; the reference to the payload is taken over. */
static int inlet_take(const inlet *in, const ps_frame *frame, PyObject *payload)
{
    if (!payload)
        return -1;
    bool is_whole = frame->kind == PS_REPLY && !frame->flags; /* or there is nothing that waits for it alone */
    int error = is_whole ? inlet_reply(in, frame, payload) : inlet_append(in, frame, payload);
    Py_DECREF(payload);
    return error;
}

static int inlet_begin_large(inlet *in, const ps_frame *frame, const uint8_t *data, size_t size)
{
    in->large = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)frame->size);
    if (!in->large)
        return -1;
    memcpy(PyBytes_AS_STRING(in->large), data, size);
    in->head = *frame;
    in->large_have = size;
    return 0;
}

/* 0, -errno; -1 with an exception set, which no errno of ours is. */
static int inlet_cut(inlet *in)
{
    size_t at = 0;
    int error = 0;
    while (error == 0 && in->have - at >= PS_HEADER_SIZE) {
        ps_frame frame = {.payload = NULL};
        ps__read_header(in->in + at, &frame);
        const uint8_t *payload = in->in + at + PS_HEADER_SIZE;
        size_t left = in->have - at - PS_HEADER_SIZE;
        error = ps__judge_server(&frame, in->max_payload, in->features);
        if (error || (frame.size > left && frame.size <= INLET_LARGE))
            break;
        if (frame.size > left) {
            error = inlet_begin_large(in, &frame, payload, left);
            at = in->have;
            break;
        }
        at += PS_HEADER_SIZE + frame.size;
        error = inlet_take(in, &frame, PyBytes_FromStringAndSize((const char *)payload, (Py_ssize_t)frame.size));
    }
    in->have -= at;
    if (at && in->have)
        memmove(in->in, in->in + at, in->have);
    return error;
}

static int inlet_finish_large(inlet *in)
{
    PyObject *payload = in->large;
    in->large = NULL;
    return inlet_take(in, &in->head, payload);
}

/* 1: there may be more; 0: that was all for now; < 0 as of inlet_cut. */
static int inlet_read(inlet *in, int fd)
{
    size_t missing = in->large ? in->head.size - in->large_have : 0;
    uint8_t *to = in->large ? (uint8_t *)PyBytes_AS_STRING(in->large) + in->large_have : in->in + in->have;
    size_t room = in->large ? missing : INLET_ROOM - in->have;
    ssize_t got = ps_sys.recvfrom(fd, to, room, MSG_DONTWAIT);
    if (got <= 0)
        return got == -EAGAIN || got == -EINTR ? 0 : got == 0 ? -ECONNRESET : (int)got;
    int error;
    if (in->large) {
        in->large_have += (size_t)got;
        error = (size_t)got == missing ? inlet_finish_large(in) : 0;
    } else {
        in->have += (size_t)got;
        error = inlet_cut(in);
    }
    return error ? error : (size_t)got == room || in->large;
}

static PyObject *inlet_receive(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    inlet *in = PyCapsule_GetPointer(self, NULL);
    long fd = in && count == 3 ? PyLong_AsLong(args[0]) : -1;
    if (fd < 0 || !PyDict_CheckExact(args[1]))
        return PyErr_Occurred() ? NULL : PyLong_FromLong(-EBADF);
    in->waiting = args[1];
    in->inbox = args[2];
    int more = 1;
    for (int i = 0; i < INLET_READS && more > 0; i++)
        more = inlet_read(in, (int)fd);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(more < 0 ? more : 0);
}

static PyObject *inlet_agree(PyObject *self, PyObject *features)
{
    inlet *in = PyCapsule_GetPointer(self, NULL);
    in->features = (uint32_t)PyLong_AsUnsignedLong(features);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef inlet_methods[] = {
    {"receive", (PyCFunction)(void (*)(void))inlet_receive, METH_FASTCALL, NULL},
    {"agree", inlet_agree, METH_O, NULL},
};

static void inlet_free(PyObject *self)
{
    inlet *in = PyCapsule_GetPointer(self, NULL);
    Py_XDECREF(in->large);
    PyMem_Free(in->in);
    PyMem_Free(in);
}

static PyObject *inlet_new(uint32_t max_payload)
{
    inlet *in = PyMem_Malloc(sizeof *in);
    uint8_t *buffer = in ? PyMem_Malloc(INLET_ROOM) : NULL;
    PyObject *self = buffer ? PyCapsule_New(in, NULL, inlet_free) : NULL;
    if (!self) {
        PyMem_Free(buffer);
        PyMem_Free(in);
        return NULL;
    }
    const uint32_t asked = PS_FEATURE_DEADLINE | PS_FEATURE_CANCEL | PS_FEATURE_GAP; /* for, until it is agreed on */
    *in = (inlet){.max_payload = max_payload, .features = asked, .in = buffer};
    return self;
}

static bool inlet_names(void)
{
    if (!inlet_set_result)
        inlet_set_result = PyUnicode_InternFromString("set_result");
    if (!inlet_done)
        inlet_done = PyUnicode_InternFromString("done");
    return inlet_set_result && inlet_done;
}

int ps_pyinlet_new(uint32_t max_payload, uintptr_t list)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *self = inlet_names() ? inlet_new(max_payload) : NULL;
    int error = self ? 0 : -1;
    for (size_t i = 0; error == 0 && i < sizeof inlet_methods / sizeof *inlet_methods; i++) {
        PyObject *function = PyCFunction_New(&inlet_methods[i], self);
        error = function ? PyList_Append((PyObject *)list, function) : -1;
        Py_XDECREF(function);
    }
    Py_XDECREF(self);
    PyErr_Clear();
    PyGILState_Release(gil);
    return error ? -ENOMEM : 0;
}
