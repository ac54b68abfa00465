/* request.c: one request: its memory, and the call of its handler. */
#include <string.h>

#include "base/meter.h"
#include "base/sys.h"
#include "base/texts.h"
#include "conn/life.h"
#include "conn/rules.h"
#include "python/python.h"

/* -- its memory ---------------------------------------------------------------------------------------------------- */

enum { SPARE_MAX = 1 << 20 };

/* glibc gives the top of the heap back to the kernel after each large free, and each page is faulted in again by the next
 * large request. So the last one is kept, unless somebody else keeps it. */
void ps__py_request_unref(void *context, void *object)
{
    ps_python *py = context;
    PyObject *held = object;
    Py_ssize_t size = PyBytes_CheckExact(held) ? PyBytes_GET_SIZE(held) : 0;
    if (!py->spare && Py_REFCNT(held) == 1 && size > PS_LARGE && size <= SPARE_MAX)
        py->spare = held;
    else
        Py_DECREF(held);
}

/* New bytes of this size in the memory of the spare. Its hash is forgotten by a change of size. */
static void *reuse(ps_python *py, size_t size, uint8_t **data)
{
    PyObject *bytes = py->spare;
    py->spare = NULL;
    if ((size_t)PyBytes_GET_SIZE(bytes) == size && _PyBytes_Resize(&bytes, (Py_ssize_t)size + 1) < 0) {
        PyErr_Clear();
        return NULL;
    }
    return ps__py_object_resize(NULL, bytes, size, data);
}

void *ps__py_request_new(void *context, size_t size, uint8_t **data)
{
    ps_python *py = context;
    return py->spare ? reuse(py, size, data) : ps__py_object_new(NULL, size, data);
}

/* Most handlers let go of a request when they return, and most requests are as long as the one before: so no memory is
 * taken and given back for each. The hash that the old bytes may have is forgotten. */
static PyObject *small_request(ps_python *py, const ps_frame *frame)
{
    PyObject *bytes = py->small;
    py->small = NULL;
    if (!bytes || (size_t)PyBytes_GET_SIZE(bytes) != frame->size) {
        Py_XDECREF(bytes);
        return PyBytes_FromStringAndSize((const char *)frame->payload, (Py_ssize_t)frame->size);
    }
    memcpy(PyBytes_AS_STRING(bytes), frame->payload, frame->size);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* for readers: it may be gone one day, like the cast below */
    ((PyBytesObject *)bytes)->ob_shash = -1;
#pragma GCC diagnostic pop
    return bytes;
}

static void request_release(ps_python *py, PyObject *request)
{
    if (Py_REFCNT(request) == 1 && PyBytes_GET_SIZE(request) <= PS_LARGE && !py->small)
        py->small = request;
    else
        ps__py_request_unref(py, request);
}

/* -- its handler --------------------------------------------------------------------------------------------------- */

/* Without an object nothing can be served: then the client has been closed. */
static int make_client(ps_python *py, ps_conn *conn)
{
    unsigned long long id = ps__id(conn);
    conn->object = ps__py_with_variables(PyObject_CallFunction(ps__py_callback(py, ON_CLIENT), "K", id));
    if (conn->object)
        return 0;
    int error = ps__py_callback_failed(py, ON_CLIENT);
    if (error == 0)
        ps__no_memory(py->engine, conn);
    return error;
}

static int call_handler(ps_python *py, const service *s, ps_conn *conn, const ps_frame *frame, PyObject *request)
{
    py->client = conn;
    py->request = frame;
    PyObject *result = ps__py_call_within(py, conn, s->handler, request);
    py->request = NULL;
    if (!result)
        return ps__py_failed(py, conn, frame);
    int error = s->streams ? ps__py_begin_stream(py, conn, frame, result) : ps__py_answer(py, conn, frame, result);
    Py_DECREF(result);
    return error;
}

