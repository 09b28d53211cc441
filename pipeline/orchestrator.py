"""Runs the steps of a pipeline in their order, each once, and knows after any end what is left to be done.

Each step has a folder of its own, with a `step.json` that says by which fingerprint it was begun and whether it is
finished. A fingerprint is made of the step's settings and of those of the steps that it reads, so whatever changes
before a step makes it begin anew; the folder of other settings is set aside as `<step>.old`. Once all who read a step
have finished, its large files are deleted; it counts as finished still, and is done again only if somebody who reads it
has to be.
"""

import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from configs.words import did_you_mean
from core.errors import DataError, TamenError, UsageError
from core.files import write_atomic
from pipeline.contract import Argument, Context, Executor, Result, Step, Stopped

SCHEMA = 1
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Of a function that a task is given, in its repr: another in each process."""

Action = Literal["run", "go on", "finished", "skipped"]


@dataclass(frozen=True, slots=True)
class Stage:
    """A step with what is done around it.

    Attributes:
        step: the step.
        passing: patterns of files in its folder that nobody needs once all who read it have finished.
        goes_on_from: whether a folder made under these settings may be gone on with, now that they, or what the step
            reads, are others.
    """

    step: Step
    passing: tuple[str, ...] = ()
    goes_on_from: Callable[[Mapping[str, Any]], bool] = lambda settings: False

    @property
    def name(self) -> str:
        return self.step.name


@dataclass(frozen=True, slots=True)
class Record:
    """What `step.json` says.

    Attributes:
        state: "cleaned": finished, and its passing files deleted.
        fingerprint: of the step's settings and all before.
        settings: the step's own.
        read: what each step that it reads had made, see `made`.
        counts: what the step returned; of one that makes other files each time "digest" tells them apart.
    """

    state: Literal["begun", "finished", "cleaned"]
    fingerprint: str
    settings: dict[str, Any]
    read: dict[str, str]
    counts: dict[str, Any] = field(default_factory=dict)

    @property
    def made(self) -> str:
        """What steps that read this one depend on."""
        return _digest([self.fingerprint, self.counts.get("digest")])

    def has_read(self, name: str, record: "Record") -> bool:
        """Whether the step has finished with what the step `name` has made."""
        return self.state != "begun" and self.read.get(name) == record.made


@dataclass(frozen=True, slots=True)
class Planned:
    """What would be done about a step, and why."""

    name: str
    action: Action
    why: str


class Pipeline:
    """Steps, their folders below `folder`, and in which of them something is to be done.

    Args:
        stages: in an order in which no step comes before one that it reads.
        folder: of the pipeline; each step has one below.
        first, last: names of the first and the last step to run; None: of all.
        skip: names of steps not to run; what they made before is used as it is.

    Raises:
        UsageError: when there is no such step.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        folder: Path,
        *,
        first: str | None = None,
        last: str | None = None,
        skip: Sequence[str] = (),
    ) -> None:
        self._stages = stages
        self._folder = folder
        names = [stage.name for stage in stages]
        for name in (first, last, *skip):
            if name is not None and name not in names:
                raise UsageError(
                    f"there is no step {name!r}",
                    why=f"the steps are {', '.join(names)}",
                    fix=did_you_mean(name, names),
                )
        start = names.index(first) if first else 0
        stop = names.index(last) + 1 if last else len(names)
        if start >= stop:
            raise UsageError(
                f"from {first} to {last} there is nothing",
                why=f"the steps come in the order {', '.join(names)}",
                fix="name the earlier one with --from",
            )
        self._chosen = [name for name in names[start:stop] if name not in skip]

    def folder_of(self, name: str) -> Path:
        """Return the folder of a step."""
        return self._folder / name

    def plan(self) -> list[Planned]:
        """Return what would be done about each step as things stand; nothing is changed.

        Raises:
            UsageError: when a step that would run reads one that is skipped and has not been finished.
            DataError: when a `step.json` is damaged.
        """
        actions: dict[str, tuple[Action, str]] = {}
        for stage in self._stages:
            actions[stage.name] = self._forecast(stage, {name: actions[name][0] for name in stage.step.needs})
        for stage in reversed(self._stages):
            if actions[stage.name][0] in ("run", "go on"):
                for name in stage.step.needs:
                    actions[name] = self._needed(name, actions[name], stage.name)
        return [Planned(name, *action) for name, action in actions.items()]

    def run(
        self,
        context: Context,
        *,
        say: Callable[[str], None],
        begin: Callable[[str], None] = lambda name: None,
        cleanup: bool = True,
    ) -> dict[str, dict[str, Any]]:
        """Do what is left of each chosen step, and return the counts of all that have finished.

        Args:
            context: what surrounds each step; its log gets the step's name before each line.
            say: told in a line what was done with a step, and what was set aside.
            begin: told the name of a step that begins.
            cleanup: delete files that nobody needs any more.

        Raises:
            Stopped: when asked to; what is left is done by the next call.
            TamenError: naming the step that could not be done.
        """
        left = {plan.name for plan in self.plan() if plan.action in ("run", "go on")}
        for stage in self._stages:
            if stage.name not in self._chosen:
                continue
            record = self._record(stage.name)
            if record and record.fingerprint == self._fingerprint(stage):
                again = record.state == "cleaned" and stage.name in left
                if record.state != "begun" and not again:
                    left.discard(stage.name)
                    say(f"{stage.name}: finished before{_told(record.counts)}")
                    continue
            if context.should_stop():
                raise Stopped
            begin(stage.name)
            counts = self._run(stage, record, context, say)
            left.discard(stage.name)
            say(f"{stage.name}: finished{_told(counts)}")
            if cleanup:
                self._clean(left, say)
        if cleanup:
            self._clean(left, say)
        return {name: record.counts for name, record in self._records() if record.state != "begun"}

    def _run(
        self, stage: Stage, record: Record | None, context: Context, say: Callable[[str], None]
    ) -> dict[str, Any]:
        folder, fingerprint, settings = (
            self.folder_of(stage.name),
            self._fingerprint(stage),
            _plain(stage.step.settings),
        )
        if record and record.fingerprint != fingerprint and not stage.goes_on_from(record.settings):
            self._set_aside(stage.name, _changes(record.settings, settings), say)
        elif record is None and folder.exists() and any(folder.iterdir()):
            self._set_aside(stage.name, "it says nowhere what made it", say)
        folder.mkdir(parents=True, exist_ok=True)
        before = self._record(stage.name)
        record = Record("begun", fingerprint, settings, self._read(stage))
        self._write(stage.name, record)

        def log(line: str) -> None:
            context.log(f"{stage.name}: {line}")

        executor = _Noted(context.executor, self._folder / "tasks.jsonl", stage.name)
        around = Context(executor, context.progress, context.should_stop, log)
        log("begins")
        try:
            inputs = {name: self.folder_of(name) for name in stage.step.needs}
            counts = _plain(stage.step.run(inputs, folder, around))
        except Stopped:
            log("stopped between two tasks")
            raise
        except (TamenError, OSError) as error:
            log(f"failed: {error!r}")
            if before is not None and isinstance(error, UsageError):
                self._write(stage.name, before)  # it was refused, not begun: what was there is what it was
            raise _of_step(stage.name, error) from error
        self._write(stage.name, replace(record, state="finished", counts=counts))
        log(f"finished: {json.dumps(counts)}")
        return counts

    def _forecast(self, stage: Stage, before: Mapping[str, Action]) -> tuple[Action, str]:
        record = self._record(stage.name)
        if stage.name not in self._chosen:
            return "skipped", "not asked for"
        fingerprint = self._fingerprint(
            stage
        )  # also of a new one: what it reads from elsewhere must be there
        if record is None:
            return "run", "not done before"
        same = record.fingerprint == fingerprint
        if same and record.state == "begun":
            return "go on", "was interrupted"
        if remade := [name for name, action in before.items() if action in ("run", "go on")]:
            return "run", f"{remade[0]} runs before it"
        if same:
            return "finished", "nothing changed"
        settings = _plain(stage.step.settings)
        return ("go on" if stage.goes_on_from(record.settings) else "run"), _changes(
            record.settings, settings
        )

    def _needed(self, name: str, action: tuple[Action, str], reader: str) -> tuple[Action, str]:
        """Return what is to be done about step `name`, since `reader` will run."""
        record = self._record(name)
        if action[0] == "finished" and record and record.state == "cleaned":
            return "run", f"{reader} needs files of it that were cleaned away"
        if action[0] != "skipped" or (record and record.state == "finished"):
            return action
        state = "has not been run" if record is None else "was interrupted"
        if record and record.state == "cleaned":
            state = "has been cleaned away"
        raise UsageError(
            f"the step {reader} cannot run without {name}",
            why=f"{name} is skipped, and what it makes {state} in {self.folder_of(name)}",
            fix=f"let {name} run too, e.g. with --from {name}",
        )

    def _fingerprint(self, stage: Stage) -> str:
        return _digest([SCHEMA, stage.name, _plain(stage.step.settings), self._read(stage)])

    def _read(self, stage: Stage) -> dict[str, str]:
        """Return what each step that this one reads has made, as things stand."""
        return {name: record.made if (record := self._record(name)) else "" for name in stage.step.needs}

    def _set_aside(self, name: str, why: str, say: Callable[[str], None]) -> None:
        folder = self.folder_of(name)
        aside = folder.with_name(f"{name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        say(f"{name}: begins anew, {why}; what was there is now {aside.name}")

    def _clean(self, left: Collection[str], say: Callable[[str], None]) -> None:
        """Delete the passing files of steps that all who read them have finished with, and are not `left` to be run."""
        records = dict(self._records())
        for stage in self._stages:
            record = records.get(stage.name)
            if record is None or record.state == "begun" or not stage.passing:
                continue
            names = [other.name for other in self._stages if stage.name in other.step.needs]
            readers = [records[name] for name in names if name in records and name not in left]
            if not names or len(readers) < len(names):
                continue
            if not all(reader.has_read(stage.name, record) for reader in readers):
                continue
            if record.state == "finished":
                self._write(stage.name, replace(record, state="cleaned"))
            # After that, so that one who is killed meanwhile leaves nothing that looks whole.
            files = [path for pattern in stage.passing for path in self.folder_of(stage.name).glob(pattern)]
            freed = sum(path.stat().st_size for path in files)
            for path in files:
                path.unlink()
            if files:
                say(
                    f"{stage.name}: {len(files)} files of {freed / 1e6:,.0f} MB deleted, nobody needs them any more"
                )

    def _records(self) -> Iterator[tuple[str, Record]]:
        for stage in self._stages:
            if record := self._record(stage.name):
                yield stage.name, record

    def _record(self, name: str) -> Record | None:
        file = self.folder_of(name) / "step.json"
        try:
            about = json.loads(file.read_bytes())
            return Record(**{each.name: about[each.name] for each in fields(Record)})
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{file} is damaged",
                why=f"{type(error).__name__}: {error}",
                fix=f"delete {file.parent} to have the step done again",
            ) from error

    def _write(self, name: str, record: Record) -> None:
        about = {"schema": SCHEMA, "step": name, **asdict(record)}
        write_atomic(self.folder_of(name) / "step.json", json.dumps(about, indent=1).encode())


