"""The benchmarks: the table of scenarios is sane, a short run measures, and what can't be measured says so."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec

import pytest
from conftest import native_is_missing
from programs import run, tool
from rich.console import Console
from support import ROOT

sys.path.insert(0, str(ROOT))  # bench isn't part of the package: it runs in a checkout

from bench import build, figures, report, summary, tables, tls
from bench.__main__ import LATEST
from bench.peers import PEERS, WITH_PYTHON_CLIENTS, Peer
from bench.results import Results, Row
from bench.scenarios import SCENARIOS, Load, chosen
from bench.suite import Job, Settings, Suite, count_runs, is_wanted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks read /proc and pin processes to cores")

needs_generator = pytest.mark.skipif(native_is_missing(), reason="the load generator is part of the native engine")

BRIEF = Settings(rounds=1, seconds=0.2, warmup=0.05, quick=True)


def bench(*words):
    done = run(sys.executable, "-m", "bench", *map(str, words), PYTHONWARNINGS="default")
    return done.returncode, done.stdout.decode(), done.stderr.decode()


# Peers and scenarios


@pytest.mark.slow
@pytest.mark.parametrize("source", sorted(path.name for path in build.SERVERS.glob("*.c")))
def test_the_servers_in_c_compile(source, tmp_path, monkeypatch):
    tool("cc")
    if source == "floor_tls.c" and tls.missing():
        pytest.skip(tls.missing())
    monkeypatch.setattr(build, "BUILD", tmp_path)
    assert os.access(build.built.__wrapped__(source), os.X_OK)


def test_scenarios():
    assert [scenario.id for scenario in SCENARIOS] == [f"S{number}" for number in range(1, 13)]
    for scenario in SCENARIOS:
        assert scenario.figure in figures.METRICS
        (over_tls,) = {load.transport == "tls" for load in scenario.loads}
        assert scenario.peers[0] == ("tls-floor" if over_tls else "floor")
        assert {"pysock", "pysock-pure"} <= set(scenario.peers) <= set(PEERS)
        assert len(set(scenario.peers)) == len(scenario.peers)
        titles = Counter(load.title for load in scenario.loads)
        assert titles.most_common(1)[0][1] == 1
        assert any(load.headline for load in scenario.loads)
        for load in scenario.loads:
            assert load.transport in {"unix", "tcp", "tls"}
            assert load.by in {"generator", "python", "both"}
            assert load.by == "generator" or load.connections == 1
            assert load.share is None or load.rate is None


def test_each_scenario_is_in_the_quick_mode():
    quick = chosen([], "quick")
    assert [scenario.id for scenario in quick] == [scenario.id for scenario in SCENARIOS]
    for scenario in quick:
        assert 1 <= len([load for load in scenario.loads if load.by != "python"]) <= 2
    assert [len(scenario.loads) for scenario in chosen(["S2"], "full")] == [len(SCENARIOS[1].loads)]


def test_peers():
    servers, clients = ROOT / "bench" / "servers", ROOT / "bench" / "clients"
    for peer in PEERS.values():
        assert (servers / (peer.server if peer.in_c else f"{peer.server}.py")).is_file()
        assert not peer.client or (clients / f"{peer.client.partition(':')[0]}.py").is_file()
        assert peer.id.startswith("py-") == bool(peer.client) == (peer in WITH_PYTHON_CLIENTS)
        assert any(peer.id in scenario.peers for scenario in SCENARIOS)
    used = {peer.server.removesuffix(".c") for peer in PEERS.values()} | {"common", "loops", "listen", "__init__"}
    assert {path.stem for path in servers.iterdir() if path.is_file()} == used
    assert set(summary.COLUMNS) <= {peer.group for peer in PEERS.values()}


def test_the_extra_brings_what_the_peers_need():
    extra = re.search(r"^bench = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert extra
    wanted = {peer.needs[1].removeprefix("pip install ") for peer in PEERS.values() if peer.needs[1].startswith("pip")}
    assert {name for name in wanted if f'"{name}>=' not in extra[1]} == set()


def test_names_choose_peers():
    def ids(names, quick=False):
        return [peer.id for peer in PEERS.values() if is_wanted(peer, names, quick)]

    assert ids([]) == list(PEERS)
    assert ids(["asyncio"]) == ["asyncio", "asyncio-buffered", "asyncio-streams"]
    assert ids(["pysock", "py-mp"]) == ["pysock", "py-mp"]
    assert {"floor", "pysock", "uvloop"} < set(ids([], quick=True)) < set(PEERS)


# Running


@needs_generator
def test_two_servers(tmp_path):
    code, out, err = bench(
        "--scenario", "S7", "--quick", "--peer", "socketserver", "--rounds", 2, "--seconds", 0.1,
        "--output", tmp_path / "r.json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "of floor" in out
    assert "socketserver, threads" in out
    results = Results.load(tmp_path / "r.json")
    assert [row.peer for row in results.rows] == ["floor", "socketserver"]
    assert {row.load for row in results.rows} == {"Unix 32 x 1, 64 B, connect, request, close"}
    for row in results.rows:
        assert (row.missing, row.failed) == ("", "")
        assert {len(values) for values in row.runs.values()} == {2}
        assert all(value > 0 for name in ("messages_per_second", "p50_us", "cpu_us") for value in row.runs[name])
        assert row.median("resident_bytes") > 500_000
    assert results.settings["rounds"] == 2
    assert set(results.environment) >= {"kernel", "processor", "python", "packages", "commit", "compiler"}
    assert str(ROOT) not in (tmp_path / "r.json").read_text()


def measured(load, *peers, scenario=SCENARIOS[1]):
    return Suite(BRIEF).run([Job(scenario, load, peers)]).rows


def shown(rows, width=tables.WIDE):
    console = Console(file=io.StringIO(), width=width)
    console.print(tables.of_load(SCENARIOS[1], rows, width))
    return console.file.getvalue()


def test_python_clients():
    rows = measured(Load(connections=1, in_flight=4, by="python"), PEERS["py-mp"], PEERS["py-pysock-pure"])
    assert [row.failed for row in rows] == ["", ""]
    assert all(row.own_client and not row.client_bound for row in rows)
    assert "(Python clients)" in shown(rows)
    assert "of first" in shown(rows, width=80)


@needs_generator
def test_tasks_of_an_asyncio_program():
    pytest.importorskip("uvloop")
    rows = measured(Load(connections=1, in_flight=4, by="python"), PEERS["py-aio-pysock"], PEERS["py-aio-streams"])
    assert [row.failed for row in rows] == ["", ""]
    assert all(row.median("messages_per_second") > 100 for row in rows)


@needs_generator
def test_handlers_of_other_kinds():
    pytest.importorskip("uvloop")
    kinds = ("pysock-waits", "pysock-processes", "uvloop-threads")
    rows = measured(Load(connections=2), *(PEERS[kind] for kind in kinds))
    assert [row.failed for row in rows] == [""] * len(kinds)
    assert all(row.median("messages_per_second") > 50 for row in rows)


@pytest.mark.slow  # the engine is compiled, unless that is done already
@needs_generator
def test_the_engine_alone():
    (row,) = measured(Load(connections=2, size=100_000, work_us=5), PEERS["engine-only"])
    assert row.failed == ""
    assert row.median("cpu_us") > 5


@needs_generator
def test_a_herd_and_a_busy_thread():
    (row,) = measured(Load(connections=4, size=100, idle=20, stuck=1, hog=True), PEERS["asyncio"])
    assert row.failed == ""
    assert 0 < row.median("hog_core") <= 1.05
    assert row.median("kept") > 0
    assert "idle_bytes" in row.runs


@needs_generator
def test_broadcasts_beside_one_who_does_not_read():
    names = ("floor", "pysock", "pysock-pure", "asyncio")
    load = Load(connections=30, size=10_000, broadcast=True, stuck=1)
    rows = measured(load, *(PEERS[name] for name in names), scenario=SCENARIOS[10])
    assert [row.failed for row in rows] == [""] * 4
    for row in rows:
        assert row.median("messages_per_second") > 0
        assert 0 < row.median("cpu_us") < row.median("p99_us")
        assert row.load == "Unix 30 x 1, 10000 B, broadcasts, 1 doesn't read"


@needs_generator
@pytest.mark.skipif(bool(tls.missing()), reason=tls.missing())
@pytest.mark.parametrize(("names", "load"), [
    ("tls-floor pysock", Load(transport="tls", connections=2, in_flight=3, size=1000)),
    ("pysock-ssl", Load(transport="tls", connections=2, rate=500)),
    ("pysock-pure asyncio", Load(transport="tls", connections=2, churn=True, client_certs=True)),
])  # fmt: skip
def test_loads_over_tls(names, load):
    rows = measured(load, *(PEERS[name] for name in names.split()), scenario=SCENARIOS[11])
    assert [row.failed for row in rows] == [""] * len(rows)
    for row in rows:
        assert row.median("messages_per_second") > 50
        assert 0 < row.median("p50_us") <= row.median("p99_us")
        assert row.median("cpu_us") > 0


@needs_generator
def test_a_rate_that_is_a_share_of_the_capacity():
    suite = Suite(BRIEF)
    (row,) = suite.run([Job(SCENARIOS[4], Load(connections=4, share=0.1), (PEERS["pysock"],))]).rows
    assert row.failed == ""
    assert row.median("messages_per_second") == pytest.approx(
        suite.results.settings["capacity"]["messages_per_second"] / 10, rel=0.2
    )


def test_a_peer_that_is_not_there_says_so():
    absent = replace(PEERS["py-mp"], id="nobody", title="Nobody", needs=("no_such_module.x", "pip install nobody"))
    rows = measured(Load(connections=1, by="python"), absent, PEERS["py-mp"])
    assert rows[0].missing == "not installed: pip install nobody"
    assert (rows[0].runs, rows[0].failed) == ({}, "")
    assert rows[1].runs
    text = shown(rows)
    assert "Nobody: not installed: pip install nobody" in text
    assert "multiprocessing.connection" in text


def test_a_compiler_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "'no-such-compiler'" in PEERS["py-floor"].missing()


def test_a_peer_that_fails_says_why():
    ends = Peer(id="ends", title="Ends", server="common", client="mp_connection", group="x")
    other = replace(PEERS["py-pysock-pure"], id="other", client="plain_socket")
    rows = measured(Load(connections=1, by="python"), ends, other, PEERS["py-mp"])
    assert rows[0].failed == "ServerGone: the server ended"
    assert rows[1].failed.startswith("WrongReply: the reply isn't the request")
    assert rows[2].runs
    assert "Ends: ServerGone: the server ended" in shown(rows)


def test_the_plan_tells_what_is_missing():
    code, out, err = bench("--list", "--quick", "--scenario", "S7", "--peer", "py-mp")
    assert (code, err) == (0, "")
    assert "S7 Unix 1 x 1, 64 B, connect, request, close: py-floor, py-mp" in out
    assert count_runs([Job(SCENARIOS[0], SCENARIOS[0].loads[0], (PEERS["floor"], PEERS["pysock"]))], 3) == 6


def test_what_a_result_lacks_is_added_to_it(tmp_path):
    """Of what it has nothing is measured again."""
    path, words = tmp_path / "r.json", ["--scenario", "S10", "--seconds", 0.05, "--rounds", 1, "--quick"]
    known = results_of(floor=[400e3])
    known.rows[0].scenario, known.rows[0].load = "S10", "Unix 8 x 32, 64 B"
    known.save(path)
    words += ["--peer", "pysock-pure", "--add-to", path, "--output", tmp_path / "new.json"]
    assert bench(*words)[::2] == (0, "")
    code, _, err = bench(*words)
    assert code == 2
    assert err.startswith("bench: nothing is lacking, or no load of these scenarios is for these peers")
    found = Results.load(path)
    assert [(row.peer, bool(row.runs)) for row in found.rows] == [("floor", True), ("pysock-pure", True)]
    assert found.rows[0] == known.rows[0]


def test_the_table_of_handlers():
    results = results_of(**{"pysock-async": [200e3], "uvloop": [100e3]})
    for row in results.rows:
        row.scenario = "S9"
    (handlers,) = summary.summaries(results)
    assert handlers.head == ["handler", "32 x 1: messages/s", "32 x 1: CPU us"]  # and no column without a figure
    assert [(label, [str(cell) for cell in cells]) for label, cells in handlers.rows] == [
        ("pysock in uvloop, async def that never waits", ["200 k", "5.00"]),
        ("uvloop Protocol", ["100 k", "10.0"]),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--peer", "nobody"], "invalid choice: 'nobody'"),
        (["--scenario", "S99"], "invalid choice: 'S99'"),
        (["--seconds", "0"], "must be more than 0, not 0"),
        (["--rounds", "many"], "invalid int value: 'many'"),
        (["--scenario", "S8", "--peer", "py-mp"], "no load of these scenarios is for these peers"),
    ],
)
def test_wrong_usage(words, message):
    code, _, err = bench(*words)
    assert code == 2
    assert message in err


# Reporting


def results_of(**figures_of):
    """Of S2's headline, with these messages/s."""
    results = Results(
        started="2026-01-02T03:04:05+0000",
        environment={"processor": "a processor", "cores": 2, "kernel": "Linux 6", "python": "CPython 3", "commit": "c0",
                     "packages": {"uvloop": "1.0"}},
        settings={"rounds": 3, "seconds": 2.0, "quick": False, "one_core": False},
    )  # fmt: skip
    for name, speeds in figures_of.items():
        peer = PEERS[name]
        row = Row(scenario="S2", load="Unix 32 x 1, 64 B", peer=name, title=peer.title, group=peer.group,
                  own_client=False)  # fmt: skip
        for speed in speeds:
            busy = 0.9 if name == "floor" else 0.5
            row.add({"messages_per_second": speed, "cpu_us": 1e6 / speed, "client_core": busy, "p50_us": 50.0})
        results.rows.append(row)
    return results


