"""The manifests that lie at a place: which there are, and what they say."""

import time
from collections.abc import Sequence

from cluster.mirror.place import Place
from cluster.mirror.plan import MANIFESTS, MANIFESTS_KEPT, OBJECTS, Manifest, Piece
from core.errors import DataError
from replay.codec import LIMITS

_SUFFIX = ".manifest"
_DIGITS = 10


def file_of(number: int) -> str:
    """Return where the manifest of a number lies."""
    return f"{MANIFESTS}/{number:0{_DIGITS}d}{_SUFFIX}"


def object_of(piece: Piece) -> str:
    """Return where a piece lies."""
    return f"{OBJECTS}/{piece.digest}"


def manifest_numbers(place: Place) -> list[int]:
    """Return the numbers of all manifests, rising. Raises OSError when they cannot be listed."""
    names = [name.removesuffix(_SUFFIX) for name in place.sizes(MANIFESTS) if name.endswith(_SUFFIX)]
    return sorted(int(name) for name in names if name.isdecimal() and len(name) == _DIGITS)


def read_manifest(place: Place, number: int) -> Manifest:
    """Return a manifest. Raises OSError when it cannot be read, DataError when it is damaged."""
    source = f"{place.location}/{file_of(number)}"
    manifest = Manifest.decode(place.read(file_of(number), LIMITS.sealed_bytes + 1), source=source)
    if manifest.number != number:
        raise DataError(
            f"{source} is no manifest of a mirror",
            why=f"it calls itself manifest {manifest.number}",
            fix="restore from another manifest",
        )
    return manifest


def newest_manifests(place: Place, numbers: Sequence[int]) -> list[Manifest]:
    """Return the newest few that can be read, the newest last. Raises OSError when a sound one cannot be read."""
    found: list[Manifest] = []
    for number in reversed(numbers):
        try:
            found.append(read_manifest(place, number))
        except (DataError, FileNotFoundError):
            continue
        if len(found) == MANIFESTS_KEPT:
            break
    return found[::-1]


def age_of(manifest: Manifest) -> str:
    """Return in words how old the run's state in a manifest is."""
    seconds = max(0.0, time.time() - manifest.saved_at)
    if seconds < 120:
        return f"saved {seconds:.0f} s ago"
    return f"saved {seconds / 60:.0f} min ago" if seconds < 7200 else f"saved {seconds / 3600:.0f} h ago"


def in_words(manifest: Manifest) -> str:
    """Return what a manifest holds, where it was written and when."""
    return (
        f"manifest {manifest.number} of {manifest.host}, {age_of(manifest)}:"
        f" {len(manifest.files):,} files, {megabytes(manifest.total_bytes)}"
    )


def megabytes(count: int) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e6:,.1f} MB"
