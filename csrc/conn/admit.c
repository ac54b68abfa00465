/* admit.c: how a connection is let in, or refused: the connection initiation request (CIR), the PROOF that follows it where
 * an auth key is set, the connect hook, and the answer. How the key is used is up to the hooks; here it is only a matter of
 * whose turn it is. */
#include <string.h>

#include "base/causes.h"
#include "base/host.h"
#include "base/sys.h"
#include "base/texts.h"
#include "base/wire.h"
#include "conn/admit.h"
#include "conn/dismiss.h"
#include "conn/life.h"
#include "conn/output.h"
#include "conn/queue.h"
#include "table/timers.h"

/* Ask the connect hook. What it pushes to the client is put aside in *pushed, to follow the answer to the CIR. */
static int ask(ps_engine *engine, ps_conn *conn, ps_chunk **pushed, char *reason, size_t room)
{
    int refused = ps__enter(engine);
    if (refused < 0)
        return refused;
    ps_chunk *waiting = ps__take_queue(conn);
    conn->flags |= PS_OUTPUT_WAITS;
    refused = engine->hooks.connect(engine->hooks.context, conn, reason, room);
    conn->flags &= (uint16_t)~PS_OUTPUT_WAITS;
    *pushed = ps__take_queue(conn);
    if (conn->state == PS_CONN_CLOSED)
        ps__free_chunks(engine, waiting);
    else
        ps__join_queue(engine, conn, waiting);
    return refused;
}

static void welcome(ps_engine *engine, ps_conn *conn)
{
    uint8_t id[8], features[4], window[4], fields[9 + sizeof id + sizeof features + sizeof window];
    ps__put32(id, conn->generation);
    ps__put32(id + 4, conn->slot);
    ps__put32(features, conn->features);
    size_t size = ps__put_field(fields, PS_TAG_CLIENT_ID, id, sizeof id);
    if (conn->features)
        size += ps__put_field(fields + size, PS_TAG_FEATURES, features, sizeof features);
    ps__put32(window, conn->stream_window);
    if (conn->features & PS_FEATURE_STREAM)
        size += ps__put_field(fields + size, PS_TAG_STREAM_WINDOW, window, sizeof window);
    uint8_t *begin = engine->welcome + sizeof fields - size; /* the room in front of it is kept for this */
    memcpy(begin, fields, size);
    ps__send(engine, conn, PS_CIR_ACCEPTED, 0, 0, begin, size + engine->options.welcome_size, NULL);
}

static void refuse(ps_engine *engine, ps_conn *conn, const char *reason)
{
    if (conn->state < PS_CONN_DRAINING) {
        ps__dismiss(engine, conn, PS_END_NOT_LET_IN, 0, reason);
        return;
    }
    PS_ADD(engine->stats.refused, 1u); /* the hook has closed it itself */
    ps__last_words(engine, conn, PS_END_NOT_LET_IN, 0, reason);
}

int ps__let_in(ps_engine *engine, ps_conn *conn)
{
    ps_chunk *pushed = NULL;
    char reason[256] = PS_TEXT_NOT_ALLOWED;
    enum ps_conn_state state = conn->state;
    ps__drop_proof(conn);
    int refused = engine->options.ask_connects ? ask(engine, conn, &pushed, reason, sizeof reason) : 0;
    if (refused < 0)
        ps__fail(engine, refused);
    if (refused || conn->state != state) { /* the hook may have closed the client itself */
        ps__free_chunks(engine, pushed);
        refuse(engine, conn, reason);
        return 0;
    }
    ps__conn_event(conn, state == PS_CONN_CHALLENGED ? PS_EV_PROOF_ACCEPTED : PS_EV_CIR_ACCEPTED);
    ps__timer_stop(engine, conn, PS_LINK_INPUT);
    __atomic_store_n(&conn->was_let_in, 1, __ATOMIC_RELAXED);
    PS_TAKE_ONE(engine->stats.pending);
    PS_ADD(engine->stats.clients, 1u);
    PS_ADD(engine->stats.established, 1u);
    if (ps__framing(engine, conn)->has_cir)
        welcome(engine, conn);
    ps__join_queue(engine, conn, pushed);
    if (engine->options.tell_joins)
        ps__tell(engine, PS_TELL_JOINED, ps__id(conn), 0);
    return 1;
}

