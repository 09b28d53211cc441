"""A run mirrored to storage elsewhere while it goes on, by a thread beside the driver; see docs/storage.md.

A life of the run begins by writing a manifest with a token of its own. Manifests have numbers that rise by one, and
each is written only where there is none of that number: of two that write to one place, the one that came last goes on,
and the other sees a foreign token and stops.
"""

import contextlib
import json
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.mirror_manifests import (
    age_of,
    file_of,
    manifest_numbers,
    newest_manifests,
    object_of,
    read_manifest,
)
from cluster.mirror_place import Crew, Place, in_batches
from cluster.mirror_plan import (
    MANIFESTS_KEPT,
    OBJECTS,
    Known,
    Manifest,
    Piece,
    Span,
    garbage,
    spans_to_read,
    with_pieces,
)
from cluster.mirror_snapshot import RECORD_FILE, FileChangedError, Look, look
from cluster.run_folder import RunFolder
from configs.schema import MirrorConfig
from core.errors import ClusterError, DataError, UsageError
from core.files import digest, write_atomic

RETAKES = 10
"""Looks at a folder whose files are deleted before they could be read; what was uploaded stays so."""
LISTING_SECONDS = 600.0
"""After which it is looked again whether the pieces are still there."""
POLL_SECONDS = 1.0
MOST_DELAY_SECONDS = 60.0
LIVES_KEPT = 100
BEHIND_ROUNDS = 4.0
BEHIND_SECONDS = 60.0
"""A mirror is behind when its newest manifest is older than so many rounds, and than this."""


class TakenOverError(Exception):
    """Another life of the run writes to this place."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a folder knows of its mirror, in `mirror.json`.

    Attributes:
        lives: tokens under which drivers have mirrored this folder.
        restored: number and token of the manifest that it was restored from.
    """

    lives: tuple[str, ...] = ()
    restored: tuple[int, str] | None = None

    @staticmethod
    def of(root: Path) -> "Record":
        """Return that of a folder. Raises DataError when it is damaged."""
        path = root / RECORD_FILE
        if not path.exists():
            return Record()
        try:
            match json.loads(path.read_bytes()):
                case {"lives": list(lives), "restored": [int(number), str(token)]}:
                    return Record(tuple(map(str, lives)), (number, token))
                case {"lives": list(lives), "restored": None}:
                    return Record(tuple(map(str, lives)))
        except ValueError:
            pass
        raise DataError(
            f"{path} is damaged",
            why="it does not say which mirror the run belongs to",
            fix="delete it, and give mirror.url a place that is empty",
        )

    def write(self, root: Path) -> None:
        write_atomic(
            root / RECORD_FILE, json.dumps({"lives": self.lives, "restored": self.restored}).encode()
        )

    def owns(self, manifest: Manifest) -> bool:
        """Whether a manifest is of the folder's own past."""
        return manifest.token in self.lives or (manifest.number, manifest.token) == self.restored


