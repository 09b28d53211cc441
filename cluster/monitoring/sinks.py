"""Where a run's numbers go: from each part to Ray's metrics, and once an interval to the run's folder."""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from core.errors import DataError
from core.metrics import SPECS, Metrics, checked_amount, checked_spec

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


@contextlib.contextmanager
def served(port: int | None, *, run: str | None = None) -> Iterator[list[Metrics]]:
    """Serve Prometheus text on 127.0.0.1 while the context lasts; without a port there is nobody to write to.

    Args:
        run: whose values they are, if they are of one.
    """
    if port is None:
        yield []
        return
    from cluster.cli.terminal import console  # rich, which parts on Ray should not load
    from core.prometheus import PrometheusMetrics

    metrics = PrometheusMetrics({} if run is None else {"run": run})
    console().print(f"metrics: http://127.0.0.1:{metrics.serve(port)}/metrics", markup=False)
    try:
        yield [metrics]
    finally:
        metrics.close()


class RunLog:
    """The numbers of a run over time, in its folder: `metrics.jsonl` for programs, `tb/` for TensorBoard.

    A folder that was written before is continued. What was not measured is not written. On a full disk the run goes
    on without its numbers: a line that finds no room is lost, and TensorBoard gets nothing more in this life of the
    run, because its file cannot be mended.

    Args:
        folder: of the run.
        report: told in one line when numbers begin to be lost.
        clock: seconds since 1970.

    Raises:
        OSError: when it cannot begin.
    """

    def __init__(
        self,
        folder: Path,
        *,
        report: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._report = report
        self._clock = clock
        self._losing_lines = False
        _drop_torn_line(folder / "metrics.jsonl")
        # Unbuffered: what a buffer keeps of a write that failed would come out later, or when it is closed.
        self._file = (folder / "metrics.jsonl").open("ab", buffering=0)
        self._events: TensorBoardFile | None = TensorBoardFile(folder / "tb")

    def append(self, values: Values, *, learner_steps: int) -> None:
        """Write one moment; `learner_steps` is TensorBoard's horizontal axis. Never raises OSError."""
        now = self._clock()
        known = {name: value for name, value in values.items() if _is_known(value)}
        self._append_line({"time": round(now, 3), "learner_steps": learner_steps, **known})
        if self._events is not None:
            numbers = {name: value for name, value in known.items() if isinstance(value, int | float)}
            try:
                self._events.append(numbers, step=learner_steps, time=now)
            except OSError as error:
                self._events.close()
                self._events = None
                self._report(f"TensorBoard gets no more numbers until the run is resumed: {error}")

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()

    def _append_line(self, line: Values) -> None:
        data = (json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode()
        end = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(data) == len(data):
                self._losing_lines = False
                return
            reason = "no room"
        except OSError as error:
            reason = str(error)
        with contextlib.suppress(OSError):
            self._file.truncate(end)  # half a line would be glued to the next one
        if not self._losing_lines:
            self._losing_lines = True
            self._report(f"numbers are lost, as metrics.jsonl cannot be written: {reason}")


class TensorBoardFile:
    """Scalars for TensorBoard, written by the thread that has them.

    The usual `SummaryWriter` writes in a thread of its own; a full disk ends that one unseen, and whoever fills its
    queue then waits for ever.

    Args:
        folder: where the file comes to lie; it is made.

    Raises:
        OSError: from each method but `close`.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(parents=True, exist_ok=True)
        # The writer names its file by the second, and would overwrite that of a run resumed within it.
        self._writer = EventsWriter(str(folder / "events"), filename_suffix=f".{time.time_ns()}")

    def append(self, numbers: Mapping[str, float], *, step: int, time: float) -> None:
        """Write numbers by name, measured at `time` (seconds since 1970)."""
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue] (made at import)
        from tensorboardX.summary import scalar

        for name, number in numbers.items():
            self._writer.write_event(Event(wall_time=time, step=step, summary=scalar(name, number)))
        self._writer.flush()

    def close(self) -> None:
        # It flushes what could not be written before, and closes the file all the same.
        with contextlib.suppress(OSError):
            self._writer.close()


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
