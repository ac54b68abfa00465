/* python_request.h: how a request, or a batch of them, is answered by Python. Part of python.c. */

/* -- requests ------------------------------------------------------------------------------------------------------ */

/* How much of a UTF-8 text of this size is sent where `most` bytes are taken: it is cut between two characters. */
static size_t fitting(const char *text, size_t size, size_t most)
{
    if (size <= most)
        return size;
    while (most && ((unsigned char)text[most] & 0xC0) == 0x80)
        most--;
    return most;
}

/* A callback failed. It raises nothing that the facade could foresee, so there was no memory for it, or the like: that costs
 * the client concerned something, not the server. What isn't an Exception, as KeyboardInterrupt, ends the loop. */
static int callback_failed(ps_python *py, int callback)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return hand_over(py->raised);
    PyErr_WriteUnraisable(py->callbacks[callback]);
    return 0;
}

/* Of a type: some that are written in C have their module in front. */
static const char *base_name(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

/* Ask the facade about a failure that is set as an exception, and send what it says. */
static int failed(ps_python *py, ps_conn *conn, const ps_frame *frame)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return hand_over(py->raised);
    PyObject *exception = take_exception();
    PyObject *answer = PyObject_CallFunction(callback_of(py, ON_FAILED), "KIO", (unsigned long long)ps__id(conn),
                                             (unsigned)frame->code, exception);
    char name[128]; /* of its type: what is said if the facade can't be asked */
    unsigned short code = PS_HANDLER_FAILED;
    const char *text = name;
    Py_ssize_t size = snprintf(name, sizeof name, "%.*s", (int)sizeof name - 1, base_name(Py_TYPE(exception)->tp_name));
    Py_DECREF(exception);
    int error = 0;
    if (!answer || !PyArg_ParseTuple(answer, "Hy#", &code, &text, &size))
        error = callback_failed(py, ON_FAILED);
    if (error == 0)
        ps__cannot_serve(py->engine, conn, frame, code, text, fitting(text, (size_t)size, conn->max_reply));
    Py_XDECREF(answer);
    return error;
}

static int too_large(ps_python *py, ps_conn *conn, const ps_frame *frame, size_t size)
{
    PyErr_Format(py->callbacks[FRAME_TOO_LARGE],
                 "the reply has %zu bytes, this client takes at most %u (max_payload= of connect() or Limits)", size,
                 (unsigned)conn->max_reply);
    return failed(py, conn, frame);
}

static int send_reply(ps_python *py, ps_conn *conn, const ps_frame *frame, const void *data, size_t size, PyObject *object)
{
    if (size > conn->max_reply)
        return too_large(py, conn, frame, size);
    if (!(frame->flags & PS_NO_REPLY))
        ps__send(py->engine, conn, PS_REPLY, 0, frame->request_id, data, size, object);
    return 0;
}

static int not_bytes(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *result)
{
    PyErr_Format(PyExc_TypeError, "the handler returned %.200s, not a bytes-like object%s", Py_TYPE(result)->tp_name,
                 PyUnicode_Check(result) ? ": encode it, for example with text.encode()" : "");
    return failed(py, conn, frame);
}

/* Anything but exact bytes: it may change or move while it waits to be sent, so it is copied. */
static int answer_other(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *result)
{
    if (result == Py_None)
        return ps__framing(py->engine, conn)->has_ids ? send_reply(py, conn, frame, NULL, 0, NULL) : 0;
    if (!PyObject_CheckBuffer(result))
        return not_bytes(py, conn, frame, result);
    PyObject *bytes = PyBytes_FromObject(result);
    if (!bytes)
        return failed(py, conn, frame);
    int error = send_reply(py, conn, frame, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes), bytes);
    Py_DECREF(bytes);
    return error;
}

static int answer(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *result)
{
    if (PyBytes_CheckExact(result))
        return send_reply(py, conn, frame, PyBytes_AS_STRING(result), (size_t)PyBytes_GET_SIZE(result), result);
    return answer_other(py, conn, frame, result);
}

/* Without an object nothing can be served: then the client has been closed. */
static int make_client(ps_python *py, ps_conn *conn)
{
    conn->object = with_variables(PyObject_CallFunction(callback_of(py, ON_CLIENT), "K", (unsigned long long)ps__id(conn)));
    if (conn->object)
        return 0;
    int error = callback_failed(py, ON_CLIENT);
    if (error == 0)
        ps__no_memory(py->engine, conn);
    return error;
}

static int call_handler(ps_python *py, const service *s, ps_conn *conn, const ps_frame *frame, PyObject *request)
{
    PyObject *result = call_within(py, conn, s->handler, request);
    if (!result)
        return failed(py, conn, frame);
    int error = answer(py, conn, frame, result);
    Py_DECREF(result);
    return error;
}

/* -- batches ------------------------------------------------------------------------------------------------------- */

static bool make_room(service *s)
{
    if (s->kept_count < s->kept_room)
        return true;
    size_t room = s->kept_room ? 2 * s->kept_room : 64;
    kept_request *kept = ps_sys.resize(s->kept, room * sizeof *kept);
    if (!kept)
        return false;
    s->kept = kept;
    s->kept_room = room;
    return true;
}

