/* outlet.c: what a client sends whose connection somebody else's loop watches: its requests, gathered for one send.
 *
 * A type of Python's: an object of it numbers the requests of one connection, enters who waits, and packs small requests
 * one behind the other; who owns the socket takes them. What is no ordinary request is refused, and sent otherwise. All
 * is called in the loop's thread, and keeps the GIL. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/wire.h"
#include "python/python.h"

/* As in pysock/engine/outlet.py; what they mean stands there. */
enum { OUTLET_SMALL = 16 * 1024, OUTLET_FULL = 64 * 1024, OUTLET_SHARED_NS = 1000 * 1000, OUTLET_PARTS = 16 };

/* Of what is gathered and the next payload. */
enum { OUTLET_ROOM = OUTLET_FULL + OUTLET_SMALL };

typedef struct outlet {
    PyObject_HEAD
    PyObject *waiting, *unwanted;  /* a dict and a set: an id is taken while it is in one of them */
    PyObject *gathered, *deadline; /* what is called */
    PyObject *shared;              /* the deadline of the last request: a list (when, first id, last id); or NULL */
    double seconds;                /* its timeout */
    uint64_t until_ns;             /* when it is the next one's no more */
    uint32_t last_shared;          /* its last id */
    uint32_t window, largest, id;  /* id: the last one */
    int timed;
    bool again;                    /* ids have begun anew: each is looked at */
    bool told;                     /* that something is gathered */
    size_t have;
    uint8_t *bytes;
} outlet;

static PyObject *outlet_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"waiting", "unwanted", "gathered", "deadline", "window", "largest", "timed", "after", NULL};
    PyObject *waiting, *unwanted, *gathered, *deadline;
    unsigned window, largest, after = 0;
    int timed;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!OOIIp|I", names, &PyDict_Type, &waiting, &PySet_Type, &unwanted,
                                     &gathered, &deadline, &window, &largest, &timed, &after))
        return NULL;
    outlet *out = (outlet *)type->tp_alloc(type, 0);
    if (!out)
        return NULL;
    out->waiting = Py_NewRef(waiting);
    out->unwanted = Py_NewRef(unwanted);
    out->gathered = Py_NewRef(gathered);
    out->deadline = Py_NewRef(deadline);
    out->window = window;
    out->largest = largest < OUTLET_SMALL ? largest : OUTLET_SMALL;
    out->timed = timed;
    out->id = after;
    out->bytes = PyMem_Malloc(OUTLET_ROOM + PS_HEADER_SIZE + PS_DEADLINE_SIZE);
    if (out->bytes)
        return (PyObject *)out;
    Py_DECREF(out);
    return PyErr_NoMemory();
}

