"""The state machine of ``tests/twins.py`` by the hundred and by the thousand: the same steps on both engines."""

from __future__ import annotations

from typing import Any

from lab.experiment import Experiment, Failed, Missing, Scale

STEPS = 50
#: Runs from one seed. Where the kernel was slow to deliver, a run can't be repeated as Hypothesis wants it; then its
#: slice is given up, and the next one begins.
SLICE = 100


def _steps(scale: Scale, transport: str) -> str:
    try:
        import twins  # noqa: PLC0415  # it takes hypothesis
    except ModuleNotFoundError as error:
        raise Missing(f"{error.name} isn't installed") from None
    wanted = scale.of(500, 20_000)
    twins.seen.clear()
    unsteady = number = 0
    try:
        while twins.seen["runs"] < wanted:
            unsteady += _slice(twins, transport, scale.random("machine", transport, number).getrandbits(32))
            number += 1
            if unsteady > 5 + number // 2:
                raise Failed(f"{unsteady} of {number} slices could not be repeated")
    finally:
        twins.close_servers()
    seen = ", ".join(f"{count:,} {name}" for name, count in sorted(twins.seen.items()))
    return f"no difference; {seen}, {unsteady} unsteady runs"


def _slice(twins: Any, transport: str, seed: int) -> bool:
    """Whether it had to be given up."""
    from hypothesis import errors  # noqa: PLC0415
    from hypothesis import seed as seeded  # noqa: PLC0415
    from hypothesis.stateful import run_state_machine_as_test  # noqa: PLC0415

    try:
        run_state_machine_as_test(
            seeded(seed)(twins.MACHINES[transport]), settings=twins.profile(SLICE, STEPS), _min_steps=STEPS
        )
    except (AssertionError, errors.HypothesisException) as error:
        found: BaseException | None = error
        while found is not None and not isinstance(found, twins.Difference):
            found = found.__context__
        if found is None and isinstance(error, errors.HypothesisException):
            return True
        steps = "\n".join([*getattr(error, "__notes__", []), *getattr(found, "__notes__", [])])
        raise Failed(f"{found or error}\n{steps}\n(Hypothesis seed {seed})") from None
    return False


EXPERIMENTS = [
    Experiment(
        f"machine/{transport}",
        "the same steps on both engines, chosen by Hypothesis",
        lambda scale, transport=transport: _steps(scale, transport),  # type: ignore[misc]
    )
    for transport in ("unix", "tcp")
]
