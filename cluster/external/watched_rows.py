"""Games that were watched as rows to learn from: which there are, and those that are not rows yet made to rows.

decisions/                       in a run's folder
  decisions_000000.npz, .json    rows, see replay.decision_shards
  taken.json                     which files of games are in them
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.cli.terminal import whole
from configs.engines import ENGINES
from core.errors import DataError, UsageError
from core.files import write_atomic
from engines.decision_records import game_number, rows_of
from engines.forge_protocol import Outcome
from engines.observation import NUM_FEATURES, OBSERVATION_SCHEMA
from engines.questions import NUM_SLOTS
from engines.watched_games import CountedShard, counted_shards, games_of
from replay.decision_shards import DecisionAbout, DecisionWriter

KEEP_SECONDS = 30.0
"""Between two times at which rows are put on the disk: who is killed loses no more work than that."""


@dataclass(frozen=True, slots=True)
class Watched:
    """Games of a folder: which program played them, and the files of their decisions."""

    folder: Path
    source: str
    shards: tuple[CountedShard, ...]

    @property
    def games(self) -> int:
        return sum(len(shard.games) for shard in self.shards)


@dataclass(slots=True)
class Taken:
    """What became of games.

    Attributes:
        finished: whether all were looked at.
        games: that there are in the folder of rows now.
        new: games that were not there before.
        passed_over: games that were there, or are like one that is, decision by decision.
        damaged: files that cannot be read, whose games are left out.
        missing: games that count, and are not in the file that they should be in.
    """

    finished: bool = False
    games: int = 0
    new: int = 0
    passed_over: int = 0
    damaged: list[str] = field(default_factory=list)
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Around:
    """What surrounds an imitation.

    Attributes:
        begin: told the name of each step.
        progress: told (done, total, unit).
        say: takes a line for people.
        should_stop: whether to save and leave off.
    """

    begin: Callable[[str], None]
    progress: Callable[[float, float, str], None]
    say: Callable[[str], None]
    should_stop: Callable[[], bool]


def find_watched(folders: Sequence[Path]) -> list[Watched]:
    """Return the games of folders that `tamen engines play --observe` has filled.

    Raises:
        UsageError: when one has none, or they are of several programs.
    """
    shards = {folder: tuple(counted_shards(folder)) for folder in folders}
    found = [Watched(folder, _source(folder), shards[folder]) for folder in shards]
    for other in found[1:]:
        if other.source != found[0].source:
            raise UsageError(
                f"{found[0].folder} and {other.folder} cannot be learnt from together",
                why=f"there {found[0].source} played, here {other.source}",
                fix="imitate each under a --name of its own",
            )
    return found


class RowMaker:
    """Puts the games that are not there yet into a folder of rows.

    Args:
        watched: games of one program.
        folder: of rows.
        around: told how it goes, and says when to stop.
        clock: monotonic seconds.

    Raises:
        UsageError: when rows of another program are there.
        DataError: when what is there is damaged.
    """

    def __init__(
        self,
        watched: Sequence[Watched],
        folder: Path,
        around: Around,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        about = DecisionAbout(watched[0].source, OBSERVATION_SCHEMA, NUM_FEATURES, NUM_SLOTS)
        self._shards = [shard for each in watched for shard in each.shards]
        self._writer = DecisionWriter(folder, about)
        self._ledger = _Ledger(folder / "taken.json", self._writer)
        self._around = around
        self._clock = clock
        self._done, self._total = 0, sum(each.games for each in watched)
        self._taken = Taken()

    def run(self) -> Taken:
        """Return what became of the games, when all were looked at or it was to stop. Raises OSError."""
        before, kept_at = self._writer.games, self._clock()
        try:
            for shard in self._shards:
                if not self._take(shard):
                    return self._taken
                if self._clock() - kept_at >= KEEP_SECONDS:
                    self._ledger.keep()
                    kept_at = self._clock()
            self._taken.finished = True
        finally:
            self._ledger.keep()
            self._taken.games, self._taken.new = self._writer.games, self._writer.games - before
        return self._taken

    def _take(self, shard: CountedShard) -> bool:
        """Take the games of a file; return whether all of them were looked at."""
        start = self._done
        try:
            fingerprint = shard.fingerprint()
            if fingerprint in self._ledger:
                self._taken.passed_over += len(shard.games)
            else:
                for _, outcome in games_of(shard):
                    if self._around.should_stop():
                        return False
                    self._add(outcome)
                self._taken.missing += start + len(shard.games) - self._done
                self._ledger.note(fingerprint)
        except DataError as error:
            self._taken.damaged.append(str(shard.path))
            left = start + len(shard.games) - self._done
            self._around.say(f"{whole(left)} games are left out: {error.what}: {error.why}")
        self._done = start + len(shard.games)
        self._around.progress(self._done, self._total, "games")
        return not self._around.should_stop()

    def _add(self, outcome: Outcome) -> None:
        if game_number(outcome) in self._writer:
            self._taken.passed_over += 1
        else:
            rows = rows_of(outcome)
            self._writer.add(rows.game, rows.columns, rows.counts)
        self._done += 1
        self._around.progress(self._done, self._total, "games")


class _Ledger:
    """Which files of games are in a folder of rows, by their fingerprints; if it is lost, they are read again.

    Args:
        path: of its file.
        writer: of the rows, which are put on the disk before the ledger tells of them.
    """

    def __init__(self, path: Path, writer: DecisionWriter) -> None:
        self._path = path
        self._writer = writer
        self._files: set[str] = set()
        try:
            said = json.loads(path.read_bytes())
            if said["games"] <= writer.games:  # else rows have been taken away since
                self._files = set(said["files"])
        except (OSError, ValueError, LookupError, TypeError):
            pass

    def __contains__(self, fingerprint: str) -> bool:
        return fingerprint in self._files

    def note(self, fingerprint: str) -> None:
        self._files.add(fingerprint)

    def keep(self) -> None:
        """Put rows and ledger on the disk. Raises OSError."""
        self._writer.flush()
        said = {"games": self._writer.games, "files": sorted(self._files)}
        write_atomic(self._path, (json.dumps(said) + "\n").encode())


def _source(folder: Path) -> str:
    """Return which program played the games in `folder`, in a word. Raises UsageError when it is not said there."""
    engine = ENGINES.load_file(folder / "config.yaml").engine
    words = [engine.jar] if engine.jar is not None else list(engine.command)
    return Path(next((word for word in words if word.endswith(".jar")), [*words, engine.name][0])).name