class Mirror:
    """Keeps `config.url` up to date with a run's folder.

    Args:
        config: with a `url`.
        folder: of the run, locked by who calls.
        report: told of what a person should know, by the thread that asks for `stats`.

    Raises:
        UsageError: when nothing opens such a URL, or it lies in the run's folder.
    """

    def __init__(self, config: MirrorConfig, folder: RunFolder, *, report: Callable[[str], None]) -> None:
        assert config.url is not None
        self._config = config
        self._folder = folder
        self._report = report
        self._place = Place(config.url, timeout_seconds=config.timeout_seconds)
        _refuse_inside(self._place, folder)
        self._crew = Crew(config.max_uploads, timeout_seconds=config.timeout_seconds)
        self._token = secrets.token_hex(8)
        self._kept: list[Manifest] = []
        self._number = -1
        self._present: set[Piece] = set()
        self._known: dict[str, Known] = {}
        self._list_at = 0.0
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._news: deque[str] = deque(maxlen=20)
        self._failures = 0
        self._failing = self._behind = False
        self._round_seconds: float | None = None
        self._saved = time.monotonic()

    def check(self) -> None:
        """Find out whether the run may be mirrored there; nothing stays that was not there.

        Raises:
            UsageError: when another run is mirrored there.
            ClusterError: when the place cannot be read or written.
        """
        with self._at_start():
            self._refuse_foreign(Record.of(self._folder.root))
            name = f"probe-{self._token}"
            self._crew.call(lambda: self._place.write(name, b"tamen"))
            self._crew.call(lambda: self._place.delete([name]))

    def claim(self) -> None:
        """Make the place this life's own, whoever wrote there before. Raises like `check`."""
        with self._at_start():
            record = Record.of(self._folder.root)
            newest = self._refuse_foreign(record)
            lives = (*record.lives, self._token)[-LIVES_KEPT:]
            Record(lives, record.restored).write(
                self._folder.root
            )  # first, or it might not know its own token
            before = {} if newest is None else newest.files
            saved_at = time.time() if newest is None else newest.saved_at
            self._write(self._manifest(saved_at, before))

    def start(self) -> None:
        """Begin to mirror, in a thread of its own."""
        self._saved = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        self._thread.start()

    def stats(self) -> dict[str, Any]:
        """Return `seconds` (of the newest round), `lag_seconds` and `failures`; report what there is to tell."""
        lag = time.monotonic() - self._saved
        limit = max(BEHIND_ROUNDS * self._config.every_seconds, BEHIND_SECONDS)
        if lag > limit and not self._behind:
            self._news.append(
                f"the mirror is behind: what is new since {lag:.0f} s is on this disk alone"
                f" ({self._place.location})"
            )
        self._behind = lag > limit
        while self._news:
            self._report(self._news.popleft())
        measured = {} if self._round_seconds is None else {"seconds": self._round_seconds}
        return {**measured, "lag_seconds": lag, "failures": self._failures}

    @property
    def fails(self) -> bool:
        """Whether the last round failed, or there is none any more."""
        return self._failing

    def finish(self) -> bool:
        """Mirror what is there now, for `finish_seconds` at most; return whether all of it is. Then it is over."""
        if self._thread is None:
            return False
        self._closing.set()
        self._thread.join(self._config.finish_seconds)
        self._crew.cancelled.set()
        self._thread.join(2 * POLL_SECONDS)
        done = not self._thread.is_alive() and not self._failing
        self._thread = None
        while self._news:
            self._report(self._news.popleft())
        return done

    def save(self) -> Manifest:
        """Bring the mirror up to date once, and return what it then holds.

        Raises:
            TakenOverError: when another life writes there.
            OSError, TamenError: when that fails; what a reader finds is as it was.
        """
        if time.monotonic() >= self._list_at:
            self._list()
        for _ in range(RETAKES):
            found = look(self._folder.root)
            try:
                return self._save(found)
            except FileChangedError:
                continue
        raise OSError(f"files were deleted before they could be read, {RETAKES} times")

    def _save(self, found: Look) -> Manifest:
        spans = spans_to_read(found.stats, self._known)
        pieces = self._crew.map(lambda span: self._uploaded(found, span), spans)
        self._known = with_pieces(found.stats, self._known, dict(zip(spans, pieces, strict=True)))
        manifest = self._manifest(found.taken_at, {path: file.pieces for path, file in self._known.items()})
        self._write(manifest)
        with contextlib.suppress(OSError):  # the next round tries again; nothing is missing meanwhile
            self._delete_old()
        return manifest

    def _uploaded(self, found: Look, span: Span) -> Piece:
        data = found.read(span)
        piece = Piece(digest(data), len(data))
        if piece not in self._present:
            self._place.write(object_of(piece), data)
            self._present.add(piece)
        return piece

    def _manifest(self, saved_at: float, files: Mapping[str, tuple[Piece, ...]]) -> Manifest:
        return Manifest(
            self._number + 1, self._folder.name, self._token, socket.gethostname(), saved_at, files
        )

    def _write(self, manifest: Manifest) -> None:
        newest = max(self._crew.call(lambda: manifest_numbers(self._place)), default=-1)
        if newest > self._number:
            self._refuse_taken(newest)  # else it is ours, and its acknowledgement was lost
            self._number = newest
            manifest = self._manifest(manifest.saved_at, manifest.files)
        try:
            self._crew.call(lambda: self._place.create(file_of(manifest.number), manifest.encode()))
        except FileExistsError:
            self._refuse_taken(manifest.number)
        self._number = manifest.number
        self._kept = [*self._kept, manifest][-MANIFESTS_KEPT:]

    def _delete_old(self) -> None:
        """Delete manifests but the newest ones, then the pieces that none names any more."""
        oldest = self._kept[0].number
        old = [n for n in self._crew.call(lambda: manifest_numbers(self._place)) if n < oldest]
        self._delete([file_of(number) for number in old])
        doomed = garbage(self._present, self._kept)
        self._delete([object_of(piece) for piece in doomed])
        self._present -= doomed

    def _delete(self, names: list[str]) -> None:
        self._crew.map(self._place.delete, list(in_batches(names)))

    def _list(self) -> None:
        """See which pieces are there, whole; files of which one is missing are read again."""
        sizes = self._crew.call(lambda: self._place.sizes(OBJECTS))
        self._present = {Piece(name, size) for name, size in sizes.items()}
        self._known = {
            path: file for path, file in self._known.items() if self._present.issuperset(file.pieces)
        }
        self._list_at = time.monotonic() + LISTING_SECONDS

    def _refuse_foreign(self, record: Record) -> Manifest | None:
        """Return the newest manifest, if there is one; raise UsageError when it is of another run or folder."""
        numbers = self._crew.call(lambda: manifest_numbers(self._place))
        self._number = max(numbers, default=-1)
        self._kept = self._crew.call(lambda: newest_manifests(self._place, numbers))
        if not self._kept:
            return None
        newest = self._kept[-1]
        if record.owns(newest):
            return newest
        here = self._folder
        raise UsageError(
            f"run {here.typed!r} cannot be mirrored to {self._place.location}",
            why=f"run {newest.run!r} of {newest.host} is mirrored there, {age_of(newest)}, with files of its own",
            fix=f"go on with that one in another folder with --resume {self._place.location},"
            " or give mirror.url another place",
        )

    def _refuse_taken(self, number: int) -> None:
        """Raise TakenOverError unless this life wrote the manifest `number`; one that cannot be read is nobody's."""
        try:
            found = self._crew.call(lambda: read_manifest(self._place, number))
        except (DataError, FileNotFoundError):
            return
        if found.token != self._token:
            raise TakenOverError(
                f"{self._place.location} is mirrored to by another driver, on {found.host}: nothing more of this run"
                " is; stop one of the two"
            )

    @contextlib.contextmanager
    def _at_start(self) -> Iterator[None]:
        """Let what goes wrong before a run begins be told in three lines."""
        try:
            yield
        except (OSError, TakenOverError) as error:
            raise ClusterError(
                f"the run cannot be mirrored to {self._place.location}",
                why=str(error) or type(error).__name__,
                fix="see to the address, its keys and its permissions; mirror.url=null trains without a mirror",
            ) from error

    def _work(self) -> None:
        """Mirror once an interval and after each checkpoint, until it is closed and all is there."""
        failed_in_a_row = 0
        while not self._crew.cancelled.is_set():
            closing, checkpoint, began = self._closing.is_set(), self._newest_checkpoint(), time.monotonic()
            try:
                self.save()
            except TakenOverError as taken:
                self._failing = True
                self._news.append(str(taken))
                return
            except Exception as error:  # whatever it is, the run goes on, and its mirror tries again
                failed_in_a_row += 1
                self._failed(error)
                self._wait_until(time.monotonic() + min(2.0**failed_in_a_row, MOST_DELAY_SECONDS))
                continue
            failed_in_a_row = 0
            self._succeeded(began)
            if closing:
                return
            self._wait_until(began + self._config.every_seconds, or_newer_than=checkpoint)

    def _succeeded(self, began: float) -> None:
        self._saved = began
        self._round_seconds = time.monotonic() - began
        if self._failing:
            self._news.append(f"mirrored again to {self._place.location}")
        self._failing = False

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if not self._failing:
            reason = " ".join(str(error).split()) or type(error).__name__
            self._news.append(
                f"the run is not mirrored to {self._place.location}, which is tried again: {reason}"
            )
        self._failing = True

    def _wait_until(self, due: float, *, or_newer_than: str | None = None) -> None:
        """Wait, but no longer than until the run is over, or until there is a checkpoint after the one given."""
        while not self._closing.wait(min(POLL_SECONDS, max(0.0, due - time.monotonic()))):
            if time.monotonic() >= due:
                return
            if or_newer_than is not None and self._newest_checkpoint() > or_newer_than:
                return
        if or_newer_than is None:  # a place that fails is given a rest before the last attempts, too
            self._crew.cancelled.wait(max(0.0, min(due - time.monotonic(), POLL_SECONDS)))

    def _newest_checkpoint(self) -> str:
        """Return the name of the newest checkpoint; "" when there is none."""
        try:
            names = [entry.name for entry in self._folder.checkpoints.iterdir() if entry.name.isdecimal()]
        except FileNotFoundError:
            return ""
        return max(names, default="")


@contextlib.contextmanager
def mirrored(
    config: MirrorConfig, folder: RunFolder, *, report: Callable[[str], None]
) -> Iterator[Mirror | None]:
    """Give the mirror of a run that is locked, once it is the run's own; None where none is asked for.

    It is brought up to date when the context ends. Raises like `Mirror.claim`.
    """
    if config.url is None:
        yield None
        return
    mirror = Mirror(config, folder, report=report)
    mirror.claim()
    try:
        yield mirror
    finally:
        mirror.finish()


def check_mirror(config: MirrorConfig, folder: RunFolder) -> None:
    """Raise what keeps a run from being mirrored, if it is to be; see `Mirror.check`."""
    if config.url is not None:
        Mirror(config, folder, report=lambda text: None).check()


def _refuse_inside(place: Place, folder: RunFolder) -> None:
    """Raise UsageError when the mirror would be mirrored itself."""
    if place.folder is not None and place.folder.is_relative_to(folder.root):
        raise UsageError(
            f"run {folder.typed!r} cannot be mirrored to {place.location}",
            why="that is in the run's own folder",
            fix="give mirror.url another place, best on another machine",
        )
