"""A run mirrored to storage elsewhere while it goes on, by a thread beside the driver; see docs/storage.md.

A life of the run begins by writing a manifest with a token of its own. Manifests have numbers that rise by one, and
each is written only where there is none of that number: of two that write to one place, the one that came last goes on,
and the other sees a foreign token, saves and ends (docs/decisions/0023-the-last-writer-stays.md).
"""

import contextlib
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cluster.mirror.manifests import (
    age_of,
    file_of,
    manifest_numbers,
    newest_manifests,
    object_of,
    read_manifest,
)
from cluster.mirror.place import Crew, Place
from cluster.mirror.plan import (
    MANIFESTS_KEPT,
    OBJECTS,
    PIECE_BYTES,
    Known,
    Manifest,
    Piece,
    Span,
    garbage,
    spans_to_read,
    with_pieces,
)
from cluster.mirror.record import Record
from cluster.mirror.snapshot import FileChangedError, Look, drop_links, looked
from cluster.run.run_folder import RunFolder
from configs.schema import MirrorConfig
from core.errors import ClusterError, DataError, UsageError
from core.files import digest

RETAKES = 10
"""Looks at a folder where no links can be made and files are deleted before they are read; uploads are not repeated."""
LISTING_SECONDS = 600.0
"""After which it is looked again whether the pieces are still there."""
POLL_SECONDS = 1.0
MOST_DELAY_SECONDS = 60.0
CLAIMS = 5
"""Attempts to come after one that goes on writing meanwhile."""
NUMBERS_TRIED = 5
"""Of a manifest, should earlier writes that were given up come late."""
DELETED_TOGETHER = 100
DELETING_SECONDS = 30.0
"""In a round, whatever there is: what is new comes before what is old."""
BEHIND_ROUNDS = 4.0
BEHIND_SECONDS = 60.0
"""A mirror is behind when its newest manifest is older than so many rounds, and than this."""


class TakenOverError(Exception):
    """Another life of the run, on `host`, writes to this place."""

    def __init__(self, location: str, host: str) -> None:
        super().__init__(f"{location} is mirrored to by another driver, on {host}")
        self.host = host


