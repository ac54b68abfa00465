/* call.c: one call of an async handler, as the coroutine that its task drives: pysock/tasks/call.py, in C.
 *
 * It steps the handler's coroutine, and what that returns or raises is the answer of its request at once; the task's own
 * result is None. The names of its attributes are those of the class Call there, and so is what they mean. A request that
 * waits for it has it in its record: nothing else is made for it. */
#include "python/call.h"

#include "base/sys.h"
#include "base/texts.h"

#if PS_HAS_EAGER_TASKS
#define OWN(c) {(PyObject **)&(c)->origin, &(c)->coroutine, &(c)->value, &(c)->error, &(c)->task}
#else
#define OWN(c)                                                                                                         \
    {(PyObject **)&(c)->origin, &(c)->coroutine, &(c)->value, &(c)->error, &(c)->task, &(c)->context, &(c)->awaited,   \
     &(c)->gate, &(c)->name, (PyObject **)&(c)->next}
#endif

static int call_traverse(PyObject *self, visitproc visit, void *arg)
{
    PyObject **const all[] = OWN((ps_call *)self);
    Py_VISIT(Py_TYPE(self));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        Py_VISIT(*all[i]);
    return 0;
}

static int call_clear(PyObject *self)
{
    PyObject **const all[] = OWN((ps_call *)self);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        Py_CLEAR(*all[i]);
    return 0;
}

static void call_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    call_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

ps_call *ps__py_call_new(ps_starter *origin, PyObject *coroutine)
{
    ps_call *call = (ps_call *)ps__py_type_of_calls->tp_alloc(ps__py_type_of_calls, 0);
    if (!call)
        return NULL;
    call->origin = (ps_starter *)Py_NewRef(origin);
    call->coroutine = Py_XNewRef(coroutine);
    return call;
}

/* -- its request ---------------------------------------------------------------------------------------------------- */

