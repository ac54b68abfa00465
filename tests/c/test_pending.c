/* Requests that have no answer yet: how many make a client wait, which of them get an answer, and whose it is. */
#include <sys/socket.h>

#include "echo.h"
#include "base/texts.h"
#include "conn/life.h"
#include "conn/pending.h"
#include "table/table.h"

enum { MOST = 8, MIB = 1 << 20 };

static echo server; /* its loop doesn't run */

typedef struct client {
    ps_conn *conn;
    int peer;
} client;

static client newcomer(void)
{
    client who;
    who.conn = echo_seat(&server, SOCK_STREAM, &who.peer);
    return who;
}

static void leave(client who)
{
    CHECK(!who.conn->out_head);
    CHECK_EQ(close(who.conn->fd), 0);
    CHECK_EQ(close(who.peer), 0);
    ps__table_remove(&server.engine->table, who.conn);
}

static client begin(uint32_t framing)
{
    ps_options options = echo_options(framing);
    options.limits.max_in_flight = MOST;
    echo_new(&server, &options);
    echo_listen(&server, AF_UNIX);
    CHECK_EQ(ps_engine_add_master(server.engine, server.master, 0), 0);
    return newcomer();
}

static void end(void)
{
    ps__engine_free(server.engine);
    CHECK_EQ(ps_socket_close(server.master), 0);
}

static ps_pending ask(client who, uint32_t size)
{
    const ps_frame frame = {.kind = PS_SRM, .size = size, .request_id = 7};
    return ps__pending_add(server.engine, who.conn, &frame);
}

static ps_conn *answer(const ps_pending *pending)
{
    ps_conn *conn = ps__pending_done(server.engine, pending);
    if (conn)
        ps__send(server.engine, conn, PS_REPLY, 0, pending->frame.request_id, "!", 1, NULL);
    return conn;
}

static bool is_paused(client who)
{
    return !ps__reads(server.engine, who.conn);
}

static size_t arrived(client who)
{
    uint8_t bytes[256];
    ssize_t got = recv(who.peer, bytes, sizeof bytes, MSG_DONTWAIT);
    return got < 0 ? 0 : (size_t)got;
}

static void many_make_it_wait(void)
{
    ps_pending all[MOST];
    client it = begin(PS_PYSOCK);
    for (unsigned i = 0; i < MOST; i++) {
        CHECK(!is_paused(it));
        all[i] = ask(it, 10);
    }
    CHECK_EQ(it.conn->in_flight, MOST);
    for (unsigned i = 0; i < MOST; i++) {
        CHECK_EQ(is_paused(it), i < MOST / 2);
        CHECK(answer(&all[i]) == it.conn);
    }
    ps__pending_flush(server.engine);
    CHECK_EQ(arrived(it), MOST * (PS_HEADER_SIZE + 1));
    CHECK(it.conn->in_flight == 0 && it.conn->in_flight_bytes == 0);
    leave(it);
    end();
}

static void much_makes_it_wait(void)
{
    ps_pending all[4];
    client it = begin(PS_PYSOCK);
    for (unsigned i = 0; i < 4; i++) {
        CHECK(!is_paused(it));
        all[i] = ask(it, 16 * MIB);
    }
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(is_paused(it), i < 2);
        CHECK(answer(&all[i]) == it.conn);
    }
    ps__pending_flush(server.engine);
    leave(it);
    end();
}

/* Whoever has its slot by then gets nothing, and owes nothing. */
static void of_one_that_has_gone(void)
{
    client first = begin(PS_PYSOCK);
    ps_pending late = ask(first, 10), closed = ask(first, 10);
    first.conn->state = PS_CONN_CLOSED;
    CHECK(!answer(&closed));
    leave(first);
    client next = newcomer();
    CHECK(next.conn == first.conn);
    CHECK(!answer(&late));
    ps__pending_flush(server.engine);
    CHECK(arrived(next) == 0 && next.conn->in_flight == 0);
    leave(next);
    end();
}

static void none_is_answered_after_one_that_is_not(void)
{
    client it = begin(PS_U32);
    ps_pending first = ask(it, 10), second = ask(it, 10), third = ask(it, 10);
    CHECK(answer(&first) == it.conn);
    CHECK(ps__pending_done(server.engine, &second) == it.conn);
    ps__pending_give_up(it.conn);
    CHECK(!answer(&third));
    CHECK_EQ(it.conn->in_flight, 0);
    ps__pending_flush(server.engine);
    CHECK_EQ(arrived(it), 4 + 1);
    leave(it);
    end();
}

static void answers_are_gathered_client_by_client(void)
{
    client it = begin(PS_U32), other = newcomer();
    ps_pending first = ask(it, 10), second = ask(it, 10), of_other = ask(other, 10);
    CHECK(answer(&first) == it.conn && answer(&second) == it.conn);
    CHECK_EQ(arrived(it), 0);
    CHECK(answer(&of_other) == other.conn);
    CHECK_EQ(arrived(it), 2 * (4 + 1));
    CHECK_EQ(arrived(other), 0);
    ps__pending_flush(server.engine);
    CHECK_EQ(arrived(other), 4 + 1);
    leave(other);
    leave(it);
    end();
}

