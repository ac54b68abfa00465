"""What both engines have of their own, each in its language: the same texts, and the same bounds.

They are read from the sources of C, so that nothing of it has to be exported for this.
"""

from __future__ import annotations

import re

import pytest
from support import ROOT

import pysock.load.options as load
from pysock.base import logs
from pysock.engine import linger, outlet
from pysock.engine.pure import accept, commands, core, lateness, timers, turn
from pysock.engine.pure.client import heads, waiter
from pysock.engine.pure.waiting import pending, streams
from pysock.wire import features, texts

CSRC = ROOT / "csrc"
CODE = re.sub(r"/\*.*?\*/", "", "\n".join(path.read_text() for path in CSRC.rglob("*.[ch]")), flags=re.DOTALL)

TEXTS = {name: text for name, text in vars(texts).items() if name.isupper() and isinstance(text, str)}

#: Of C, in its unit -> of Python, in the same.
BOUNDS = {
    "PS_ACCEPTS_MAX": accept._ACCEPTS_MAX,
    "PS_PAUSE_ACCEPT_MS": accept._PAUSE * 1000,
    "PS_CROWD_MS": accept._CROWD_WAIT * 1000,
    "PS_PAUSE_SEND_MS": core._PAUSE_SEND * 1000,
    "PS_READ_MAX": core.READ_MAX,
    "PS_PENDING_BYTES": pending._BYTES_MAX,
    "PS_COMMANDS_BYTES": commands._BYTES_MAX,
    "PS_STREAM_AHEAD": streams._AHEAD,
    "PS_STREAM_COST": features.STREAM_COST,
    "STEPS_MAX": streams._STEPS_MAX,
    "STEP_BYTES_MAX": streams._STEP_BYTES_MAX,
    "STEP_NS": streams._STEP * 1e9,
    "PS_COMMAND_COST": commands._OVERHEAD,
    "PS_LOOK_NS": turn._SLEEP_MAX * 1e9,
    "LONG_WORK_NS": lateness._LONG_WORK * 1e9,
    "LOOKS": timers._LOOKS,
    "TELL_EVERY_NS": logs.TELL_EVERY * 1e9,
    "CONTROL_MAX": heads._CONTROL_MAX,
    "PS_SHARE_SIGNAL_NAP_NS": waiter._NAP * 1e6,
    "PS_LINGER_USUAL_NS": linger.USUAL * 1e9,
    "PS_LINGER_FAR": linger._FAR,
    "PS_LINGER_TRIES": linger._TRIES,
    "PS_LINGER_MISSES_MAX": linger._MISSES_MAX,
    "PS_TRIAL_PAIRS": linger.PAIRS,
    "PS_TRIAL_DONE": linger.DONE,
    "PS_TRIAL_NS": linger.HALF * 1e9,
    "PS_TRIAL_MOST_NS": linger.HALF_MOST * 1e9,
    "PS_TRIAL_HOLD_NS": linger.HOLD * 1e9,
    "PS_TRIAL_HOLDS_MAX": linger.HOLDS_MAX,
    "PS_TRIAL_HOLD_TRIALS": linger.HOLD_TRIALS,
    "PS_TRIAL_PERCENT": linger.PERCENT,
    "PS_TRIAL_PREEMPTED_NS": linger.PREEMPTED * 1e9,
    "PS_TRIAL_PREEMPTED_PART": linger.PREEMPTED_PART,
    "PS_TRIAL_WITHDRAWN_MAX": linger.WITHDRAWN_MAX,
    "OUTLET_SMALL": outlet.SMALL,
    "OUTLET_FULL": outlet.FULL,
    "OUTLET_SHARED_NS": outlet.SHARED * 1e9,
    "OUTLET_PARTS": outlet.PARTS,
    "PS_LOAD_CONNECTIONS_MAX": load.MOST_CONNECTIONS,
    "PS_LOAD_IN_FLIGHT_MAX": load.MOST_IN_FLIGHT,
    "PS_LOAD_SIZE_MAX": load.LARGEST,
}


def shape(text: str) -> str:
    """A text without what is filled in: the two languages write that in their own ways."""
    return re.sub(r"%(?:\.\d+)?(?:z?[du]|s)", "%", text)


def test_the_texts_are_the_same_in_both():
    defined = dict(re.findall(r'#define PS_TEXT_(\w+)(?: \\\n)? +"(.*)"', (CSRC / "base/texts.h").read_text()))
    assert {name: shape(text) for name, text in defined.items()} == {name: shape(text) for name, text in TEXTS.items()}
    assert len(TEXTS) > 30


def test_a_text_is_written_once():
    """In each language: elsewhere it has its name."""
    said = {shape(text) for text in TEXTS.values()}
    for path in (*CSRC.rglob("*.[ch]"), *(ROOT / "pysock/engine").rglob("*.py"), *(ROOT / "pysock/wire").rglob("*.py")):
        if path.stem != "texts":
            strings = re.findall(r'"((?:\\.|[^"\\\n])*)"', re.sub(r'"\s*\n\s*f?"', "", path.read_text()))
            assert not said & set(map(shape, strings)), path


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_is_the_same_in_both(name):
    (value,) = re.findall(rf"\b{name} = ([\d *<()]+)(?=[,\s}}])", CODE)
    assert eval(value) == pytest.approx(BOUNDS[name])
