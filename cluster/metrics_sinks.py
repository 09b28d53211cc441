"""Where a run's numbers go: from each part to Ray's metrics, and once an interval to the run's folder."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from core.errors import DataError
from core.metrics import SPECS, checked_amount, checked_spec

Values: TypeAlias = Mapping[str, float | str | None]
"""What is known at one moment, by "group/name"; None is not known."""

TAIL_BYTES = 1 << 16
"""More than one line of `metrics.jsonl`."""


class RayMetrics:
    """Writes through `ray.util.metrics`; Ray exports the names with "ray_" in front.

    Make it inside the process that measures: pickled Ray metrics lose their tags. Ray forgets a gauge after 20 s, so
    gauges want to be set again at least every 10; the driver sets all of them every second.

    Args:
        tags: what tells this process from others, added to every value ({"role": "inference"}).
    """

    def __init__(self, tags: Mapping[str, str] | None = None) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self._tags = dict(tags or {})
        keys = {spec.name: tuple(dict.fromkeys((*self._tags, *spec.tags))) for spec in SPECS}
        self._counters = {
            spec.name: Counter(spec.name, spec.help, keys[spec.name])
            for spec in SPECS
            if spec.kind == "counter"
        }
        self._gauges = {
            spec.name: Gauge(spec.name, spec.help, keys[spec.name]) for spec in SPECS if spec.kind == "gauge"
        }
        self._histograms = {
            spec.name: Histogram(spec.name, spec.help, list(spec.buckets), keys[spec.name])
            for spec in SPECS
            if spec.kind == "histogram"
        }

    def count(self, name: str, amount: float = 1.0, /, **tags: str) -> None:
        checked_spec(name, "counter", tags)
        if checked_amount(name, amount) > 0:  # Ray's counters refuse zero
            self._counters[name].inc(float(amount), tags=self._tags | tags)

    def gauge(self, name: str, value: float, /, **tags: str) -> None:
        checked_spec(name, "gauge", tags)
        self._gauges[name].set(float(value), tags=self._tags | tags)

    def observe(self, name: str, value: float, /, **tags: str) -> None:
        checked_spec(name, "histogram", tags)
        self._histograms[name].observe(float(value), tags=self._tags | tags)


class RunLog:
    """The numbers of a run over time, in its folder: `metrics.jsonl` for programs, `tb/` for TensorBoard.

    A folder that was written before is continued. What was not measured is not written.

    Args:
        folder: of the run.
        clock: seconds since 1970.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        _drop_torn_line(folder / "metrics.jsonl")
        self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        # The writer names its file by the second, and would overwrite that of a run resumed within it.
        self._events = SummaryWriter(logdir=str(folder / "tb"), filename_suffix=f".{time.time_ns()}")

    def append(self, values: Values, *, learner_steps: int) -> None:
        """Write one moment; `learner_steps` is TensorBoard's horizontal axis."""
        now = self._clock()
        known = {name: value for name, value in values.items() if _is_known(value)}
        line = {"time": round(now, 3), "learner_steps": learner_steps, **known}
        # On a full disk the run goes on: its chunks and checkpoints know how to wait, numbers are only lost.
        with contextlib.suppress(OSError):
            self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        for name, value in known.items():
            if not isinstance(value, str):
                self._events.add_scalar(name, value, global_step=learner_steps, walltime=now)
        self._events.flush()

    def close(self) -> None:
        self._file.close()
        self._events.close()


def read_run_log(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run's `metrics.jsonl`, oldest first; none when there is no such file.

    A last line that is still being written, or was torn by a crash, is passed over.

    Raises:
        DataError: when another line is damaged.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith("\n"):
                yield _parsed(line, source=f"{path}, line {number}")


def newest_moment(folder: Path) -> dict[str, Any]:
    """Return the last whole line of a run's `metrics.jsonl`, reading no more than its end; {} when there is none."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]
    return _parsed(lines[-1].decode(), source=str(path)) if lines else {}


def _parsed(line: str, *, source: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{source} is damaged", why=str(error), fix="delete that line to go on without it"
        ) from error


def _is_known(value: float | str | None) -> bool:
    return isinstance(value, str) or (value is not None and math.isfinite(value))


def _drop_torn_line(path: Path) -> None:
    """Cut what a crash left after the last complete line, or the next one would be glued to it."""
    if path.exists():
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