static int keep(ps_python *py, service *s, ps_conn *conn, const ps_frame *frame, PyObject *request)
{
    if (!make_room(s)) {
        PyErr_NoMemory();
        return failed(py, conn, frame);
    }
    if (!s->kept_count)
        s->due_ns = py->engine->now_ns + s->max_wait_ns;
    s->kept[s->kept_count++] = (kept_request){ps__id(conn), *frame, Py_NewRef(object_of(conn)), Py_NewRef(request)};
    uint64_t due = s->kept_count >= s->max_batch ? 0 : s->due_ns;
    if (due < py->engine->batch_due_ns)
        py->engine->batch_due_ns = due;
    ps__kept(py->engine, conn, frame->size);
    return 0;
}

static void drop_kept(const kept_request *kept)
{
    Py_DECREF(kept->client);
    Py_DECREF(kept->request);
}

/* Leave out the requests of clients that have gone. */
static size_t drop_orphans(ps_python *py, kept_request *kept, size_t count)
{
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        if (ps__table_find(&py->engine->table, kept[i].client_id))
            kept[left++] = kept[i];
        else
            drop_kept(&kept[i]);
    }
    return left;
}

static PyObject *list_of(const kept_request *kept, size_t count, bool clients)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++)
        PyList_SET_ITEM(list, (Py_ssize_t)i, Py_NewRef(clients ? kept[i].client : kept[i].request));
    return list;
}

/* A sequence, but not of bytes or characters: bytes in the place of a list are one reply where there should be many. */
static bool is_list_like(PyObject *result)
{
    bool is_one = PyBytes_Check(result) || PyByteArray_Check(result) || PyMemoryView_Check(result) || PyUnicode_Check(result);
    return !is_one && PySequence_Check(result);
}

/* What the handler returned, as a tuple of our own with one reply for each request; NULL and an exception if it isn't. Not
 * as the handler's own list: whatever Python code runs before the last of them is answered may change that. */
static PyObject *call_batch(ps_python *py, const service *s, const kept_request *kept, size_t count)
{
    PyObject *clients = list_of(kept, count, true), *requests = list_of(kept, count, false);
    PyObject *result = NULL, *replies = NULL;
    if (clients && requests)
        result = call_afresh(py, s->handler, clients, requests);
    Py_XDECREF(clients);
    Py_XDECREF(requests);
    if (!result)
        return NULL;
    if (!is_list_like(result))
        PyErr_Format(PyExc_TypeError, "the batch handler returned %.200s, not a sequence with one reply per request",
                     Py_TYPE(result)->tp_name);
    else
        replies = PySequence_Tuple(result);
    Py_DECREF(result);
    if (replies && PyTuple_GET_SIZE(replies) != (Py_ssize_t)count) {
        PyErr_Format(PyExc_ValueError, "the batch handler returned %zd replies for %zu requests",
                     PyTuple_GET_SIZE(replies), count);
        Py_CLEAR(replies);
    }
    return replies;
}

/* Answer one request; exception: what failed the whole batch, or NULL. */
static int answer_kept(ps_python *py, const kept_request *kept, PyObject *reply, PyObject *exception)
{
    ps_engine *engine = py->engine;
    ps_conn *conn = ps__table_find(&engine->table, kept->client_id);
    if (!conn)
        return 0; /* the handler, or its own reply, ended it */
    if (engine->out_conn != conn) {
        if (engine->out_conn)
            ps__output_end(engine, engine->out_conn);
        ps__output_begin(engine, conn);
    }
    ps__not_kept(engine, conn, kept->frame.size);
    if (conn->flags & PS_IS_BROKEN)
        return 0;
    if (reply && !PyType_IsSubtype(Py_TYPE(reply), (PyTypeObject *)PyExc_Exception))
        return answer(py, conn, &kept->frame, reply);
    if (reply) /* an exception in the place of a reply: this one request failed */
        exception = reply;
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    return failed(py, conn, &kept->frame);
}

static int run_slice(ps_python *py, const service *s, const kept_request *kept, size_t count)
{
    PyObject *replies = call_batch(py, s, kept, count), *exception = NULL;
    int error = 0;
    if (!replies && !PyErr_ExceptionMatches(PyExc_Exception))
        return hand_over(py->raised);
    if (!replies)
        exception = take_exception();
    for (size_t i = 0; i < count && error == 0; i++)
        error = answer_kept(py, &kept[i], replies ? PyTuple_GET_ITEM(replies, (Py_ssize_t)i) : NULL, exception);
    if (py->engine->out_conn)
        ps__output_end(py->engine, py->engine->out_conn);
    Py_XDECREF(replies);
    Py_XDECREF(exception);
    return error;
}

/* Full batches; and the rest too, if it has waited for long enough or `whole` asks for it. */
static int run_batch(ps_python *py, service *s, bool whole)
{
    kept_request *kept = s->kept;
    size_t all = s->kept_count, room = s->kept_room, last = whole ? all : all - all % s->max_batch;
    int error = 0;
    s->kept = NULL; /* nothing is kept while handlers run */
    s->kept_count = s->kept_room = 0;
    for (size_t at = 0; at < last; at += s->max_batch) {
        size_t count = last - at < s->max_batch ? last - at : s->max_batch;
        count = drop_orphans(py, kept + at, count); /* now: the slice before may have closed some */
        if (count && error == 0)
            error = run_slice(py, s, kept + at, count);
        for (size_t i = 0; i < count; i++)
            drop_kept(&kept[at + i]);
    }
    if (last == all) {
        ps__free(kept);
        return error;
    }
    memmove(kept, kept + last, (all - last) * sizeof *kept);
    s->kept = kept;
    s->kept_room = room;
    s->kept_count = all - last;
    s->due_ns = py->engine->now_ns + s->max_wait_ns; /* they came in this turn: what was older was at the front */
    return error;
}