void ps__greeted(ps_engine *engine, ps_conn *conn)
{
    if (engine->options.limits.idle_timeout_ns)
        ps__timer_start(engine, conn, PS_TIMER_IDLE);
    if (!ps__framing(engine, conn)->has_cir)
        ps__let_in(engine, conn);
}

/* -- the fields of a CIR ------------------------------------------------------------------------------------------- */

/* What a CIR said, beside what the connection remembers itself. */
typedef struct cir {
    const uint8_t *nonce, *features, *stream_window, *name, *software;
    size_t name_size, software_size;
} cir;

static bool set_name(cir *said, const ps_field *field)
{
    if (!field->size || field->size > PS_NAME_MAX || said->name || !ps__is_utf8(field->value, field->size) ||
        memchr(field->value, 0, field->size))
        return false;
    said->name = field->value;
    said->name_size = field->size;
    return true;
}

/* It is only ever shown, so never a reason to refuse: as much of it as there is room for, up to a NUL. */
static bool set_software(cir *said, const ps_field *field)
{
    said->software = field->value;
    said->software_size = strnlen((const char *)field->value, field->size < PS_NAME_MAX ? field->size : PS_NAME_MAX);
    return true;
}

static bool remember_texts(ps_engine *engine, ps_conn *conn, const cir *said)
{
    if (!said->name_size && !said->software_size)
        return true;
    char *texts = ps_sys.allocate(said->name_size + said->software_size + 2);
    if (!texts) {
        ps__no_memory(engine, conn);
        return false;
    }
    memset(texts, 0, said->name_size + said->software_size + 2);
    if (said->name_size)
        memcpy(texts, said->name, said->name_size);
    if (said->software_size)
        memcpy(texts + said->name_size + 1, said->software, said->software_size);
    pthread_mutex_lock(&engine->lock); /* other threads look names up */
    conn->name = texts;
    pthread_mutex_unlock(&engine->lock);
    return true;
}

/* Of several promises the one that is easiest to keep counts. */
static bool set_max_reply(ps_conn *conn, const ps_field *field)
{
    if (field->size != 4)
        return false;
    uint32_t most = ps__get32(field->value);
    if (most < conn->max_reply)
        __atomic_store_n(&conn->max_reply, most, __ATOMIC_RELAXED); /* other threads look at it before a push */
    return true;
}

/* A field of exactly so many bytes, and the only one of its kind. */
static bool set_once(const uint8_t **value, const ps_field *field, uint16_t size)
{
    bool good = !*value && field->size == size;
    *value = field->value;
    return good;
}

static bool read_cir_field(ps_conn *conn, const ps_field *field, cir *said)
{
    switch (field->tag) {
    case PS_TAG_NAME:
        return set_name(said, field);
    case PS_TAG_SOFTWARE:
        return set_software(said, field);
    case PS_TAG_MAX_PAYLOAD:
        return set_max_reply(conn, field);
    case PS_TAG_NONCE:
        return set_once(&said->nonce, field, PS_NONCE_SIZE);
    case PS_TAG_FEATURES:
        return set_once(&said->features, field, 4);
    case PS_TAG_STREAM_WINDOW:
        return set_once(&said->stream_window, field, 4);
    default:
        return true;
    }
}

static bool read_cir_fields(ps_conn *conn, const uint8_t *at, const uint8_t *end, cir *said)
{
    ps_field field;
    int more;
    while ((more = ps__next_field(&at, end, &field)) > 0) {
        if (!read_cir_field(conn, &field, said))
            return false;
    }
    return more == 0;
}

