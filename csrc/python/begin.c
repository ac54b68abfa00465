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
    if (context && PyDict_SetItem(keywords, ps__py_names.context, context) == 0) {
        task = PyObject_Call(s->task_type, args, keywords);
        if (PyDict_SetItem(keywords, ps__py_names.context, Py_None) < 0)
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
    const struct ps_names *names = &ps__py_names;
    PyObject *keywords =
        Py_BuildValue("{O:O,O:O,O:O}", names->loop, s->loop, names->eager_start, Py_True, names->context, Py_None);
    Py_XSETREF(s->keywords, keywords);
    return keywords ? 0 : -1;
}

void ps__py_end_calls(ps_starter *s)
{
    Py_CLEAR(s->spare);
}

#else

enum { AS_SPARE = 2 /* references to a task that waits at its gate: its seat's, and one of what wakes it */ };

static ps_call *new_seat(ps_starter *s)
{
    ps_call *seat = ps__py_call_new(s, NULL);
    PyObject *args = seat ? PyTuple_Pack(1, seat) : NULL;
    PyObject *task = args ? PyObject_Call(s->task_type, args, s->keywords) : NULL;
    Py_XDECREF(args);
    if (task && ps__py_seat_has(seat, task) == 0)
        return seat;
    Py_XDECREF(seat);
    return NULL;
}

static ps_call *take_seat(ps_starter *s)
{
    for (ps_call *seat; (seat = ps__py_seat_take(s)) != NULL;) {
        if (ps__py_seat_is_free(seat))
            return seat;
        ps__py_seat_retire(seat); /* somebody has cancelled it: it ends by itself */
    }
    return new_seat(s);
}

static void put_back(ps_starter *s, ps_call *seat)
{
    if (s->loop)
        ps__py_seat_put(s, seat);
    else
        ps__py_seat_retire(seat);
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
    ps__py_seat_retire(seat);
    if (told)
        PyErr_SetObject((PyObject *)Py_TYPE(told), told);
    Py_XDECREF(told);
    Py_DECREF(error);
    return NULL;
}

/* The task takes it up in the loop's next pass. Until then others may begin to wait for it, too, which a future refuses
 * as long as it takes itself for one that is being handed to its task. */
static void leave_to_others(PyObject *awaited)
{
    if (awaited != Py_None && PyObject_SetAttr(awaited, ps__py_names._asyncio_future_blocking, Py_False) < 0)
        PyErr_Clear(); /* it isn't one */
}

/* In the task, which is the current one. */
static PyObject *begin(ps_starter *s, ps_call *seat, PyObject *const *args)
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
        leave_to_others(result);
        ps__py_seat_open(seat);
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
    if (ps__py_seat_is_own(seat, AS_SPARE))
        put_back(s, seat);
    else
        ps__py_seat_retire(seat);
    return result;
}

PyObject *ps__py_begin_call(ps_starter *s, PyObject *const *args)
{
    ps_call *seat = take_seat(s);
    if (!seat)
        return NULL;
    if (enter_or_leave(s->enter, s->loop, seat->task))
        return begin(s, seat, args);
    PyErr_Clear(); /* another task runs */
    put_back(s, seat);
    return PyObject_Vectorcall(s->plain, args, 2, NULL);
}

int ps__py_begin_calls(ps_starter *s)
{
    Py_XSETREF(s->keywords, Py_BuildValue("{O:O}", ps__py_names.loop, s->loop));
    return s->keywords ? 0 : -1;
}

void ps__py_end_calls(ps_starter *s)
{
    for (ps_call *seat; (seat = ps__py_seat_take(s)) != NULL;)
        ps__py_seat_retire(seat);
}

#endif