def test_the_page_is_refreshed(tmp_path):
    page, results = tmp_path / "page.md", results_of(floor=[400e3, 410e3, 100e3], pysock=[380e3], uvloop=[500e3])
    page.write_text(f"# Page\n\n{report.BEGIN}\nold\n{report.END}\n\nThe end.\n")
    assert report.refresh(page, report.tables(results))
    assert not report.refresh(page, report.tables(results))
    text = page.read_text()
    assert text.startswith(f"# Page\n\n{report.BEGIN}\nMeasured on 2026-01-02 with a processor, 2 cores, Linux 6,")
    assert text.endswith(f"{report.END}\n\nThe end.\n")
    assert "\nold\n" not in text
    assert "| scenario | floor | pysock | uvloop |\n" in text
    # Losses like wins.
    assert "| S2 Unix 32 x 1, 64 B: messages/s | 400 k\\* | 380 k (0.95) | 500 k (1.25) |\n" in text
    assert "| S2 Unix 32 x 1, 64 B | 2.50 | 2.63 (1.05) | 2.00 (0.80) |\n" in text
    assert text.count("client-bound") == 1


def test_the_figures_of_the_readme():
    """The bars of one figure are in proportion; a figure that wasn't measured isn't there, nor is a library."""
    results = results_of(floor=[400e3], pysock=[200e3], **{"pysock-pure": [1.0]})
    for row in results.rows:
        row.load = "Unix 8 x 1, 64 B"
    text = report.bars(results)
    title = next(title for scenario, *_, title in summary.SHOWN if scenario == "S2")
    assert text.startswith(
        f"```text\n{title}\n  floor           400 k  {'#' * report.BAR}\n"
        f"  pysock          200 k  {'#' * (report.BAR // 2)}\n  pysock pure      1.00  #\n```\n"
    )
    assert "Measured on 2026-01-02 with a processor" in text


