/* seat.c: how a call goes on: after it has waited, and once it has ended.
 *
 * Before Python 3.12 its task must be there before its coroutine: pysock/tasks/parked.py, in C, where it is said how. A seat is
 * a call without a coroutine, for which its task waits at a gate, a future; it is given one that has begun. When that has
 * ended the task waits again, if nobody else knows of it: to make a task costs as much as all else of a request. */
#include "python/call.h"

#if !PS_HAS_EAGER_TASKS

enum { MOST_SPARES = 128 };

/* -- the task and its gate ------------------------------------------------------------------------------------------ */

static bool is_answer(PyObject *answer, const PyObject *expected)
{
    Py_XDECREF(answer);
    if (!answer)
        PyErr_Clear();
    return answer == expected;
}

/* Whether nobody has cancelled the task. */
bool ps__py_seat_is_free(const ps_call *seat)
{
    return seat->gate ? is_answer(PyObject_CallMethodNoArgs(seat->gate, ps__py_names.done), Py_False)
                      : is_answer(PyObject_GetAttr(seat->task, ps__py_names._must_cancel), Py_False);
}

static bool is_cancelled_no_more(PyObject *task)
{
#if PY_VERSION_HEX >= 0x030B0000
    PyObject *times = PyObject_CallMethodNoArgs(task, ps__py_names.cancelling);
    bool result = times && PyLong_CheckExact(times) && Py_SIZE(times) == 0;
    Py_XDECREF(times);
    if (!times)
        PyErr_Clear();
    return result;
#else
    return task;
#endif
}

static Py_ssize_t weak_references(PyObject *task)
{
    return _PyWeakref_GetWeakrefCount((PyWeakReference *)*PyObject_GET_WEAKREFS_LISTPTR(task));
}

bool ps__py_seat_is_own(const ps_call *seat, Py_ssize_t references)
{
    PyObject *task = seat->task;
    return Py_REFCNT(task) == references && weak_references(task) == seat->weak_references &&
           is_answer(PyObject_CallMethodNoArgs(task, ps__py_names.get_name), seat->name) &&
           is_answer(PyObject_GetAttr(task, ps__py_names._callbacks), Py_None) && is_cancelled_no_more(task);
}

/* A loop may end while it has nothing to do. */
int ps__py_seat_has(ps_call *seat, PyObject *task)
{
    seat->task = task;
    seat->weak_references = weak_references(task);
    seat->name = PyObject_CallMethodNoArgs(task, ps__py_names.get_name);
    return seat->name ? PyObject_SetAttr(task, ps__py_names._log_destroy_pending, Py_False) : -1;
}

void ps__py_seat_open(const ps_call *seat)
{
    if (!seat->gate)
        return;
    PyObject *done = PyObject_CallMethodOneArg(seat->gate, ps__py_names.set_result, Py_None);
    Py_XDECREF(done);
    if (!done)
        PyErr_Clear(); /* it was cancelled, or its loop is closed */
}

void ps__py_seat_retire(ps_call *seat)
{
    seat->is_retired = true;
    ps__py_seat_open(seat);
    Py_CLEAR(seat->task); /* which has it */
    Py_DECREF(seat);
}

/* -- those that wait ------------------------------------------------------------------------------------------------ */

void ps__py_seat_put(ps_starter *s, ps_call *seat)
{
    seat->next = s->spare;
    s->spare = seat;
    s->spares++;
}

ps_call *ps__py_seat_take(ps_starter *s)
{
    ps_call *seat = s->spare;
    if (seat) {
        s->spare = seat->next;
        seat->next = NULL;
        s->spares--;
    }
    return seat;
}

/* As the yield of a future's own __await__ says. */
static PyObject *to_be_awaited(PyObject *future)
{
    if (future && PyObject_SetAttr(future, ps__py_names._asyncio_future_blocking, Py_True) < 0)
        PyErr_Clear(); /* it isn't one: the task says so */
    return future;
}

