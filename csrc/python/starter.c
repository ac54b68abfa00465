/* starter.c: a handler that the engine can call, made of one that is async: pysock/tasks/, in C.
 *
 * How a call begins is said in begin.c. */
#include <errno.h>

#include "python/call.h"

#define EACH(s)                                                                                                        \
    {&(s)->function, &(s)->tasks, &(s)->running, &(s)->task_type, &(s)->keywords, &(s)->told, &(s)->plain, &(s)->loop, \
     &(s)->base, &(s)->wants_turn, &(s)->enter, &(s)->leave, (PyObject **)&(s)->spare}

static int starter_traverse(PyObject *self, visitproc visit, void *arg)
{
    PyObject **const all[] = EACH((ps_starter *)self);
    Py_VISIT(Py_TYPE(self));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        Py_VISIT(*all[i]);
    return 0;
}

static int starter_clear(PyObject *self)
{
    PyObject **const all[] = EACH((ps_starter *)self);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        Py_CLEAR(*all[i]);
    return 0;
}

static void starter_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    starter_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *starter_call(PyObject *self, PyObject *const *args, size_t nargs, PyObject *names)
{
    ps_starter *s = (ps_starter *)self;
    if (!s->loop || PyVectorcall_NARGS(nargs) != 2 || names)
        return PyObject_Vectorcall(s->plain, args, nargs, names); /* it says what is wrong */
    return ps__py_begin_call(s, args);
}

static PyObject *starter_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"plain", "stays", "function", "tasks", "running", "task_type", "told", "enter", "leave", NULL};
    PyObject *plain, *function, *tasks, *running, *task_type, *told, *enter, *leave;
    int stays;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OpOOOOOOO", names, &plain, &stays, &function, &tasks, &running,
                                     &task_type, &told, &enter, &leave))
        return NULL;
    ps_starter *s = (ps_starter *)type->tp_alloc(type, 0);
    if (!s)
        return NULL;
    s->call = starter_call;
    s->plain = Py_NewRef(plain);
    s->stays = stays;
    s->function = Py_NewRef(function);
    s->tasks = Py_NewRef(tasks);
    s->running = Py_NewRef(running);
    s->task_type = Py_NewRef(task_type);
    s->told = Py_NewRef(told);
    s->enter = Py_NewRef(enter);
    s->leave = Py_NewRef(leave);
    return (PyObject *)s;
}

/* begin(loop, context, wants_turn): from now on handlers can be called. */
static PyObject *starter_begin(PyObject *self, PyObject *args)
{
    PyObject *loop, *base, *wants_turn;
    if (!PyArg_ParseTuple(args, "OOO", &loop, &base, &wants_turn))
        return NULL;
    ps_starter *s = (ps_starter *)self;
    Py_XSETREF(s->loop, Py_NewRef(loop));
    Py_XSETREF(s->base, Py_NewRef(base));
    Py_XSETREF(s->wants_turn, Py_NewRef(wants_turn));
    return ps__py_begin_calls(s) < 0 ? NULL : Py_NewRef(Py_None);
}

/* close(): no longer; and before the engine is closed. */
static PyObject *starter_close(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    ps_starter *s = (ps_starter *)self;
    s->py = NULL;
    ps__py_end_calls(s);
    Py_CLEAR(s->loop);
    Py_CLEAR(s->base);
    Py_CLEAR(s->keywords);
    Py_CLEAR(s->wants_turn);
    Py_RETURN_NONE;
}

static PyMethodDef starter_methods[] = {
    {"begin", starter_begin, METH_VARARGS, NULL},
    {"close", starter_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef starter_members[] = {
    {"function", PS_MEMBER_OBJECT, offsetof(ps_starter, function), PS_MEMBER_READONLY, NULL},
    {"stays", PS_MEMBER_BOOL, offsetof(ps_starter, stays), PS_MEMBER_READONLY, NULL},
    {"__vectorcalloffset__", PS_MEMBER_OFFSET, offsetof(ps_starter, call), PS_MEMBER_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot starter_slots[] = {
    {Py_tp_new, starter_new}, {Py_tp_traverse, starter_traverse}, {Py_tp_clear, starter_clear},
    {Py_tp_dealloc, starter_dealloc}, {Py_tp_methods, starter_methods}, {Py_tp_members, starter_members},
    {Py_tp_call, PyVectorcall_Call}, {0, NULL},
};

static PyType_Spec starter_spec = {
    .name = "pysock.Starter",
    .basicsize = sizeof(ps_starter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = starter_slots,
};

static int append_new(PyObject *list, PyObject *type)
{
    int error = type ? PyList_Append(list, type) : -1;
    Py_XDECREF(type);
    return error;
}

int ps_python_tasks(uintptr_t list)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    int error = ps__py_intern_names();
    if (error == 0)
        error = append_new((PyObject *)list, ps__py_call_type());
    if (error == 0)
        error = append_new((PyObject *)list, PyType_FromSpec(&starter_spec));
    PyErr_Clear();
    PyGILState_Release(gil);
    return error ? -ENOMEM : 0;
}
