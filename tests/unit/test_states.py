"""The two state machines, against the drawings in the design: every pair of a state and an event."""

from __future__ import annotations

import itertools

import pytest

from pysock.states import (
    CONNECTION_TRANSITIONS,
    DISCONNECT_REASONS,
    SERVER_TRANSITIONS,
    ConnectionEvent,
    ConnectionState,
    DisconnectReason,
    IllegalTransition,
    ServerEvent,
    ServerState,
    next_connection_state,
    next_server_state,
)

# One row for each state; the columns are the events in their order; a dot is illegal.
SERVER = """
             CREATE   BIND   LISTEN     ADOPT      SERVE    DRAIN     CLOSE
NEW          CREATED  .      .          LISTENING  .        .         CLOSED
CREATED      .        BOUND  .          .          .        .         CLOSED
BOUND        .        .      LISTENING  .          .        .         CLOSED
LISTENING    .        .      .          .          SERVING  .         CLOSED
SERVING      .        .      .          .          .        DRAINING  CLOSED
DRAINING     .        .      .          .          .        .         CLOSED
CLOSED       .        .      .          .          .        .         .
"""
# E is ESTABLISHED, H is CHALLENGED, A is ACCEPTED, D is DRAINING, C is CLOSED.
CONNECTION = """
             CIR_ACCEPTED CIR_CHALLENGED CIR_REFUSED PROOF_ACCEPTED PROOF_REFUSED SRM PING BYE END_OF_FILE VIOLATION DRAIN FLUSHED LOST
ACCEPTED     E            H              D           .              .             .   A    D   D           D         D     .       C
CHALLENGED   .            .              .           E              D             .   H    D   D           D         D     .       C
ESTABLISHED  .            .              .           .              .             E   E    D   D           D         D     .       C
DRAINING     .            .              .           .              .             .   .    .   D           .         D     C       C
CLOSED       .            .              .           .              .             .   .    .   .           .         .     .       .
"""  # noqa: E501
SHORT = {"A": "ACCEPTED", "H": "CHALLENGED", "E": "ESTABLISHED", "D": "DRAINING", "C": "CLOSED"}


def drawn(text):
    head, *rows = (line.split() for line in text.strip().splitlines())
    return {(state, event): SHORT.get(to, to) for state, *cells in rows for event, to in zip(head, cells, strict=True)}


@pytest.mark.parametrize(
    ("text", "table", "step", "states", "events"),
    [
        (SERVER, SERVER_TRANSITIONS, next_server_state, ServerState, ServerEvent),
        (CONNECTION, CONNECTION_TRANSITIONS, next_connection_state, ConnectionState, ConnectionEvent),
    ],
    ids=["server", "connection"],
)
def test_every_cell(text, table, step, states, events):
    cells = drawn(text)
    assert set(cells) == {(s.name, e.name) for s, e in itertools.product(states, events)}
    for state, event in itertools.product(states, events):
        wanted = cells[state.name, event.name]
        if wanted == ".":
            assert (state, event) not in table
            with pytest.raises(IllegalTransition, match=f"{state.name} can't .*{event.name}"):
                step(state, event)
        else:
            assert step(state, event) is states[wanted]


@pytest.mark.parametrize(
    ("table", "states"), [(SERVER_TRANSITIONS, ServerState), (CONNECTION_TRANSITIONS, ConnectionState)]
)
def test_closed_is_reached_from_everywhere_and_left_from_nowhere(table, states):
    for state in states:
        reached = {to for (at, _), to in table.items() if at is state}
        assert (states.CLOSED in reached) == (state is not states.CLOSED)
    assert not any(at is states.CLOSED for at, _ in table)


def test_a_table_cannot_be_changed():
    with pytest.raises(TypeError):
        CONNECTION_TRANSITIONS[ConnectionState.CLOSED, ConnectionEvent.SRM] = ConnectionState.ESTABLISHED


def test_an_srm_needs_the_row_that_only_a_cir_makes():
    for state in ConnectionState:
        allowed = (state, ConnectionEvent.SRM) in CONNECTION_TRANSITIONS
        assert allowed == (state is ConnectionState.ESTABLISHED)


def test_the_numbers_that_c_and_python_share():
    assert [int(state) for state in ServerState] == [1, 2, 3, 4, 5, 6, 7]
    assert [int(state) for state in ConnectionState] == [1, 2, 3, 4, 5]
    assert [int(event) for event in ServerEvent] == list(range(7))
    assert [int(event) for event in ConnectionEvent] == list(range(13))


def test_reasons_are_their_texts():
    assert DISCONNECT_REASONS[0] is DisconnectReason.LEFT
    assert DisconnectReason.TIMED_OUT == "timed out"
    assert f"{DisconnectReason.CLOSED_BY_PEER}" == "closed by peer"
