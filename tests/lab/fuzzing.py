"""Fuzzing: libFuzzer on the C engine in a world made of memory (``tests/fuzz``); random streams to C and to Python.

A finding is kept under ``build/lab/found``; ``make -C tests/fuzz replay`` builds what runs it again. An input that
showed a bug belongs into ``tests/fuzz/corpus``, where the suite runs it for ever.
"""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import oracle
from support import ROOT

from lab.building import BUILD, CLANGS, FOUND, fresh, make, need, run, steady
from lab.experiment import Experiment, Failed, Missing, Scale, check

FOLDER = ROOT / "tests" / "fuzz"
SECONDS = 20, 1800
#: Bytes of an input; and in what the targets differ.
LONGEST = 400
OPTIONS = {"cut": [f"-dict={FOLDER / 'frames.dict'}"], "protocol": [], "rows": []}


def _build(target: str) -> Path:
    clang = need(*CLANGS)
    probe = run([clang, "-fsanitize=fuzzer,address", "-x", "c", "-", "-o", "/dev/null"])
    if re.search("(?:cannot find|no such file).*libclang_rt", probe.stdout, re.IGNORECASE):
        raise Missing("clang is there, but not its libFuzzer (Debian: libclang-rt-*-dev)")
    make("tests/fuzz", f"{BUILD}/fuzz_{target}", BUILD=BUILD, CLANG=clang)
    return BUILD / f"fuzz_{target}"


def _fuzz(scale: Scale, target: str) -> str:
    program, work = _build(target), fresh(BUILD / f"corpus_{target}")
    found = fresh(FOUND / target)
    done = run(
        [
            *steady(), program, work, FOLDER / "corpus" / target, *OPTIONS[target],
            f"-max_total_time={scale.of(*SECONDS)}", f"-seed={scale.seed % 2**31 or 1}", f"-artifact_prefix={found}/",
            f"-max_len={LONGEST}", "-timeout=10", "-rss_limit_mb=2048", "-detect_leaks=0", "-print_final_stats=1",
        ],
        timeout=scale.of(*SECONDS) + 300,
        ASAN_OPTIONS="quarantine_size_mb=1",
    )  # fmt: skip
    if done.returncode:
        told = re.findall(r".*(?:does not hold|runtime error|ERROR: \w+).*", done.stdout)
        kept = ", ".join(str(path) for path in found.iterdir())
        raise Failed(f"{told[0] if told else done.stdout[-2000:]} (input: {kept})")
    shutil.rmtree(work)
    runs, coverage = (
        re.findall(r"stat::number_of_executed_units: (\d+)", done.stdout),
        re.findall(r"cov: (\d+)", done.stdout),
    )
    return f"{int(runs[-1]):,} inputs, {coverage[-1]} edges of the engine, no finding"


def _oracle(scale: Scale) -> str:
    need("cc")
    make("tests/fuzz", "oracle", BUILD=BUILD)
    engine, streams = oracle.Engine(BUILD / "oracle.so"), oracle.Streams(scale.seed)
    count, end = 0, time.monotonic() + scale.of(*SECONDS)
    while time.monotonic() < end:
        for _ in range(100):
            stream = streams.next()
            count += 1
            native, pure = engine.play(stream), oracle.by_python(stream)
            check(native == pure, f"stream {count} of seed {scale.seed}: {difference(stream, native, pure)}")
    return f"{count:,} streams, C and Python the same byte by byte"


def difference(stream: oracle.Stream, native: oracle.Outcome, pure: oracle.Outcome) -> str:
    """In which of its parts the outcomes differ."""
    parts = [
        f"{name}: C has {str(mine)[:500]}, Python {str(its)[:500]}"
        for name, mine, its in zip(native._fields, native, pure, strict=True)
        if mine != its
    ]
    return f"{'; '.join(parts)}; it was {str(stream)[:2000]}"


EXPERIMENTS = [
    Experiment("fuzz/cut", "libFuzzer: bytes cut into frames, whole and in pieces", lambda scale: _fuzz(scale, "cut")),
    Experiment(
        "fuzz/protocol", "libFuzzer: clients, limits, time and faults by script", lambda scale: _fuzz(scale, "protocol")
    ),
    Experiment("fuzz/rows", "libFuzzer: rows of clients from another process", lambda scale: _fuzz(scale, "rows")),
    Experiment("fuzz/oracle", "random streams to C and to the protocol in Python", _oracle),
]