class _Noted:
    """An executor that notes each finished task in a file: a line for each, however often a pipeline is begun again."""

    def __init__(self, executor: Executor, file: Path, step: str) -> None:
        self.workers = executor.workers
        self._executor = executor
        self._file = file
        self._step = step

    def run(
        self, function: Callable[[Argument], Result], arguments: Sequence[Argument]
    ) -> Iterator[tuple[int, Result]]:
        with (
            self._file.open("a", encoding="utf-8") as notes,
            contextlib.closing(self._executor.run(function, arguments)) as results,  # pyright: ignore
        ):
            for number, result in results:
                what = _ADDRESS.sub("", f"{function.__name__} {arguments[number]!r}")
                note = {
                    "at": round(time.time(), 3),
                    "step": self._step,
                    "task": _digest(what),
                    "what": what[:500],
                }
                notes.write(f"{json.dumps(note)}\n")
                notes.flush()
                yield number, result


def _plain(value: Any) -> Any:
    """Return `value` as it reads back from JSON."""
    return json.loads(json.dumps(value, default=str))


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Say which settings differ; where none does, what the step reads has changed."""
    names = [name for name in after if before.get(name) != after[name]]
    told = [f"{name}: {_short(before.get(name))} -> {_short(after[name])}" for name in names]
    return "; ".join(told) if told else "what it reads has changed"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _told(counts: Mapping[str, Any]) -> str:
    """Return the counts of a step in words: those that are numbers."""
    numbers = [
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:,.4g}"
        for name, value in counts.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return f" ({', '.join(numbers)})" if numbers else ""


def _of_step(name: str, error: TamenError | OSError) -> TamenError:
    """Return `error` with the name of the step in which it came."""
    if isinstance(error, TamenError):
        return type(error)(f"{name}: {error.what}", why=error.why, fix=error.fix)
    return TamenError(
        f"{name}: {error.filename or 'a file'} could not be read or written",
        why=error.strerror or str(error) or type(error).__name__,
        fix="see to the disk, its room and its permissions; the same command goes on from here",
    )
