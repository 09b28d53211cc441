"""How the learner is doing, written by its loop and read from any thread."""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from learner.objective import StepReport

WINDOW_STEPS = 100


@dataclass(frozen=True, slots=True)
class _Moment:
    """A step, when it ended, and what had been waited for data until then."""

    report: StepReport
    lag_versions: float
    seconds: float
    waited_seconds: float


class Progress:
    """Means over the last `WINDOW_STEPS` steps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moments: deque[_Moment] = deque(maxlen=WINDOW_STEPS)
        self._facts: dict[str, float | str] = {}

    def tell(self, **facts: float | str) -> None:
        """Note facts by name; an older one of that name is replaced."""
        with self._lock:
            self._facts.update(facts)

    def add(self, report: StepReport, *, lag_versions: float, seconds: float, waited_seconds: float) -> None:
        """Take in a step.

        Args:
            report: of the step.
            lag_versions: mean over its rows of the newest version minus the row's.
            seconds: of the clock when it ended.
            waited_seconds: in all, until then.
        """
        with self._lock:
            self._moments.append(_Moment(report, lag_versions, seconds, waited_seconds))

    def stats(self) -> dict[str, float | str]:
        """Return the facts and the means by name; a mean is there once something was measured."""
        with self._lock:
            facts, moments = dict(self._facts), list(self._moments)
        return facts | _means(moments) | _rates(moments)


def _means(moments: Sequence[_Moment]) -> dict[str, float]:
    applied = [moment.report for moment in moments if moment.report.applied]
    if not applied:
        return {}
    losses = {name: _mean([report.losses[name] for report in applied]) for name in applied[-1].losses}
    return losses | {
        "grad_norm": _mean([report.grad_norm for report in applied]),
        "learning_rate": applied[-1].learning_rate,
        "policy_lag_versions": _mean([moment.lag_versions for moment in moments]),
    }


def _rates(moments: Sequence[_Moment]) -> dict[str, float]:
    """Return rates over the time from the end of the first step to the end of the last."""
    elapsed = moments[-1].seconds - moments[0].seconds if moments else 0.0
    if elapsed <= 0.0:
        return {}
    later = moments[1:]
    return {
        "steps_per_second": len(later) / elapsed,
        "rows_per_second": sum(moment.report.rows for moment in later) / elapsed,
        "data_wait_ratio": (moments[-1].waited_seconds - moments[0].waited_seconds) / elapsed,
    }


def _mean(numbers: list[float]) -> float:
    return float(np.mean(numbers))
