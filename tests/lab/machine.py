"""The state machine of ``tests/help/twins.py`` by the hundred and by the thousand: the same steps on both engines."""

from __future__ import annotations

from lab.experiment import Experiment, Failed, Missing, Scale

STEPS = 50
#: Runs from one seed: if one of them can't be repeated, its slice is given up and the next one begins.
SLICE = 100


def _steps(scale: Scale, transport: str) -> str:
    try:
        import twins  # noqa: PLC0415  # it takes hypothesis
    except ModuleNotFoundError as error:
        raise Missing(f"{error.name} isn't installed") from None
    wanted = scale.of(120, 20_000)
    twins.seen.clear()
    unsteady = number = 0
    try:
        while twins.seen["runs"] < wanted:
            seed = scale.random("machine", transport, number).getrandbits(32)
            unsteady += not twins.play(transport, seed, SLICE, STEPS)
            number += 1
            if unsteady > 5 + number // 2:
                raise Failed(f"{unsteady} of {number} slices could not be repeated")
    except twins.Difference as difference:
        raise Failed(str(difference)) from None
    finally:
        twins.close_servers()
    seen = ", ".join(f"{count:,} {name}" for name, count in sorted(twins.seen.items()))
    return f"no difference; {seen}, {unsteady} slices given up"


EXPERIMENTS = [
    Experiment(
        f"machine/{transport}",
        "the same steps on both engines, chosen by Hypothesis",
        lambda scale, transport=transport: _steps(scale, transport),  # type: ignore[misc]
    )
    for transport in ("unix", "tcp")
]