class Mirror:
    """Keeps `config.url` up to date with a run's folder.

    Args:
        config: with a `url`.
        folder: of the run, locked by who calls.
        report: told of what a person should know, by the thread that asks for `stats`.
        successor_of: token of the life that the folder has just been restored from: whatever that has written since,
            its place is taken.

    Raises:
        UsageError: when nothing opens such a URL, or it lies in the run's folder.
    """

    def __init__(
        self,
        config: MirrorConfig,
        folder: RunFolder,
        *,
        report: Callable[[str], None],
        successor_of: str | None = None,
    ) -> None:
        assert config.url is not None
        self._config = config
        self._folder = folder
        self._report = report
        self._successor_of = successor_of
        self._place = Place(config.url, timeout_seconds=config.timeout_seconds)
        _refuse_inside(self._place, folder)
        self._crew = Crew(config.max_uploads, timeout_seconds=config.timeout_seconds)
        self._token = secrets.token_hex(8)
        self._kept: list[Manifest] = []
        self._number = -1
        self._present: set[Piece] = set()
        self._known: dict[str, Known] = {}
        self._list_at = 0.0
        self._deleted: set[str] = set()
        self._undeleted = ""
        self._stays = False
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._news: deque[str] = deque(maxlen=20)
        self._failures = 0
        self._failing = False
        self._behind = 0.0
        self._round_seconds: float | None = None
        self._taken: TakenOverError | None = None
        self._began = self._saved = time.monotonic()

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
            self._crew.call(lambda: self._place.delete(name))
            with contextlib.suppress(FileNotFoundError):
                self._crew.call(lambda: self._place.read(name, 1))
                raise PermissionError(f"{name} is still there after it was deleted")

    def claim(self) -> None:
        """Make the place this life's own, whoever wrote there before. Raises like `check`."""
        with self._at_start():
            for attempt in range(1, CLAIMS + 1):
                try:
                    self._claim()
                except TakenOverError:  # written to since it was looked at, which does not mean by a stranger
                    if attempt == CLAIMS:
                        raise
                else:
                    return

    def _claim(self) -> None:
        record = Record.of(self._folder.root)
        newest = self._refuse_foreign(record)
        record.with_life(self._token).write(self._folder.root)  # first, or it might not know its own token
        before = {} if newest is None else newest.files
        saved_at = time.time() if newest is None else newest.saved_at
        self._write(self._manifest(saved_at, before))
        self._saved = time.monotonic() - max(0.0, time.time() - saved_at)
        if newest is not None and not record.owns(newest):
            self._report(
                f"took {self._place.location} from the driver on {newest.host}, which ends when it sees that"
            )

    def start(self) -> None:
        """Begin to mirror, in a thread of its own."""
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        self._thread.start()

    def stats(self) -> dict[str, Any]:
        """Return `seconds` (of the newest round), `lag_seconds`, whether that is `behind`, and `failures`.

        What there is to tell is reported.
        """
        now = time.monotonic()
        lag = now - self._saved
        limit = max(BEHIND_ROUNDS * self._config.every_seconds, BEHIND_SECONDS)
        late = lag > limit and now - self._began > limit  # a run that resumes has had no round yet
        if late and lag >= 2 * self._behind:
            self._behind = lag
            self._news.append(
                f"the mirror is behind: what is new since {lag:.0f} s is on this disk alone"
                f" ({self._place.location})"
            )
        self._behind = self._behind if late else 0.0
        while self._news:
            self._report(self._news.popleft())
        measured = {} if self._round_seconds is None else {"seconds": self._round_seconds}
        return {**measured, "lag_seconds": lag, "behind": late, "failures": self._failures}

    @property
    def fails(self) -> bool:
        """Whether the last round failed, or there is none any more."""
        return self._failing

    def refuse_taken(self) -> None:
        """Raise ClusterError once another driver has taken the place: of the two runs one is wanted, and that is it."""
        if self._taken is None:
            return
        here = self._folder
        raise ClusterError(
            f"run {here.typed!r} ends here: a driver on {self._taken.host} has taken its mirror",
            why=f"{self._place.location} is for one run, and the one that came last stays;"
            f" this one is saved in {here.root}",
            fix="nothing, if that is wanted; to go on here, stop that one and add mirror.take=true; to go on with both,"
            " give mirror.url another place",
        )

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
        why = ""
        for _ in range(RETAKES):
            try:
                with looked(self._folder.root, self._known) as found:
                    return self._save(found)
            except FileChangedError as error:
                why = str(error)
        raise OSError(
            f"{why} before it was read, and so in {RETAKES} looks;"
            f" is {self._folder.root} on a file system without hard links, or full?"
        )

    def _save(self, found: Look) -> Manifest:
        spans = spans_to_read(found.stats, self._known)
        pieces = self._crew.map(lambda span: self._uploaded(found, span), spans, size=lambda span: span.size)
        self._known = with_pieces(found.stats, self._known, dict(zip(spans, pieces, strict=True)))
        manifest = self._manifest(found.taken_at, {path: file.pieces for path, file in self._known.items()})
        self._write(manifest)
        try:
            self._delete_old()
        except OSError as error:  # what stays is told of when it is listed; nothing is missing meanwhile
            self._undeleted = _in_a_line(error)
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
        """Write a manifest under the next number that is free."""
        for _ in range(NUMBERS_TRIED):
            newest = max(self._crew.call(lambda: manifest_numbers(self._place)), default=-1)
            if newest > self._number:  # ours, or this ends: a write that was given up came late
                late = self._own(newest)
                self._kept = [*self._kept, *([] if late is None else [late])]
                self._number = newest
            given = self._manifest(manifest.saved_at, manifest.files)
            if self._create(given):
                self._number = given.number
                self._kept = [*self._kept, given][-MANIFESTS_KEPT:]
                return
        raise OSError(f"{NUMBERS_TRIED} numbers of manifests were taken by what had been given up")

    def _create(self, manifest: Manifest) -> bool:
        """Return whether a manifest is there now; not, if its number is that of an earlier one of this life."""
        data = manifest.encode()
        try:
            self._crew.call(lambda: self._place.create(file_of(manifest.number), data), size=len(data))
        except FileExistsError:
            return self._own(manifest.number) == manifest  # then it was its acknowledgement that was lost
        return True

    def _delete_old(self) -> None:
        """Delete manifests but the newest ones, then the pieces that none names any more."""
        due = time.monotonic() + DELETING_SECONDS
        oldest = self._kept[0].number
        old = [n for n in self._crew.call(lambda: manifest_numbers(self._place)) if n < oldest]
        self._delete([file_of(number) for number in old])
        doomed = sorted(garbage(self._present, self._kept))
        for start in range(0, len(doomed), DELETED_TOGETHER):
            if time.monotonic() > due:
                return
            some = doomed[start : start + DELETED_TOGETHER]
            self._present.difference_update(some)  # before: it may be gone though that is not answered
            self._delete([object_of(piece) for piece in some])

    def _delete(self, names: list[str]) -> None:
        self._deleted.update(names)
        self._crew.map(self._place.delete, names)

    def _list(self) -> None:
        """See which pieces are there, whole; files of which one is missing are read again."""
        sizes = self._crew.call(lambda: self._place.sizes(OBJECTS))
        self._present = {Piece(name, size) for name, size in sizes.items()}
        self._known = {
            path: file for path, file in self._known.items() if self._present.issuperset(file.pieces)
        }
        manifests = self._crew.call(lambda: manifest_numbers(self._place))
        there = {*map(object_of, self._present), *map(file_of, manifests)}
        self._tell_what_stays(len(self._deleted & there))
        self._deleted.clear()
        self._list_at = time.monotonic() + LISTING_SECONDS

    def _tell_what_stays(self, count: int) -> None:
        """Tell once that files were deleted and are still there."""
        if count and not self._stays:
            why = self._undeleted or "it says that they were deleted"
            self._news.append(
                f"{count:,} files that are no longer needed stay at {self._place.location}, which grows: {why}"
            )
        self._stays, self._undeleted = count > 0, ""

    def _refuse_foreign(self, record: Record) -> Manifest | None:
        """Return the newest manifest, if there is one; raise UsageError when the run may not come after it."""
        numbers = self._crew.call(lambda: manifest_numbers(self._place))
        self._number = max(numbers, default=-1)
        self._kept = self._crew.call(lambda: newest_manifests(self._place, numbers), size=PIECE_BYTES)
        if not self._kept:
            return None
        newest = self._kept[-1]
        here = self._folder
        same = newest.run == here.name
        if record.owns(newest) or newest.token == self._successor_of or (same and self._config.take):
            return newest
        raise UsageError(
            f"run {here.typed!r} cannot be mirrored to {self._place.location}",
            why=f"run {newest.run!r} of {newest.host} is mirrored there, {age_of(newest)}, with files of its own",
            fix=f"go on with that one in another folder with --resume {self._place.location},"
            f" give mirror.url another place{', or put this one in its place by mirror.take=true' if same else ''}",
        )

    def _own(self, number: int) -> Manifest | None:
        """Return a manifest of this life; None if it cannot be read. Raises TakenOverError when it is of another."""
        try:
            found = self._crew.call(lambda: read_manifest(self._place, number), size=PIECE_BYTES)
        except (DataError, FileNotFoundError):
            return None
        if found.token != self._token:
            raise TakenOverError(self._place.location, found.host)
        return found

    @contextlib.contextmanager
    def _at_start(self) -> Iterator[None]:
        """Let what goes wrong before a run begins be told in three lines."""
        try:
            yield
        except (OSError, TakenOverError) as error:
            raise ClusterError(
                f"the run cannot be mirrored to {self._place.location}",
                why=_in_a_line(error),
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
                self._failing, self._taken = True, taken
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
            self._news.append(
                f"the run is not mirrored to {self._place.location}, which is tried again: {_in_a_line(error)}"
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
    config: MirrorConfig,
    folder: RunFolder,
    *,
    report: Callable[[str], None],
    successor_of: str | None = None,
) -> Iterator[Mirror | None]:
    """Give the mirror of a run that is locked, which has to be claimed yet; None where none is asked for.

    It is brought up to date when the context ends. Takes and raises what `Mirror` does.
    """
    drop_links(folder.root)  # of a life that was killed, also where there is no mirror any more
    if config.url is None:
        yield None
        return
    mirror = Mirror(config, folder, report=report, successor_of=successor_of)
    try:
        yield mirror
    finally:
        mirror.finish()


def check_mirror(config: MirrorConfig, folder: RunFolder, *, successor_of: str | None = None) -> None:
    """Raise what keeps a run from being mirrored, if it is to be; see `Mirror.check`."""
    if config.url is not None:
        Mirror(config, folder, report=lambda text: None, successor_of=successor_of).check()


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _refuse_inside(place: Place, folder: RunFolder) -> None:
    """Raise UsageError when the mirror would be mirrored itself."""
    if place.folder is not None and place.folder.is_relative_to(folder.root):
        raise UsageError(
            f"run {folder.typed!r} cannot be mirrored to {place.location}",
            why="that is in the run's own folder",
            fix="give mirror.url another place, best on another machine",
        )
