/* failure.c: what a handler raised becomes an ERROR; and what becomes of a callback that failed. */
#include <stdio.h>
#include <string.h>

#include "base/texts.h"
#include "conn/output.h"
#include "conn/pending.h"
#include "conn/rules.h"
#include "python/python.h"

/* How much of a UTF-8 text of this size is sent where `most` bytes are taken: it is cut between two characters. */
size_t ps__py_fitting(const char *text, size_t size, size_t most)
{
    if (size <= most)
        return size;
    while (most && ((unsigned char)text[most] & 0xC0) == 0x80)
        most--;
    return most;
}

/* A callback failed. It raises nothing that the facade could foresee, so there was no memory for it, or the like: that costs
 * the client concerned something, not the server. What isn't an Exception, as KeyboardInterrupt, ends the loop. */
int ps__py_callback_failed(ps_python *py, int callback)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return ps__py_hand_over(py->raised);
    PyErr_WriteUnraisable(py->callbacks[callback]);
    return 0;
}

int ps__py_finish_call(ps_python *py, int callback, PyObject *result)
{
    if (!result)
        return ps__py_callback_failed(py, callback);
    Py_DECREF(result);
    return 0;
}

/* Of a type: some that are written in C have their module in front. */
static const char *base_name(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

/* Ask the facade about a failure. */
static PyObject *ask_failed(ps_python *py, uint64_t client_id, const ps_frame *frame, PyObject *exception)
{
    uint64_t began_ns = py->began_ns ? py->began_ns : py->engine->now_ns;
    return PyObject_CallFunction(ps__py_callback(py, ON_FAILED), "KIIdO", (unsigned long long)client_id,
                                 (unsigned)frame->code, (unsigned)frame->request_id, (double)began_ns / 1e9, exception);
}

/* One that is set as an exception, and of which nobody is told but the log. */
int ps__py_log_failure(ps_python *py, uint64_t client_id, const ps_frame *frame)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return ps__py_hand_over(py->raised);
    PyObject *exception = ps__py_take_exception();
    int error = ps__py_finish_call(py, ON_FAILED, ask_failed(py, client_id, frame, exception));
    Py_DECREF(exception);
    return error;
}

/* The same of one whose client is there, which gets what the facade says. */
int ps__py_failed(ps_python *py, ps_conn *conn, const ps_frame *frame)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return ps__py_hand_over(py->raised);
    PyObject *exception = ps__py_take_exception();
    PyObject *answer = ask_failed(py, ps__id(conn), frame, exception);
    char name[128]; /* of its type: what is said if the facade can't be asked */
    unsigned short code = PS_HANDLER_FAILED;
    const char *text = name;
    Py_ssize_t size = snprintf(name, sizeof name, "%.*s", (int)sizeof name - 1, base_name(Py_TYPE(exception)->tp_name));
    Py_DECREF(exception);
    int error = 0, started = 1;
    if (!answer || !PyArg_ParseTuple(answer, "Hy#p", &code, &text, &size, &started))
        error = ps__py_callback_failed(py, ON_FAILED);
    if (error == 0 && !started && ps__framing(py->engine, conn)->has_texts)
        ps__not_started(py->engine, conn, frame, code, text);
    else if (error == 0)
        ps__cannot_serve(py->engine, conn, frame, code, text, ps__py_fitting(text, (size_t)size, conn->max_reply));
    Py_XDECREF(answer);
    return error;
}

int ps__py_too_large(ps_python *py, ps_conn *conn, const ps_frame *frame, size_t size)
{
    PyErr_Format(py->frame_too_large, PS_TEXT_REPLY_TOO_LARGE, size, (unsigned)conn->max_reply);
    return ps__py_failed(py, conn, frame);
}
