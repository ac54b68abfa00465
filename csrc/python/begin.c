/* begin.c: how a call of an async handler begins: pysock/tasks/eager.py and pysock/tasks/parked.py, in C, where it is said
 * how.
 *
 * What ends in its first step leaves nothing behind, and its call, or before Python 3.12 its task as well, serves the next
 * one. What waits for something is what the engine gets. */
#include "python/call.h"

/* A loop has its tasks weakly: so the set has the call, which has its task. */
static PyObject *goes_on(ps_starter *s, ps_call *call)
{
    call->is_new = true;
    return PySet_Add(s->running, (PyObject *)call) < 0 ? NULL : Py_NewRef(call);
}

#if PS_HAS_EAGER_TASKS

/* What it returned; what it raised is set. */
static PyObject *outcome(const ps_starter *s, ps_call *call)
{
    PyObject *error = call->error;
    if (!error)
        return Py_NewRef(call->value);
    call->error = NULL;
    PyObject *told = PyObject_CallOneArg(s->told, error);
    Py_DECREF(error);
    if (told)
        PyErr_SetObject((PyObject *)Py_TYPE(told), told);
    Py_XDECREF(told);
    return NULL;
}

/* The one before, if nobody else has it. */
static ps_call *call_for(ps_starter *s, PyObject *coroutine)
{
    ps_call *call = s->spare;
    s->spare = NULL;
    if (!call)
        return ps__py_call_new(s, coroutine);
    call->coroutine = Py_NewRef(coroutine);
    return call;
}

static void done_with(ps_starter *s, ps_call *call)
{
    if (Py_REFCNT(call) > 1 || s->spare || !s->loop) {
        Py_DECREF(call);
        return;
    }
    ps__py_call_forget(call);
    s->spare = call;
}

/* The keywords are a dict that is made once, in which one item changes: a new one would cost a quarter of the call. */
static PyObject *eager_task(const ps_starter *s, ps_call *call)
{
    PyObject *keywords = Py_NewRef(s->keywords); /* the handler may end the server */
    PyObject *args = PyTuple_Pack(1, call), *context = args ? PyContext_Copy(s->base) : NULL, *task = NULL;
    if (context && PyDict_SetItemString(keywords, "context", context) == 0) {
        task = PyObject_Call(s->task_type, args, keywords);
        if (PyDict_SetItemString(keywords, "context", Py_None) < 0)
            Py_CLEAR(task);
    }
    Py_XDECREF(context);
    Py_XDECREF(args);
    Py_DECREF(keywords);
    return task;
}

static PyObject *begin(ps_starter *s, PyObject *coroutine)
{
    ps_call *call = call_for(s, coroutine);
    PyObject *task = call ? eager_task(s, call) : NULL, *result = NULL;
    if (task && call->done) {
        result = outcome(s, call);
    } else if (task) {
        call->task = Py_NewRef(task);
        result = goes_on(s, call);
    }
    Py_XDECREF(task);
    if (call)
        done_with(s, call);
    return result;
}

PyObject *ps__py_begin_call(ps_starter *s, PyObject *const *args)
{
    PyObject *coroutine = PyObject_Vectorcall(s->function, args, 2, NULL);
    PyObject *result = coroutine ? begin(s, coroutine) : NULL;
    Py_XDECREF(coroutine);
    return result;
}

int ps__py_begin_calls(ps_starter *s)
{
    PyObject *keywords = Py_BuildValue("{s:O,s:O,s:O}", "loop", s->loop, "eager_start", Py_True, "context", Py_None);
    Py_XSETREF(s->keywords, keywords);
    return keywords ? 0 : -1;
}

void ps__py_end_calls(ps_starter *s)
{
    Py_CLEAR(s->spare);
}

#else

static bool says(PyObject *object, const char *attribute, bool is_method, const PyObject *expected)
{
    PyObject *answer =
        is_method ? PyObject_CallMethod(object, attribute, NULL) : PyObject_GetAttrString(object, attribute);
    Py_XDECREF(answer);
    if (!answer)
        PyErr_Clear();
    return answer == expected;
}

/* Whether nobody has cancelled the task. */
static bool is_free(const ps_call *seat)
{
    return seat->gate ? says(seat->gate, "done", true, Py_False) : says(seat->task, "_must_cancel", false, Py_False);
}

static void open_gate(const ps_call *seat)
{
    if (!seat->gate)
        return;
    PyObject *done = PyObject_CallMethod(seat->gate, "set_result", "O", Py_None);
    Py_XDECREF(done);
    if (!done)
        PyErr_Clear(); /* it was cancelled, or its loop is closed */
}

static void retire(ps_call *seat)
{
    seat->is_retired = true;
    open_gate(seat);
    Py_CLEAR(seat->task); /* which has it */
    Py_DECREF(seat);
}

