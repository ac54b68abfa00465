"""What is exposed, and how it is written: values without a server, read by the parsers of others."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from pages import code, table, topic
from programs import missing, tool

from pysock.base.clock import monotonic
from pysock.engine.meter import BUCKETS_AT, CAME_AT, COUNTERS, ROW, STAMP, SUM, bucket_of
from pysock.errors import PysockError
from pysock.metrics import Page, Source
from pysock.metrics.families import BOUNDS, NOT_SHOWN, SHOWN, every, families, readings
from pysock.metrics.text import openmetrics, plain, wants_open

#: Names of services that need care in a label.
AWKWARD = ['"quoted"', "two\nlines", "back\\slash", "\\n", "{a=1}", "ünicode ☃", " ", "\r", "a,b", "#"]


def parsers():
    try:
        from prometheus_client import parser  # noqa: PLC0415
        from prometheus_client.openmetrics import parser as open_parser  # noqa: PLC0415
    except ImportError:
        missing("prometheus_client isn't installed: no parser of another's has read what is exposed")
    return parser.text_string_to_metric_families, open_parser.text_string_to_metric_families


def linted(text: str) -> str:
    done = subprocess.run([tool("promtool"), "check", "metrics"], input=text.encode(), capture_output=True, check=False)
    return (done.stdout + done.stderr).decode() or f"exit code {done.returncode}"


@pytest.fixture
def counted():
    """``counted(services, ns=, times=)``: a page on which each service had so many requests that took so long."""
    pages = []

    def make(services=("",), ns=3_000, times=2, backend="native"):
        page = Page.new()
        meter = page.lay_out(services, backend)
        meter.counters[STAMP] = int(monotonic() * 1e9)
        for number in range(len(services)):
            at = number * ROW
            meter.rows[at] = meter.rows[at + BUCKETS_AT + bucket_of(ns)] = times
            meter.rows[at + SUM] = ns * times
        pages.append(page)
        return page, meter

    yield make
    for page in pages:
        page.close()


def exposed(*sources: Source):
    return families(readings(sources))


def by_labels(families, name):
    (family,) = [each for each in families if each.name == name]
    return {(suffix, *labels.values()): value for suffix, labels, value in family.samples}


def test_each_counter_is_exposed_once_or_is_known_not_to_be():
    shown = [counter for family in SHOWN for counter in family.of]
    assert sorted([*shown, *NOT_SHOWN]) == sorted(COUNTERS)


def test_the_page_has_the_names():
    suffixes = {"counter": "_total", "info": "_info"}
    names = [family.name + suffixes.get(family.kind, "") for family in every([])]
    assert [code(name)[0] for name, _, _ in table(topic("metrics"), "metric", "labels", "what")] == names


def test_what_others_read(counted):
    """Both formats, with names of services that have to be escaped: nothing is lost, promtool finds nothing."""
    page, meter = counted(["", *AWKWARD])
    meter.counters[CAME_AT] = 7
    found = exposed(Source(page.read))
    assert linted(plain(found)) == "exit code 0"
    for parse, text in zip(parsers(), (plain(found), openmetrics(found)), strict=True):
        samples = [sample for family in parse(text) for sample in family.samples]
        numbers = {(each.name, *each.labels.values()): each.value for each in samples}
        assert numbers["pysock_connections_total", "unix"] == 7
        for name in ["(unnamed)", *AWKWARD]:
            assert numbers["pysock_requests_total", name, "OK"] == 2
            assert numbers["pysock_request_seconds_count", name] == 2
            assert numbers["pysock_request_seconds_bucket", name, "2.5e-06"] == 0
            assert numbers["pysock_request_seconds_bucket", name, "5e-06"] == 2
            assert numbers["pysock_request_seconds_bucket", name, "+Inf"] == 2


@pytest.mark.slow
def test_ten_thousand_services_are_valid(counted):
    page, _ = counted([f"service {number}" for number in range(10_000)])
    text = plain(exposed(Source(page.read)))
    assert text.count("\n") > 27 * 10_000
    assert linted(text) == "exit code 0"


@pytest.mark.parametrize("ns", [0, 999, 1_000, 30_000, 1_000_000, 49_999_999_999, 10**14])
def test_a_histogram_is_cumulative_and_in_its_place(counted, ns):
    """Within a quarter of a power of two, as times are told apart."""
    page, _ = counted(ns=ns, times=100)
    samples = by_labels(exposed(Source(page.read)), "pysock_request_seconds")
    below = [samples["_bucket", "(unnamed)", repr(bound)] for bound in BOUNDS]
    assert below == sorted(below)
    assert samples["_bucket", "(unnamed)", "+Inf"] == samples["_count", "(unnamed)"] == 100
    for bound, number in zip(BOUNDS, below, strict=True):
        if number < 100:
            assert bound <= max(ns / 1e9 * 1.25, 1.28e-6)
        if number > 0:
            assert bound >= ns / 1e9 * 0.8


def test_a_bound_within_a_bucket_has_its_part_of_it(counted):
    """4 microseconds: the bucket from 4.096 to 5.12 is spread evenly about the bound at 5."""
    page, _ = counted(ns=4_100, times=1000)
    assert by_labels(exposed(Source(page.read)), "pysock_request_seconds")["_bucket", "(unnamed)", "5e-06"] == 882


def test_several_workers_are_one_scrape(counted):
    """Sums, but what is each one's own; one that can't be read, or has gone, hides nobody."""

    def broken():
        raise PysockError("no page")

    one, first = counted(["echo"])
    two, second = counted(["echo", "other"])
    first.counters[COUNTERS.index("clients")], second.counters[COUNTERS.index("clients")] = 3, 4
    first.counters[CAME_AT], second.counters[CAME_AT] = 30, 40
    second.counters[STAMP] -= 60 * 10**9
    empty = Page.new()
    found = exposed(
        Source(one.read, "0"),
        Source(two.read, "1"),
        Source(broken, "2"),
        Source(empty.read, "3"),
        Source(one.read, "4", False),
    )
    empty.close()
    up = {("", "0"): 1, ("", "1"): 0, ("", "2"): 0, ("", "3"): 0, ("", "4"): 0}
    assert by_labels(found, "pysock_worker_up") == up
    assert by_labels(found, "pysock_clients") == {("", "0"): 3, ("", "1"): 4, ("", "4"): 3}
    assert by_labels(found, "pysock_loop_age_seconds")["", "1"] == pytest.approx(60, abs=30)
    assert by_labels(found, "pysock_connections")["_total", "unix"] == 100
    assert by_labels(found, "pysock_requests") == {("_total", "echo", "OK"): 6, ("_total", "other", "OK"): 2}
    assert by_labels(found, "pysock_request_seconds")["_count", "echo"] == 6
    assert linted(plain(found)) == "exit code 0"


def test_totals_of_one_that_is_gone_stay_with_its_successor(counted):
    one, _ = counted(["echo"])
    two, _ = counted(["echo"])
    gone = one.read().retired()
    found = exposed(Source(lambda: gone + two.read(), "0"))
    assert by_labels(found, "pysock_requests") == {("_total", "echo", "OK"): 4}
    assert by_labels(found, "pysock_worker_up") == {("", "0"): 1}
    assert 0 <= by_labels(found, "pysock_loop_age_seconds")["", "0"] < 30


def test_a_successor_that_hangs_is_seen_behind_one_that_is_gone(counted):
    one, _ = counted(["echo"])
    two, meter = counted(["echo"])
    meter.counters[STAMP] -= 60 * 10**9
    gone = replace(one.read().retired(), read_at=monotonic() - 100)
    found = exposed(Source(lambda: gone + two.read(), "0"))
    assert by_labels(found, "pysock_worker_up") == {("", "0"): 0}


def test_only_the_native_engine_knows_how_long_it_waited_for_the_gil(counted):
    names = {
        backend: {each.name for each in exposed(Source(counted(backend=backend)[0].read))}
        for backend in ("native", "pure")
    }
    assert names["native"] - names["pure"] == {"pysock_gil_wait_seconds"}


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("Text/Plain;q=0.9, Application/OpenMetrics-Text ; version=1.0.0 ; q=0.3", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=much", False),
    ],
)
def test_which_format_is_asked_for(accept, is_open):
    assert wants_open(accept) is is_open