def test_what_the_readme_shows_is_measured():
    for scenario, load, metric, _ in summary.SHOWN:
        (found,) = [item for item in SCENARIOS if item.id == scenario]
        assert load in {item.title for item in found.loads}
        assert metric in figures.METRICS
    assert len(summary.SHOWN) == 4
    assert set(summary.SHOWN_COLUMNS) <= set(summary.COLUMNS)


@pytest.mark.parametrize(("page", "part"), [("README.md", report.bars), ("bench/README.md", report.tables)])
def test_the_pages_are_those_of_the_latest_results(page, part):
    text = (ROOT / page).read_text()
    assert f"{report.BEGIN}\n{part(Results.load(LATEST))}{report.END}\n" in text


def test_a_page_without_a_place(tmp_path):
    (tmp_path / "page.md").write_text("# Page\n")
    with pytest.raises(report.NoPlace, match=r"page\.md has no part between <!-- bench:begin -->"):
        report.refresh(tmp_path / "page.md", "")


def test_the_best_idiom_stands_for_its_library():
    results = results_of(floor=[400e3], uvloop=[200e3], **{"uvloop-buffered": [300e3]})
    (first, *_), second, *_ = (item.rows for item in summary.summaries(results))
    assert [str(cell) for cell in first[1]] == ["400 k*", "300 k (0.75)"]
    assert [str(cell) for cell in second[0][1]] == ["2.50", "3.33 (1.33)"]