/* Where no frame can say so, the log does, once. */
static int no_handler(ps_python *py, ps_conn *conn, const ps_frame *frame)
{
    bool mute = !ps__framing(py->engine, conn)->has_texts;
    ps__cannot_serve(py->engine, conn, frame, PS_NO_SUCH_SERVICE, PS_TEXT_NO_SUCH_SERVICE,
                     sizeof PS_TEXT_NO_SUCH_SERVICE - 1);
    if (!mute || py->said_no_service)
        return 0;
    py->said_no_service = true;
    PyObject *result = PyObject_CallFunction(ps__py_callback(py, ON_LOG), "is", 40, PS_TEXT_NO_SERVICE);
    return ps__py_finish_call(py, ON_LOG, result);
}

static int serve_request(ps_python *py, service *s, ps_conn *conn, const ps_frame *frame, PyObject *request)
{
    if (!s->handler)
        return no_handler(py, conn, frame);
    if (frame->deadline_ns && ps__is_late(frame)) {
        ps__not_started(py->engine, conn, frame, PS_DEADLINE_PASSED, PS_TEXT_TOO_LATE);
        return 0;
    }
    if (s->streams && (frame->flags & (PS_TAKES_STREAM | PS_NO_REPLY)) != PS_TAKES_STREAM) {
        ps__not_started(py->engine, conn, frame, PS_NEEDS_STREAM, PS_TEXT_NEEDS_STREAM);
        return 0;
    }
    int error = conn->object ? 0 : make_client(py, conn);
    if (!conn->object)
        return error;
    return s->batch ? ps__py_add_to_batch(py, s, conn, frame, request) : call_handler(py, s, conn, frame, request);
}

int ps__py_on_request(void *context, ps_conn *conn, const ps_frame *frame, void *object)
{
    ps_python *py = context;
    PyObject *request = object ? object : small_request(py, frame);
    if (!request)
        return ps__py_failed(py, conn, frame);
    py->called = frame->code;
    int error = serve_request(py, &py->services[frame->code], conn, frame, request);
    request_release(py, request);
    return error;
}

static void timed_until(ps_python *py, uint64_t now)
{
    if (now <= py->timed_until_ns || py->served.every)
        return;
    py->timed_until_ns = 0;
    py->engine->hooks.request = py->on_request;
}

/* The same where requests are told of that took long. */
static int on_request_noticed(ps_python *py, ps_conn *conn, const ps_frame *frame, void *object, bool sampled)
{
    service *s = &py->services[frame->code];
    bool waits = s->batch;
    ps_served what = ps__py_serves(py, conn, frame, py->engine->look_ns, sampled);
    int error = ps__py_on_request(py, conn, frame, object);
    uint64_t now = ps__now_ns();
    ps__py_took(py, s, now - what.began_ns);
    timed_until(py, now);
    return error || waits ? error : ps__py_tell_served(py, &what, NULL);
}

/* In its place for a while after a turn that took long. Nobody else pays for that with two looks at a clock a request. */
int ps__py_on_request_timed(void *context, ps_conn *conn, const ps_frame *frame, void *object)
{
    ps_python *py = context;
    service *s = &py->services[frame->code];
    bool sampled = ps__py_samples(py, &py->served.until);
    if (sampled || py->served.slow_ns != UINT64_MAX)
        return on_request_noticed(py, conn, frame, object, sampled);
    uint64_t began = ps__tick_ns();
    int error = ps__py_on_request(context, conn, frame, object);
    uint64_t now = ps__tick_ns();
    ps__py_took(py, s, now - began);
    timed_until(py, now);
    return error;
}

/* In the place of the plain one where the server is measured. What waits for its batch is counted when that is answered. */
int ps__py_on_request_measured(void *context, ps_conn *conn, const ps_frame *frame, void *object)
{
    ps_python *py = context;
    ps_meter *meter = py->engine->meter;
    bool waits = py->services[frame->code].batch;
    ps__meter_begin(meter, conn, frame, py->engine->look_ns);
    int error = py->timed_until_ns ? ps__py_on_request_timed(context, conn, frame, object)
                                   : ps__py_on_request(context, conn, frame, object);
    if (waits && meter->outcome == PS_METER_OK)
        meter->outcome = PS_METER_LATER;
    ps__meter_end(meter);
    return error;
}