/* There is no tp_clear: whatever makes a circle with this one has it, the owner of what is called above all. */
static int outlet_traverse(PyObject *self, visitproc visit, void *arg)
{
    outlet *out = (outlet *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(out->waiting);
    Py_VISIT(out->unwanted);
    Py_VISIT(out->gathered);
    Py_VISIT(out->deadline);
    Py_VISIT(out->shared);
    return 0;
}

static void outlet_free(PyObject *self)
{
    outlet *out = (outlet *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(out->waiting);
    Py_XDECREF(out->unwanted);
    Py_XDECREF(out->gathered);
    Py_XDECREF(out->deadline);
    Py_XDECREF(out->shared);
    PyMem_Free(out->bytes);
    type->tp_free(self);
    Py_DECREF(type);
}

/* NULL with an exception set. When they have begun anew, one is left out that may still be answered. */
static PyObject *outlet_next_id(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    outlet *out = (outlet *)self;
    for (;;) {
        if (++out->id == 0) {
            out->again = true;
            continue;
        }
        PyObject *id = PyLong_FromUnsignedLong(out->id);
        if (!id || !out->again)
            return id;
        int taken = PyDict_Contains(out->waiting, id);
        if (taken == 0)
            taken = PySet_Contains(out->unwanted, id);
        if (taken == 0)
            return id;
        Py_DECREF(id);
        if (taken < 0)
            return NULL;
    }
}

/* 0: the request has a deadline: the last one's, if that is as good, or one that is made. -1 with an exception set. */
static int outlet_due(outlet *out, PyObject *id, double seconds)
{
    uint64_t now_ns = ps__now_ns();
    if (out->shared && seconds == out->seconds && now_ns < out->until_ns && out->id - out->last_shared == 1) {
        out->last_shared = out->id;
        return PyList_SetItem(out->shared, 2, Py_NewRef(id));
    }
    uint32_t number = out->id;
    PyObject *shared = PyObject_CallFunction(out->deadline, "dO", (double)now_ns / 1e9 + seconds, id);
    if (!shared || !PyList_CheckExact(shared)) {
        Py_XDECREF(shared);
        return PyErr_Occurred() ? -1 : 0;
    }
    Py_XSETREF(out->shared, shared);
    out->seconds = seconds;
    out->until_ns = now_ns + (uint64_t)fmin(OUTLET_SHARED_NS, seconds * 1e9 / OUTLET_PARTS);
    out->last_shared = number;
    return 0;
}

static void outlet_pack(outlet *out, uint32_t id, uint16_t code, PyObject *payload, double seconds)
{
    uint8_t *to = out->bytes + out->have;
    size_t size = (size_t)PyBytes_GET_SIZE(payload), prefix = 0;
    if (out->timed && seconds >= 0 && seconds <= UINT32_MAX / 1e6) {
        prefix = PS_DEADLINE_SIZE;
        ps__put32(to + PS_HEADER_SIZE, (uint32_t)lrint(seconds * 1e6));
    }
    ps__write_header(to, (uint32_t)(prefix + size), PS_SRM, prefix ? PS_DEADLINE : 0, code, id);
    memcpy(to + PS_HEADER_SIZE + prefix, PyBytes_AS_STRING(payload), size);
    out->have += PS_HEADER_SIZE + prefix + size;
}

/* Whoever sends is told once that there is something. */
static int outlet_tell(outlet *out, bool at_once)
{
    if (out->told && !at_once)
        return 0;
    PyObject *done = PyObject_CallOneArg(out->gathered, at_once ? Py_True : Py_False);
    out->told = done && out->have;
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static size_t outlet_in_flight(const outlet *out)
{
    return (size_t)(PyDict_GET_SIZE(out->waiting) + PySet_GET_SIZE(out->unwanted));
}

static bool outlet_is_ordinary(const outlet *out, PyObject *payload)
{
    size_t size = PyBytes_CheckExact(payload) ? (size_t)PyBytes_GET_SIZE(payload) : SIZE_MAX;
    return size <= out->largest && out->have + size <= OUTLET_ROOM && outlet_in_flight(out) < out->window;
}

/* The number; 0: it isn't ordinary; or it isn't any more: what was called may itself have gathered. */
static PyObject *outlet_submit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    outlet *out = (outlet *)self;
    unsigned long code = count == 4 ? PyLong_AsUnsignedLong(args[1]) : ULONG_MAX;
    double seconds = code > UINT16_MAX ? 0 : args[3] == Py_None ? -1 : PyFloat_AsDouble(args[3]);
    if (code > UINT16_MAX || PyErr_Occurred())
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "submit(waiter, service, payload, seconds)");
    if (!outlet_is_ordinary(out, args[2]))
        return PyLong_FromLong(0);
    PyObject *id = outlet_next_id(self, NULL);
    uint32_t number = out->id;
    if (!id || (seconds >= 0 && outlet_due(out, id, seconds)) || !outlet_is_ordinary(out, args[2])) {
        Py_XDECREF(id);
        return PyErr_Occurred() ? NULL : PyLong_FromLong(0);
    }
    bool idle = outlet_in_flight(out) == 0 && !out->have;
    if (PyDict_SetItem(out->waiting, id, args[0]) == 0) {
        outlet_pack(out, number, (uint16_t)code, args[2], seconds);
        if (outlet_tell(out, idle || out->have >= OUTLET_FULL) == 0)
            return id;
    }
    Py_DECREF(id);
    return NULL;
}

static PyObject *outlet_take(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    outlet *out = (outlet *)self;
    PyObject *taken = PyBytes_FromStringAndSize((const char *)out->bytes, (Py_ssize_t)out->have);
    if (taken) {
        out->have = 0;
        out->told = false;
    }
    return taken;
}

static PyMethodDef outlet_methods[] = {
    {"submit", (PyCFunction)(void (*)(void))outlet_submit, METH_FASTCALL, NULL},
    {"next_id", outlet_next_id, METH_NOARGS, NULL},
    {"take", outlet_take, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot outlet_slots[] = {
    {Py_tp_new, outlet_new},          {Py_tp_traverse, outlet_traverse}, {Py_tp_dealloc, outlet_free},
    {Py_tp_methods, outlet_methods}, {0, NULL},
};

static PyType_Spec outlet_spec = {
    .name = "pysock.engine.native.outlet.NativeOutlet",
    .basicsize = sizeof(outlet),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = outlet_slots,
};

int ps_pyoutlet_type(uintptr_t list)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *type = PyType_FromSpec(&outlet_spec);
    int error = type ? PyList_Append((PyObject *)list, type) : -1;
    Py_XDECREF(type);
    PyErr_Clear();
    PyGILState_Release(gil);
    return error ? -ENOMEM : 0;
}
