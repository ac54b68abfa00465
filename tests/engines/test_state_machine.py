"""The same steps on both engines, chosen by Hypothesis: see ``twins.py``. ``tests.lab`` takes far more of them."""

from __future__ import annotations

import pytest
import twins
from conftest import native_is_missing

pytestmark = pytest.mark.skipif(native_is_missing(), reason="it takes two engines")


@pytest.fixture
def servers():
    yield
    twins.close_servers()


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.usefixtures("servers")
def test_both_engines_do_the_same(transport):
    before, dropped = twins.seen["requests"], twins.seen["pushes dropped"]
    assert any(twins.play(transport, seed, runs=25) and twins.seen["pushes dropped"] > dropped for seed in range(5))
    assert twins.seen["requests"] > before + 100