static int answer_request(ps_call *call, PyObject *reply)
{
    uint64_t handle = call->handle;
    ps_starter *origin = call->origin;
    call->handle = 0;
    if (!handle || !origin->py || !ps__py_answer_of_call(origin->py, handle, reply))
        return 0;
    PyObject *done = PyObject_CallNoArgs(origin->wants_turn ? origin->wants_turn : (PyObject *)&PyBool_Type);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* What was returned; an exception that was not raised isn't one. */
static int answer_with_value(ps_call *call, PyObject *value)
{
    if (!PyExceptionInstance_Check(value))
        return answer_request(call, value);
    PyErr_Format(PyExc_TypeError, PS_TEXT_NOT_BYTES, Py_TYPE(value)->tp_name, "");
    PyObject *error = ps__py_take_exception();
    int result = answer_request(call, error);
    Py_DECREF(error);
    return result;
}

/* Of one that isn't an Exception: a cancel, of whomever, or what leaves the loop, whose end answers all. */
static int answer_with_end(ps_call *call, PyObject *error)
{
    if (call->unwanted)
        return answer_request(call, Py_None);
    PyObject *done = PyObject_CallMethod(call->origin->tasks, "ended_itself", "OO", call, error);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static bool is_exception(PyObject *error)
{
    return PyObject_TypeCheck(error, (PyTypeObject *)PyExc_Exception);
}

/* It has waited for something, and so a request may wait for it. */
static int tell_request(ps_call *call)
{
    if (PySet_Discard(call->origin->running, (PyObject *)call) < 0)
        return -1;
    if (!call->error)
        return answer_with_value(call, call->value);
    return is_exception(call->error) ? answer_request(call, call->error) : answer_with_end(call, call->error);
}

/* -- its steps ------------------------------------------------------------------------------------------------------ */

/* What isn't an Exception goes on to the task. */
static int call_ended(ps_call *call)
{
    bool waited = call->task;
    call->done = true;
    if (waited && tell_request(call) < 0)
        return -1;
    if (call->error && !is_exception(call->error)) {
        PyErr_SetObject((PyObject *)Py_TYPE(call->error), call->error);
        return -1;
    }
    if (waited)
        Py_CLEAR(call->error); /* its traceback holds the frames */
    return 0;
}

static PySendResult call_settled(ps_call *call, PySendResult status, PyObject **result)
{
    if (status == PYGEN_NEXT)
        return status;
    if (!call->coroutine)
        return status; /* it never had one */
    if (status == PYGEN_RETURN)
        call->value = *result;
    else
        call->error = ps__py_take_exception();
    *result = NULL;
    Py_INCREF(call);
    PySendResult ended = call_ended(call) < 0 ? PYGEN_ERROR : ps__py_call_again(call, result);
    if (ended != PYGEN_NEXT)
        Py_CLEAR(call->task); /* which has it */
    Py_DECREF(call);
    return ended;
}

/* A step that took long, in the loop's own pass: of one within a turn the engine tells. What the facade raises is nobody's. */
static void step_took(const ps_call *call, uint64_t ns)
{
    const ps_starter *origin = call->origin;
    if (!origin->py || origin->py->turns || ns < origin->py->engine->options.held_up_ns)
        return;
    PyObject *raised = PyErr_Occurred() ? ps__py_take_exception() : NULL;
    PyObject *done = PyObject_CallMethod(origin->tasks, "held_up", "Od", origin->function, (double)ns / 1e9);
    if (!done)
        PyErr_WriteUnraisable(origin->tasks);
    Py_XDECREF(done);
    if (raised)
        PyErr_SetObject((PyObject *)Py_TYPE(raised), raised);
    Py_XDECREF(raised);
}

static PySendResult call_am_send(PyObject *self, PyObject *value, PyObject **result)
{
    ps_call *call = (ps_call *)self;
    uint64_t began = ps__tick_ns();
    PySendResult status = call_settled(call, ps__py_call_resume(call, value, result), result);
    step_took(call, ps__tick_ns() - began);
    return status;
}

static PyObject *call_next(PyObject *self)
{
    PyObject *result;
    PySendResult status = call_am_send(self, Py_None, &result);
    if (status == PYGEN_RETURN)
        Py_CLEAR(result);
    return result;
}

static PyObject *as_of_a_method(PySendResult status, PyObject *result)
{
    if (status != PYGEN_RETURN)
        return result;
    Py_DECREF(result);
    PyErr_SetNone(PyExc_StopIteration);
    return NULL;
}

static PyObject *call_send(PyObject *self, PyObject *value)
{
    PyObject *result;
    PySendResult status = call_am_send(self, value, &result);
    return as_of_a_method(status, result);
}

/* throw(exception), or as it was once: throw(type, exception, traceback). */
static PyObject *call_throw(PyObject *self, PyObject *args)
{
    PyObject *kind, *error = Py_None, *traceback = NULL;
    if (!PyArg_ParseTuple(args, "O|OO", &kind, &error, &traceback))
        return NULL;
    uint64_t began = ps__tick_ns();
    PyObject *result = ps__py_call_interrupt((ps_call *)self, error == Py_None ? kind : error);
    PySendResult status = result ? PYGEN_NEXT : PYGEN_ERROR;
    if (!result && PyErr_ExceptionMatches(PyExc_StopIteration)) {
        PyObject *stop = ps__py_take_exception();
        result = PyObject_GetAttrString(stop, "value");
        Py_DECREF(stop);
        status = result ? PYGEN_RETURN : PYGEN_ERROR;
    }
    status = call_settled((ps_call *)self, status, &result);
    step_took((ps_call *)self, ps__tick_ns() - began);
    return as_of_a_method(status, result);
}

static PyObject *call_close(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    PyObject *coroutine = ((ps_call *)self)->coroutine;
    return coroutine ? PyObject_CallMethod(coroutine, "close", NULL) : Py_NewRef(Py_None);
}

/* -- the type ------------------------------------------------------------------------------------------------------- */

/* answer(exception): of the request that waits for it. */
static PyObject *call_answer(PyObject *self, PyObject *reply)
{
    return answer_request((ps_call *)self, reply) < 0 ? NULL : Py_NewRef(Py_None);
}

/* Of the handler's coroutine: what shows where it is, in a task's repr and stack. */
static PyObject *of_coroutine(PyObject *self, void *name)
{
    PyObject *coroutine = ((ps_call *)self)->coroutine;
    return coroutine ? PyObject_GetAttrString(coroutine, name) : PyErr_Format(PyExc_AttributeError, "%s", name);
}

static PyMethodDef call_methods[] = {
    {"send", call_send, METH_O, NULL},
    {"throw", call_throw, METH_VARARGS, NULL},
    {"close", call_close, METH_NOARGS, NULL},
    {"answer", call_answer, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

#define OF_COROUTINE(name) {name, of_coroutine, NULL, NULL, name}
static PyGetSetDef call_getset[] = {
    OF_COROUTINE("__name__"), OF_COROUTINE("__qualname__"), OF_COROUTINE("cr_await"), OF_COROUTINE("cr_code"),
    OF_COROUTINE("cr_frame"), OF_COROUTINE("cr_running"), {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef call_members[] = {
    {"origin", PS_MEMBER_OBJECT, offsetof(ps_call, origin), PS_MEMBER_READONLY, NULL},
    {"task", PS_MEMBER_OBJECT, offsetof(ps_call, task), PS_MEMBER_READONLY, NULL},
    {"handle", PS_MEMBER_ULONGLONG, offsetof(ps_call, handle), PS_MEMBER_READONLY, NULL},
    {"unwanted", PS_MEMBER_BOOL, offsetof(ps_call, unwanted), PS_MEMBER_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot call_slots[] = {
    {Py_tp_traverse, call_traverse}, {Py_tp_clear, call_clear}, {Py_tp_dealloc, call_dealloc},
    {Py_tp_methods, call_methods}, {Py_tp_getset, call_getset}, {Py_tp_members, call_members},
    {Py_tp_iter, PyObject_SelfIter}, {Py_tp_iternext, call_next},
    {Py_am_await, PyObject_SelfIter}, {Py_am_send, call_am_send}, {0, NULL},
};

static PyType_Spec call_spec = {
    .name = "pysock.Call",
    .basicsize = sizeof(ps_call),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = call_slots,
};

PyObject *ps__py_call_type(void)
{
    if (!ps__py_type_of_calls)
        ps__py_type_of_calls = (PyTypeObject *)PyType_FromSpec(&call_spec);
    return Py_XNewRef((PyObject *)ps__py_type_of_calls);
}
