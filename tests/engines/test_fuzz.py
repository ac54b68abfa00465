"""What fuzzing has found, and what leads it to the far corners: each input is a test for ever.

The fuzzers themselves are experiments of ``tests/lab``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import oracle
import pytest
from lab.building import steady
from lab.fuzzing import difference
from support import ROOT

FOLDER = ROOT / "tests" / "fuzz"
TARGETS = ("cut", "protocol", "rows")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the targets are built by the C compiler, without a fuzzer."""
    if sys.platform != "linux" or not all(map(shutil.which, ("cc", "make"))):
        pytest.skip("it takes Linux, a C compiler and make")
    build = tmp_path_factory.mktemp("fuzz")
    done = subprocess.run(
        ["make", "-C", str(FOLDER), "-j2", "replay", "oracle", f"BUILD={build}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    return build


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("target", TARGETS)
def test_every_input_of_the_corpus_under_sanitizers(built, target):
    inputs = sorted((FOLDER / "corpus" / target).iterdir())
    assert len(inputs) > 20
    done = subprocess.run(
        [*steady(), str(built / f"replay_fuzz_{target}"), *map(str, inputs)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1]}\n{done.stderr[-5000:]}"
    assert done.stdout.splitlines() == list(map(str, inputs))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_c_and_python_make_the_same_of_random_streams(built):
    engine, streams = oracle.Engine(built / "oracle.so"), oracle.Streams("suite")
    reasons = set()
    for _ in range(3000):
        stream = streams.next()
        native, pure = engine.play(stream), oracle.by_python(stream)
        assert native == pure, difference(stream, native, pure)
        reasons.add((stream.framing, native.reason))
    assert len(reasons) >= 8  # they lead everywhere