def test_results_survive_a_file(tmp_path):
    results = results_of(floor=[400e3, 410e3], pysock=[380e3])
    results.rows[1].failed = "so and so"
    results.save(tmp_path / "r.json")
    again = Results.load(tmp_path / "r.json")
    assert again == results
    assert json.loads((tmp_path / "r.json").read_text())["rows"][1]["failed"] == "so and so"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "rows": [{}]}'])
def test_a_file_that_is_not_a_result(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    code, _, err = bench("report", tmp_path / "r.json")
    assert code == 1
    assert re.fullmatch(r"bench: .*r\.json: not a result of python -m bench: .*\n", err)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib isn't installed: no charts have been drawn")
def test_report(tmp_path):
    results = results_of(floor=[400e3, 410e3, 100e3], pysock=[380e3], uvloop=[500e3])
    results.save(tmp_path / "r.json")
    readme, page = tmp_path / "README.md", tmp_path / "page.md"
    for path in (readme, page):
        path.write_text(f"{report.BEGIN}\n{report.END}\n")
    words = ["report", tmp_path / "r.json", "--charts", tmp_path / "charts", "--readme", readme, "--page", page]
    code, out, err = bench(*words)
    assert (code, err) == (0, "")
    assert out.splitlines() == [str(tmp_path / "charts" / "S2.svg"), f"{page} refreshed", f"{readme} refreshed"]
    drawing = (tmp_path / "charts" / "S2.svg").read_text()
    assert drawing.count("uvloop Protocol") >= 1
    assert "messages/s: more is better" in drawing
    assert "a processor" in drawing
    assert "| scenario | floor | pysock | uvloop |" in page.read_text()
    assert readme.read_text() == f"{report.BEGIN}\n{report.bars(results)}{report.END}\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00"), (0.0204, "0.020"), (0.85, "0.85"), (4.214, "4.21"), (37.46, "37.5"), (99.97, "100"), (9999, "9,999"),
     (12_340, "12.3 k"), (452_128, "452 k"), (12_300_000, "12.3 M")],
)  # fmt: skip
def test_short(value, text):
    assert figures.short(value) == text
