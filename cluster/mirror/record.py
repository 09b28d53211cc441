"""What a run's folder knows of where it is mirrored."""

import json
from dataclasses import dataclass
from pathlib import Path

from cluster.mirror.plan import Manifest
from cluster.mirror.snapshot import RECORD_FILE
from core.errors import DataError
from core.files import write_atomic

LIVES_KEPT = 100


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
            fix="delete it, and give mirror.url a place that is empty, or mirror.take=true if it is this run's",
        )

    def write(self, root: Path) -> None:
        write_atomic(
            root / RECORD_FILE, json.dumps({"lives": self.lives, "restored": self.restored}).encode()
        )

    def with_life(self, token: str) -> "Record":
        """Return it with one more life, if that is new."""
        lives = self.lives if token in self.lives else (*self.lives, token)[-LIVES_KEPT:]
        return Record(lives, self.restored)

    def owns(self, manifest: Manifest) -> bool:
        """Whether a manifest is of the folder's own past."""
        return manifest.token in self.lives or (manifest.number, manifest.token) == self.restored