static void forget(client gone)
{
    server.engine->dirty = PS_NO_SLOT;
    gone.conn->flags = 0;
    ps__bury(server.engine);
    ps__leave(server.engine);
    CHECK_EQ(close(gone.peer), 0);
}

static void one_that_is_ending_is_closed_after_the_last_answer(void)
{
    client it = begin(PS_PYSOCK);
    ps_pending first = ask(it, 10), last = ask(it, 10);
    server.engine->stats.clients = 1;
    it.conn->state = PS_CONN_DRAINING;
    it.conn->reason = PS_CLOSED_BY_PEER;
    CHECK(answer(&first) == it.conn);
    ps__pending_flush(server.engine);
    CHECK_EQ(it.conn->state, PS_CONN_DRAINING);
    CHECK(answer(&last) == it.conn);
    CHECK(it.conn->flags & PS_IS_DIRTY); /* the end of the turn looks at it, even if nothing is sent */
    ps__pending_flush(server.engine);
    CHECK_EQ(it.conn->state, PS_CONN_CLOSED);
    CHECK_EQ(arrived(it), 2 * (PS_HEADER_SIZE + 1));
    forget(it);
    CHECK_EQ(server.gone, 1);
    end();
}

/* -- of clients that may cancel ------------------------------------------------------------------------------------ */

static client newcomer_that_cancels(void)
{
    client it = begin(PS_PYSOCK);
    it.conn->features = PS_FEATURE_CANCEL;
    return it;
}

static bool is_waiting(client who, uint32_t request_id)
{
    const ps_frame frame = {.kind = PS_SRM, .request_id = request_id};
    return ps__is_in_flight(server.engine, who.conn, &frame);
}

static void one_that_is_cancelled_is_not_started(void)
{
    client it = newcomer_that_cancels();
    ps_pending first = ask(it, 10);
    CHECK(ps__pending_may_start(server.engine, &first) && is_waiting(it, 7));
    ps__output_begin(server.engine, it.conn);
    ps__cancel(server.engine, it.conn, 8);
    CHECK(is_waiting(it, 7));
    ps__cancel(server.engine, it.conn, 7);
    ps__output_end(server.engine, it.conn);
    CHECK_EQ(arrived(it), PS_HEADER_SIZE + sizeof PS_TEXT_CANCELLED - 1);
    CHECK(!is_waiting(it, 7));
    CHECK_EQ(it.conn->in_flight, 1);
    ps_pending second = ask(it, 10); /* with the same id: it is another request */
    CHECK(!ps__pending_may_start(server.engine, &first) && ps__pending_may_start(server.engine, &second));
    CHECK_EQ(it.conn->in_flight, 1);
    CHECK(answer(&second) == it.conn && !is_waiting(it, 7));
    ps__pending_flush(server.engine);
    CHECK_EQ(server.engine->ids_in_flight.used, 0);
    leave(it);
    end();
}

static void an_id_is_free_when_its_client_has_gone(void)
{
    client it = newcomer_that_cancels();
    ps_pending first = ask(it, 10), others = first;
    others.frame.request_id = 8;
    leave(it);
    CHECK_EQ(server.engine->ids_in_flight.used, 1);
    CHECK(!ps__pending_may_start(server.engine, &first) && !ps__pending_may_start(server.engine, &others));
    CHECK_EQ(server.engine->ids_in_flight.used, 0);
    end();
}

static void one_that_is_late_is_not_started(void)
{
    client it = begin(PS_PYSOCK);
    it.conn->features = PS_FEATURE_DEADLINE;
    ps_pending first = ask(it, 10), second = ask(it, 10);
    first.frame.deadline_ns = 1;
    second.frame.deadline_ns = UINT64_MAX;
    CHECK(!ps__pending_may_start(server.engine, &first) && ps__pending_may_start(server.engine, &second));
    ps__pending_flush(server.engine);
    CHECK_EQ(arrived(it), PS_HEADER_SIZE + sizeof PS_TEXT_TOO_LATE - 1);
    CHECK(answer(&second) == it.conn);
    ps__pending_flush(server.engine);
    leave(it);
    end();
}

int main(void)
{
    RUN(many_make_it_wait);
    RUN(much_makes_it_wait);
    RUN(of_one_that_has_gone);
    RUN(none_is_answered_after_one_that_is_not);
    RUN(answers_are_gathered_client_by_client);
    RUN(one_that_is_ending_is_closed_after_the_last_answer);
    RUN(one_that_is_cancelled_is_not_started);
    RUN(an_id_is_free_when_its_client_has_gone);
    RUN(one_that_is_late_is_not_started);
    return 0;
}
