"""All that a learner needs to go on, so kept that a crash, a full disk or a damaged file costs one interval.

    checkpoints/0000000017/
      model.safetensors   the weights last published
      trainer.pt          tensors of the trainer, loadable with `weights_only=True`
      state.json          counters, and the digests of the other two files

A checkpoint is written into a temporary folder, every file fsynced, and renamed: it is there whole or not at
all. Numbers rise by one, so the newest is known without a clock.
"""

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from core.errors import DataError, TamenError
from core.files import digest, sync_folder, write_atomic
from networks.weights import Weights

FORMAT = 4
WEIGHTS_FILE = "model.safetensors"
TRAINER_FILE = "trainer.pt"
STATE_FILE = "state.json"
_TEMPORARY = ".unfinished-"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A checkpoint that was read and found sound.

    Attributes:
        number: of the checkpoint.
        weights: last published before it was made.
        trainer_state: for `Trainer.load_state_dict`, on the CPU.
        state: what was given to `save`.
        skipped: a sentence for each newer checkpoint that was damaged, newest first.
    """

    number: int
    weights: Weights
    trainer_state: dict[str, Any]
    state: dict[str, Any]
    skipped: tuple[str, ...]


class CheckpointStore:
    """The checkpoints of a run; one process writes at a time.

    Args:
        folder: `checkpoints/` of the run, made when missing; what a crash left unfinished in it is removed.
        keep: sound checkpoints that stay; older ones are deleted.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._sound: set[int] = set()
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(unfinished)

    def save(self, *, weights: Weights, trainer_state: Mapping[str, Any], state: Mapping[str, Any]) -> int:
        """Write a checkpoint and return its number, one above the newest.

        Args:
            weights: last published.
            trainer_state: tensors and numbers, from `Trainer.state_dict`.
            state: what JSON can say.

        Raises:
            TamenError: when it cannot be written, on a full disk say; all older ones are still there.
        """
        number = max(self._numbers(), default=0) + 1
        content = {WEIGHTS_FILE: weights.to_bytes(), TRAINER_FILE: _tensor_bytes(trainer_state)}
        content[STATE_FILE] = _state_bytes(state, content)
        try:
            self._write(self._path(number), content)
        except OSError as error:
            raise TamenError(
                f"checkpoint {number} could not be written",
                why=f"{error}; the {len(self._numbers())} older ones are as they were",
                fix="make room on the disk; the next one is written in full",
            ) from error
        self._sound.add(number)
        with contextlib.suppress(OSError):  # the new one is safe whatever happens here; the next tries again
            self._prune()
        return number

    def load_newest(self) -> Checkpoint | None:
        """Return the newest sound checkpoint; None when none was ever written.

        Raises:
            DataError: when there are checkpoints and all are damaged: to begin anew is a person's decision.
        """
        skipped: list[str] = []
        for number in reversed(self._numbers()):
            try:
                weights, trainer_state, state = _read(self._path(number))
            except (DataError, OSError) as error:
                skipped.append(f"checkpoint {number} is damaged: {_reason(error)}")
                continue
            self._sound.add(number)
            return Checkpoint(number, weights, trainer_state, state, tuple(skipped))
        if skipped:
            raise DataError(
                f"none of the {len(skipped)} checkpoints in {self._folder} can be read",
                why="; ".join(skipped[:3]),
                fix="restore one from a copy, or move the folder away to begin from untrained weights",
            )
        return None

    def _write(self, target: Path, content: Mapping[str, bytes]) -> None:
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._folder))
        try:
            for name, data in content.items():
                write_atomic(temporary / name, data)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(self._folder)

    def _prune(self) -> None:
        """Delete what is older than the newest `keep` sound ones, among which a damaged one never counts."""
        sound = 0
        for number in reversed(self._numbers()):
            if sound >= self._keep:
                # A crash amid the deletion must not leave a folder that looks like a damaged checkpoint.
                doomed = self._folder / f"{_TEMPORARY}{number}"
                self._path(number).rename(doomed)
                shutil.rmtree(doomed)
            elif self._is_sound(number):
                sound += 1

    def _is_sound(self, number: int) -> bool:
        if number not in self._sound:
            try:
                _checked_files(self._path(number))
            except (DataError, OSError):
                return False
            self._sound.add(number)
        return True

    def _numbers(self) -> list[int]:
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdecimal())

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:010d}"


def _read(folder: Path) -> tuple[Weights, dict[str, Any], dict[str, Any]]:
    """Return weights, trainer's state and state. Raises DataError or OSError for the slightest damage."""
    files, state = _checked_files(folder)
    weights = Weights.from_bytes(files[WEIGHTS_FILE], source=str(folder / WEIGHTS_FILE))
    try:
        trainer_state = torch.load(io.BytesIO(files[TRAINER_FILE]), map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError) as error:
        raise _damaged(folder / TRAINER_FILE, f"torch cannot read it: {error}") from error
    return weights, trainer_state, state


def _checked_files(folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the bytes of the two binary files, by name, and the state. All digests have been checked."""
    path = folder / STATE_FILE
    data = path.read_bytes()
    try:
        document = json.loads(data)
        state, digests = document["state"], document["files"]
        # Only the very bytes that were written pass, so that no altered byte goes unnoticed.
        intact = data == _render(state, digests)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _damaged(path, f"it is not the JSON that was written ({type(error).__name__})") from error
    if document.get("format") != FORMAT:
        raise DataError(
            f"{path} is of format {document.get('format')}",
            why=f"this release reads format {FORMAT}",
            fix="finish the run with the release that began it, or begin another",
        )
    if not intact:
        raise _damaged(path, "its seal does not match its content")
    return {name: _checked_file(folder / name, digests[name]) for name in (WEIGHTS_FILE, TRAINER_FILE)}, state


def _checked_file(path: Path, expected: str) -> bytes:
    data = path.read_bytes()
    if digest(data) != expected:
        raise _damaged(path, f"its {len(data)} bytes do not match their digest in {STATE_FILE}")
    return data


def _state_bytes(state: Mapping[str, Any], content: Mapping[str, bytes]) -> bytes:
    return _render(state, {name: digest(data) for name, data in content.items()})


def _render(state: Mapping[str, Any], digests: Mapping[str, str]) -> bytes:
    """Return state.json: the same bytes for the same state, with a seal over all of it."""
    body = {"format": FORMAT, "state": state, "files": digests}
    seal = digest(json.dumps(body, sort_keys=True, allow_nan=False).encode())
    return (json.dumps(body | {"seal": seal}, sort_keys=True, indent=2, allow_nan=False) + "\n").encode()


def _tensor_bytes(trainer_state: Mapping[str, Any]) -> bytes:
    # Into memory first: on a full disk torch's writer raises a RuntimeError that tells nothing of the disk.
    buffer = io.BytesIO()
    torch.save(dict(trainer_state), buffer)
    return buffer.getvalue()


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} is damaged", why=why, fix="delete the checkpoint's folder, or restore it from a copy"
    )


def _reason(error: DataError | OSError) -> str:
    return f"{error.what}, {error.why}" if isinstance(error, DataError) else str(error)
