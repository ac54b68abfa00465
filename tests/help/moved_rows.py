"""Rows of clients that move, as Hypothesis makes them."""

from __future__ import annotations

from hypothesis import strategies as st

from pysock.handover.rows import (
    ACCEPTED,
    CHALLENGED,
    CIR,
    ESTABLISHED,
    FRAME,
    IDLE,
    IPV4,
    IPV6,
    OUTPUT,
    UNIX,
    Address,
    Counters,
    Proxied,
    Row,
)

U16, U32, U64 = (st.integers(0, 2 ** (8 * size) - 1) for size in (2, 4, 8))
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
ip_addresses = st.one_of(
    st.builds(Address, st.just(IPV4), st.binary(min_size=4, max_size=4), U16),
    st.builds(Address, st.just(IPV6), st.binary(min_size=16, max_size=16), U16),
)
headers = st.binary(min_size=1, max_size=300)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """Any row that there may be."""
    state = draw(st.sampled_from([ACCEPTED, CHALLENGED, ESTABLISHED]))
    proxy = draw(st.none() | st.just(Address(UNIX)) | ip_addresses)
    has_path = draw(st.booleans())
    proxied = None if proxy is None else Proxied(proxy, draw(headers), has_path)
    kinds = draw(st.lists(st.sampled_from([CIR, FRAME, OUTPUT, IDLE]), unique=True))
    return Row(
        client_id=draw(st.integers(1, 2**32 - 1)) << 32 | draw(st.integers(0, 2**24 - 1)),
        state=state,
        listener=draw(st.integers(0, 255)),
        features=draw(st.integers(0, 255)),
        name=draw(names),
        software=draw(names),
        max_reply=draw(U32),
        expected=draw(st.binary(min_size=1, max_size=255)) if state == CHALLENGED else b"",
        proxied=proxied,
        origin=draw(st.none() | ip_addresses) if proxied is not None and not has_path else None,
        counters=Counters(*[draw(U64) for _ in Counters._fields]),
        deadlines=tuple((kind, draw(U32)) for kind in kinds if kind != CIR or state != ESTABLISHED),
        input=draw(st.binary(max_size=200)),
        skip=draw(U32),
        output=draw(st.binary(max_size=200)),
        stream_window=draw(U32),
        gap=draw(U32),
        heard=draw(U32),
        gave_up=draw(st.booleans()),
        awaits_header=state == ACCEPTED and proxied is None and draw(st.booleans()),
        waited=draw(U32),
        dropped=draw(U64),
    )