static ps_call *new_seat(ps_starter *s)
{
    ps_call *seat = ps__py_call_new(s, NULL);
    PyObject *args = seat ? PyTuple_Pack(1, seat) : NULL;
    if (args)
        seat->task = PyObject_Call(s->task_type, args, s->keywords);
    Py_XDECREF(args);
    /* A loop may end while it has nothing to do. */
    if (seat && seat->task && PyObject_SetAttrString(seat->task, "_log_destroy_pending", Py_False) == 0)
        return seat;
    Py_XDECREF(seat);
    return NULL;
}

static ps_call *take_seat(ps_starter *s)
{
    ps_call *seat = s->spare;
    s->spare = NULL;
    if (seat && is_free(seat))
        return seat;
    if (seat)
        retire(seat); /* somebody has cancelled it: it ends by itself */
    return new_seat(s);
}

static void put_back(ps_starter *s, ps_call *seat, bool can_serve_again)
{
    if (can_serve_again && !s->spare && s->loop)
        s->spare = seat;
    else
        retire(seat);
}

/* What is changed in the task where somebody has got hold of it. */
typedef struct marks {
    Py_ssize_t references, weak_references;
    PyObject *name;
} marks;

static marks marks_of(PyObject *task)
{
    PyObject *name = PyObject_CallMethod(task, "get_name", NULL);
    PyObject *weak = *PyObject_GET_WEAKREFS_LISTPTR(task);
    return (marks){Py_REFCNT(task), _PyWeakref_GetWeakrefCount((PyWeakReference *)weak), name};
}

static bool is_as_before(PyObject *task, const marks *before)
{
    marks now = marks_of(task);
    bool same = now.references == before->references && now.weak_references == before->weak_references &&
                now.name == before->name;
    Py_XDECREF(now.name);
    return same && says(task, "_callbacks", false, Py_None);
}

/* Makes the task the current one, or no longer. */
static bool enter_or_leave(PyObject *function, PyObject *loop, PyObject *task)
{
    PyObject *args[] = {NULL, loop, task};
    PyObject *done = PyObject_Vectorcall(function, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_XDECREF(done);
    return done;
}

/* What it raises is the seat's. */
static PySendResult first_step(const ps_starter *s, ps_call *seat, PyObject *const *args, PyObject **result)
{
    PySendResult status = PYGEN_ERROR;
    *result = NULL;
    seat->context = PyContext_Copy(s->base);
    seat->coroutine = seat->context ? PyObject_Vectorcall(s->function, args, 2, NULL) : NULL;
    if (seat->coroutine && PyContext_Enter(seat->context) == 0) {
        status = PyIter_Send(seat->coroutine, Py_None, result);
        if (status == PYGEN_ERROR)
            seat->error = ps__py_take_exception();
        PyContext_Exit(seat->context);
    }
    if (PyErr_Occurred())
        seat->error = ps__py_take_exception();
    return seat->error ? PYGEN_ERROR : status;
}

static PyObject *failed(const ps_starter *s, ps_call *seat)
{
    PyObject *error = seat->error, *told = PyObject_CallOneArg(s->told, error);
    seat->error = NULL;
    retire(seat);
    if (told)
        PyErr_SetObject((PyObject *)Py_TYPE(told), told);
    Py_XDECREF(told);
    Py_DECREF(error);
    return NULL;
}

/* In the task, which is the current one and was as `before` until then. */
static PyObject *begin(ps_starter *s, ps_call *seat, const marks *before, PyObject *const *args)
{
    PyObject *loop = Py_NewRef(s->loop), *task = Py_NewRef(seat->task), *result; /* the handler may end the server */
    PySendResult status = first_step(s, seat, args, &result);
    if (!enter_or_leave(s->leave, loop, task)) {
        Py_XSETREF(seat->error, ps__py_take_exception());
        status = PYGEN_ERROR;
    }
    Py_DECREF(loop);
    Py_DECREF(task);
    if (status == PYGEN_NEXT) {
        seat->awaited = result;
        open_gate(seat);
        result = goes_on(s, seat);
        Py_DECREF(seat);
        return result;
    }
    Py_CLEAR(seat->coroutine);
    Py_CLEAR(seat->context);
    if (status == PYGEN_ERROR) {
        Py_CLEAR(result);
        return failed(s, seat);
    }
    put_back(s, seat, is_as_before(seat->task, before));
    return result;
}

PyObject *ps__py_begin_call(ps_starter *s, PyObject *const *args)
{
    ps_call *seat = take_seat(s);
    if (!seat)
        return NULL;
    marks before = marks_of(seat->task);
    PyObject *result;
    if (enter_or_leave(s->enter, s->loop, seat->task)) {
        result = begin(s, seat, &before, args);
    } else {
        PyErr_Clear(); /* another task runs */
        put_back(s, seat, true);
        result = PyObject_Vectorcall(s->plain, args, 2, NULL);
    }
    Py_XDECREF(before.name);
    return result;
}

int ps__py_begin_calls(ps_starter *s)
{
    Py_XSETREF(s->keywords, Py_BuildValue("{s:O}", "loop", s->loop));
    return s->keywords ? 0 : -1;
}

void ps__py_end_calls(ps_starter *s)
{
    ps_call *seat = s->spare;
    s->spare = NULL;
    if (seat)
        retire(seat);
}

#endif
