"""A run brought back from its mirror into a folder that is not there yet; see docs/storage.md.

It is gathered beside the runs, in `.restoring/<name>`, and gets its place when all digests are right: a run's folder is
there whole or not at all, and the same command goes on where it was broken off.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from cluster.mirror.manifests import (
    age_of,
    in_words,
    manifest_numbers,
    megabytes,
    newest_manifests,
    object_of,
)
from cluster.mirror.place import Crew, Place
from cluster.mirror.plan import PIECE_BYTES, Manifest, Piece
from cluster.mirror.record import Record
from cluster.mirror.snapshot import LEDGER
from cluster.run.run_folder import LOCK_SECONDS, RunFolder, refuse_foreign
from configs.schema import MirrorConfig, RunConfig
from core.errors import ClusterError, DataError, TamenError, UsageError
from core.files import digest, sync_folder, write_atomic
from replay.archive import EPOCH_LEAP
from replay.ledger import Ledger

GATHERED_IN = ".restoring"
TELL_SECONDS = 2.0
LOOKS = 6
"""At which manifests there are: while the run goes on elsewhere, what a reader wants is deleted, and newer comes."""
READS = 2
"""Of a piece whose digest is wrong: what was torn on its way comes whole the second time."""
FIRST = ("config.yaml", "name.txt")


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece where it belongs: in the file `path`, from `offset` on."""

    path: str
    offset: int
    piece: Piece