/* -- the auth key -------------------------------------------------------------------------------------------------- */

static void challenge(ps_engine *engine, ps_conn *conn, const uint8_t *nonce)
{
    ps_challenge made;
    int error = ps__enter(engine);
    if (error == 0)
        error = engine->hooks.challenge(engine->hooks.context, nonce, conn->name ? conn->name : "", &made);
    if (error < 0) {
        ps__fail(engine, error);
        return;
    }
    conn->expected = error ? NULL : ps_sys.allocate(PS_MAC_SIZE);
    if (!conn->expected) {
        ps__no_memory(engine, conn);
        return;
    }
    memcpy(conn->expected, made.expected, PS_MAC_SIZE);
    ps__conn_event(conn, PS_EV_CIR_CHALLENGED);
    ps__send(engine, conn, PS_CHALLENGE, 0, 0, made.fields, made.size, NULL);
}

static const uint8_t *mac_of(const ps_frame *frame)
{
    const uint8_t *at = frame->payload, *end = at + frame->size, *mac = NULL;
    ps_field field;
    int more;
    while ((more = ps__next_field(&at, end, &field)) > 0) {
        if (field.tag == PS_TAG_MAC && !set_once(&mac, &field, PS_MAC_SIZE))
            return NULL;
    }
    return more == 0 ? mac : NULL;
}

void ps__take_proof(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    const uint8_t *mac = mac_of(frame);
    if (!mac) {
        ps__dismiss(engine, conn, PS_END_VIOLATION, 0, PS_TEXT_BROKEN_PROOF);
        return;
    }
    int equal = ps__enter(engine);
    if (equal == 0)
        equal = engine->hooks.prove(engine->hooks.context, conn->expected, mac);
    if (equal > 0)
        ps__let_in(engine, conn);
    else if (equal == 0)
        ps__dismiss(engine, conn, PS_END_WRONG_PROOF, 0, NULL);
    else
        ps__fail(engine, equal);
}

/* -- the CIR ------------------------------------------------------------------------------------------------------- */

/* What both ends speak, and how much a stream may send before the client gives it credit. */
static void agree(const ps_engine *engine, ps_conn *conn, const cir *said)
{
    uint32_t window = said->stream_window ? ps__get32(said->stream_window) : UINT32_MAX;
    uint32_t most = engine->options.limits.stream_window;
    uint32_t features = said->features ? ps__get32(said->features) & PS_FEATURES : 0;
    if (!(features & PS_FEATURE_CANCEL))
        features &= ~(uint32_t)PS_FEATURE_STREAM; /* which needs it */
    __atomic_store_n(&conn->features, (uint8_t)features, __ATOMIC_RELAXED); /* other threads look at it before they ask */
    conn->stream_window = window < most ? window : most;
}

void ps__take_cir(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    static const char magic[4] = {'P', 'S', 'K', '1'};
    cir said = {.nonce = NULL};
    if (frame->size < sizeof magic) {
        ps__dismiss(engine, conn, PS_END_VIOLATION, 0, PS_TEXT_SHORT_CIR);
        return;
    }
    if (memcmp(frame->payload, magic, sizeof magic) != 0) {
        ps__dismiss(engine, conn, PS_END_VERSION, 0, PS_TEXT_BAD_MAGIC);
        return;
    }
    if (!read_cir_fields(conn, frame->payload + sizeof magic, frame->payload + frame->size, &said)) {
        ps__dismiss(engine, conn, PS_END_VIOLATION, 0, PS_TEXT_BROKEN_FIELD);
        return;
    }
    if (!remember_texts(engine, conn, &said))
        return;
    agree(engine, conn, &said);
    engine->read_ns = ps__now_ns(); /* of what came with it */
    if (!engine->options.has_key)
        ps__let_in(engine, conn);
    else if (said.nonce)
        challenge(engine, conn, said.nonce);
    else
        ps__dismiss(engine, conn, PS_END_KEY_WANTED, 0, NULL);
}