static PySendResult park(ps_call *seat, PyObject **result)
{
    PyObject *loop = seat->origin->loop;
    if (seat->is_retired || !loop) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    Py_XSETREF(seat->gate, PyObject_CallMethodNoArgs(loop, ps__py_names.create_future));
    *result = to_be_awaited(Py_XNewRef(seat->gate));
    return *result ? PYGEN_NEXT : PYGEN_ERROR;
}

/* In the last step of what it had. Then the task is known to the call, to the loop's handle and as the current one, and the
 * call to the task and to this step: whoever has got hold of one of them would wait for the end of the task. */
PySendResult ps__py_call_again(ps_call *seat, PyObject **result)
{
    ps_starter *s = seat->origin;
    bool is_wanted = s->loop && s->spares < MOST_SPARES && !seat->unwanted;
    Py_CLEAR(seat->context);
    ps__py_call_forget(seat);
    if (is_wanted && Py_REFCNT(seat) == 2 && ps__py_seat_is_own(seat, 3) && park(seat, result) == PYGEN_NEXT) {
        ps__py_seat_put(s, (ps_call *)Py_NewRef(seat));
        return PYGEN_NEXT;
    }
    PyErr_Clear();
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

/* -- its steps ------------------------------------------------------------------------------------------------------ */

/* What the first step has come to, once; NULL: the next pass of the loop, and that is this one. */
static PyObject *take_awaited(ps_call *seat)
{
    PyObject *awaited = seat->awaited;
    seat->awaited = NULL;
    if (awaited == Py_None)
        Py_CLEAR(awaited);
    return awaited;
}

PySendResult ps__py_call_resume(ps_call *seat, PyObject *value, PyObject **result)
{
    *result = NULL;
    if (!seat->coroutine)
        return park(seat, result);
    PyObject *awaited = take_awaited(seat);
    if (awaited) {
        *result = to_be_awaited(awaited);
        return PYGEN_NEXT;
    }
    if (PyContext_Enter(seat->context) < 0)
        return PYGEN_ERROR;
    PySendResult status = PyIter_Send(seat->coroutine, value, result);
    if (PyContext_Exit(seat->context) == 0)
        return status;
    Py_CLEAR(*result);
    return PYGEN_ERROR;
}

static bool can_cancel(PyObject *awaited, PyObject *error)
{
    PyObject *type = PyExceptionInstance_Check(error) ? (PyObject *)Py_TYPE(error) : error;
    PyObject *kind = PyObject_GetAttrString(awaited, "cancel");
    bool is_cancel = kind && !PyErr_GivenExceptionMatches(type, PyExc_Exception);
    PyObject *done = is_cancel ? PyObject_CallNoArgs(kind) : NULL;
    bool result = done == Py_True;
    Py_XDECREF(done);
    Py_XDECREF(kind);
    PyErr_Clear();
    return result;
}

PyObject *ps__py_call_interrupt(ps_call *seat, PyObject *error)
{
    if (!seat->coroutine) {
        PyErr_SetObject(PyExceptionInstance_Check(error) ? (PyObject *)Py_TYPE(error) : error,
                        PyExceptionInstance_Check(error) ? error : NULL);
        return NULL;
    }
    PyObject *awaited = take_awaited(seat);
    if (awaited && can_cancel(awaited, error))
        return to_be_awaited(awaited);
    Py_XDECREF(awaited);
    if (PyContext_Enter(seat->context) < 0)
        return NULL;
    PyObject *result = PyObject_CallMethod(seat->coroutine, "throw", "O", error);
    if (PyContext_Exit(seat->context) < 0)
        Py_CLEAR(result);
    return result;
}

#else

PySendResult ps__py_call_resume(ps_call *call, PyObject *value, PyObject **result)
{
    return PyIter_Send(call->coroutine, value, result);
}

PyObject *ps__py_call_interrupt(ps_call *call, PyObject *error)
{
    return PyObject_CallMethodOneArg(call->coroutine, ps__py_names.throw, error);
}

PySendResult ps__py_call_again(ps_call *Py_UNUSED(call), PyObject **result)
{
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

#endif