class Restoring:
    """A run at `location`, on its way into `folder`.

    Args:
        say: told how it goes, in lines.

    Raises:
        UsageError: when nothing opens such a location.
    """

    def __init__(
        self, location: str, folder: RunFolder, *, config: MirrorConfig, say: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._say = say
        self._place = Place(location, timeout_seconds=config.timeout_seconds)
        self._crew = Crew(config.max_uploads, timeout_seconds=config.timeout_seconds)
        self._unreadable: int | None = None
        self._gathered = RunFolder(folder.root.parent / GATHERED_IN / folder.typed)

    def look(self) -> Manifest:
        """Return the newest manifest; the folder may be there already, if it comes after that.

        Raises:
            UsageError: when no run is mirrored there, or a folder of this name is here that went another way.
            ClusterError: when the place cannot be read.
        """
        newest = self._manifests()[-1]
        self._refuse_what_is_here(newest)
        return newest

    @property
    def is_here(self) -> bool:
        """Whether there is a folder of this name."""
        root = self._folder.root
        return root.exists() and any(root.iterdir())

    def run(self, config: RunConfig) -> str:
        """Restore the run, to go on with `config`; return the token of the life that it comes after.

        Where it is here already, as new as what is mirrored, nothing is done: a restored run that could not start, or
        ended, goes on by the same command.

        Raises:
            UsageError: when a folder of this name is here that went another way, or the run is of another game or
                network.
            DataError: when no manifest can be restored from.
            ClusterError: when the place cannot be read any more.
        """
        newest = self.look()
        if self.is_here:
            self._say(
                f"{self._folder.typed} is here already, as new as what is mirrored to {self._place.location}"
            )
            return newest.token
        began = time.monotonic()
        with self._alone():
            manifest, newest = self._gather(config)
            self._settle(newest)
        self._say(
            f"restored {len(manifest.files):,} files, {megabytes(manifest.total_bytes)},"
            f" in {time.monotonic() - began:.1f} s"
        )
        return newest.token

    def _gather(self, config: RunConfig) -> tuple[Manifest, Manifest]:
        """Bring all files of the newest manifest that is sound, and return that, and the newest there is."""
        tried: dict[int, str] = {}
        whole: tuple[Manifest, Manifest] | None = None
        for _ in range(LOOKS):
            manifests = self._manifests()
            untried = [manifest for manifest in manifests if manifest.number not in tried]
            if not untried:
                break
            manifest = untried[-1]
            if whole is not None and manifest == whole[0]:
                return manifest, manifests[-1]
            self._say(f"restoring {self._folder.typed} from {self._place.location}, {in_words(manifest)}")
            whole = None
            try:
                self._bring(manifest, [path for path in FIRST if path in manifest.files])
                refuse_foreign(self._gathered, config)
                self._take_away_others(manifest)
                self._bring(manifest, list(manifest.files))
            except (DataError, FileNotFoundError) as error:
                tried[manifest.number] = error.why if isinstance(error, DataError) else str(error)
                self._say(f"manifest {manifest.number} is not whole: {tried[manifest.number]}")
            except OSError as error:
                raise self._unreachable(error) from error
            else:
                whole = manifest, manifests[-1]  # what came meanwhile is brought, too: little of it is new
        if whole is not None:
            return whole
        raise DataError(
            f"{self._folder.typed} cannot be restored from {self._place.location}",
            why="; ".join(f"manifest {number}: {why}" for number, why in list(tried.items())[:3]),
            fix="restore an older version of what is missing, where the storage keeps them",
        )

    def _bring(self, manifest: Manifest, paths: list[str]) -> None:
        """Bring files into the folder where they are gathered."""
        parts = []
        for path in paths:
            target, offset = self._gathered.root / path, 0
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
            for piece in manifest.files[path]:
                parts.append(_Part(path, offset, piece))
                offset += piece.size
            os.truncate(target, offset)
        done, told = 0, time.monotonic()
        for some in _batches(parts):
            self._crew.map(self._bring_part, some, size=lambda part: part.piece.size)
            done += sum(part.piece.size for part in some)
            if time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                self._say(f"  {megabytes(done)} of {megabytes(manifest.total_bytes)}")

    def _take_away_others(self, manifest: Manifest) -> None:
        """Delete what was gathered by another manifest, folders too: an empty one would be a damaged checkpoint."""
        root = self._gathered.root
        for path in sorted(root.rglob("*"), reverse=True):
            name = path.relative_to(root).as_posix()
            if path.is_dir():
                with contextlib.suppress(OSError):  # it is not empty
                    path.rmdir()
            elif name not in manifest.files:
                path.unlink()

    def _bring_part(self, part: _Part) -> None:
        with (self._gathered.root / part.path).open("r+b") as file:
            if digest(os.pread(file.fileno(), part.piece.size, part.offset)) == part.piece.digest:
                return
            for _ in range(READS):
                data = self._place.read(object_of(part.piece), part.piece.size + 1)
                if Piece(digest(data), len(data)) == part.piece:
                    os.pwrite(file.fileno(), data, part.offset)
                    return
        raise DataError(
            f"{object_of(part.piece)} is damaged",
            why=f"a piece of {part.path} is not what its digest says",
            fix="restore from another manifest",
        )

    def _settle(self, newest: Manifest) -> None:
        """Make the gathered files durable, and give them their place."""
        _skip_lives(self._gathered.root / LEDGER)
        Record(restored=(newest.number, newest.token)).write(self._gathered.root)
        os.sync()
        self._gathered.root.rename(self._folder.root)
        sync_folder(self._folder.root.parent)

    def _manifests(self) -> list[Manifest]:
        """Return the newest manifests, the newest last; never none."""
        try:
            numbers = self._crew.call(lambda: manifest_numbers(self._place))
            found = self._crew.call(lambda: newest_manifests(self._place, numbers), size=PIECE_BYTES)
        except OSError as error:
            raise self._unreachable(error) from error
        if not any(manifest.files for manifest in found):
            raise UsageError(
                f"no run is mirrored to {self._place.location}",
                why=f"none of the {len(numbers)} manifests there can be read, or holds files"
                if numbers
                else "there are no manifests",
                fix="give --resume what mirror.url was when the run went on",
            )
        if numbers[-1] > found[-1].number and numbers[-1] != self._unreadable:
            self._unreadable = numbers[-1]
            self._say(f"manifest {numbers[-1]} cannot be read; an older one is taken")
        return [manifest for manifest in found if manifest.files]

    def _refuse_what_is_here(self, newest: Manifest) -> None:
        here = self._folder
        if not self.is_here:
            return
        record = Record.of(here.root)
        if here.exists() and record.owns(newest):
            return
        known = bool(record.lives or record.restored)
        take = f", or go on with it by mirror.url={self._place.location} mirror.take=true instead of --resume"
        raise UsageError(
            f"{here.typed} cannot be restored over what is here",
            why=f"run {newest.run!r} went on elsewhere, on {newest.host}, {age_of(newest)}"
            if known
            else f"{here.root} holds what was never mirrored there",
            fix=f"move it away, or give another --name{take if known and newest.run == here.name else ''}",
        )

    def _unreachable(self, error: OSError) -> TamenError:
        return ClusterError(
            f"{self._folder.typed} cannot be restored from {self._place.location}",
            why=str(error) or type(error).__name__,
            fix="see to the address, its keys and permissions, and the room on this disk; the same command goes on",
        )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others from restoring the same run at the same time."""
        self._gathered.root.mkdir(parents=True, exist_ok=True)
        around = self._gathered.root.parent
        lock = FileLock(around / f"{self._folder.typed}.lock")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise UsageError(
                f"{self._folder.typed} is being restored by another process",
                why=f"{self._gathered.root} is locked by it",
                fix="wait for it, or give this run another --name",
            ) from None
        try:
            yield
        finally:
            lock.release()
        with contextlib.suppress(OSError):  # another run may be on its way
            (around / f"{self._folder.typed}.lock").unlink()
            around.rmdir()


def _skip_lives(path: Path) -> None:
    """Let actors' lives begin where none did that came after the manifest: their games are lost, not their names."""
    try:
        ledger = Ledger.decode(path.read_bytes(), source=str(path))
    except (FileNotFoundError, DataError):
        return  # the replay makes it anew, see docs/data-formats.md
    newest = max(ledger.first_epoch, *ledger.next_epochs.values(), 0)
    write_atomic(path, replace(ledger, first_epoch=newest + EPOCH_LEAP).encode())


def _batches(parts: list[_Part]) -> Iterator[list[_Part]]:
    for start in range(0, len(parts), 64):
        yield parts[start : start + 64]
