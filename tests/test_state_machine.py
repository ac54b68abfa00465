"""The same steps on both engines, chosen by Hypothesis: see ``twins.py``. ``tests.lab`` takes far more of them."""

from __future__ import annotations

import pytest
import twins
from conftest import native_is_missing
from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test

pytestmark = pytest.mark.skipif(native_is_missing(), reason="it takes two engines")


@pytest.fixture
def machine(transport):
    yield twins.MACHINES[transport]
    twins.close_servers()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_both_engines_do_the_same(machine):
    run_state_machine_as_test(seed(1)(machine), settings=twins.profile(runs=25))
