"""Files at locations: paths of this machine, or URLs such as s3://bucket/folder/file that fsspec understands.

A location is a string. fsspec is imported when a URL is met, and for s3:// also s3fs, which the extra `s3` installs.
Keys, endpoint and region come from where AWS's tools take them: the variables AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, or the files in ~/.aws.

Every function raises OSError when something cannot be read or written, and UsageError when nothing can open such a URL.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import UsageError
from core.files import write_atomic


def is_url(location: str) -> bool:
    """Say whether a location is a URL rather than a path."""
    return "://" in location


def join(folder: str, *names: str) -> str:
    """Return the location of what lies in a folder."""
    return "/".join([folder.rstrip("/"), *names]) if is_url(folder) else str(Path(folder, *names))


def open_binary(location: str) -> BinaryIO:
    """Open a file to be read; it can be sought in."""
    if not is_url(location):
        return Path(location).open("rb")
    with reaching(location) as (system, path):
        return system.open(path, "rb")


def read_bytes(location: str) -> bytes:
    """Return what a file holds."""
    if not is_url(location):
        return Path(location).read_bytes()
    with reaching(location) as (system, path):
        return system.cat_file(path)


def write_atomic_at(location: str, data: bytes) -> None:
    """Write a file in one step: whoever reads finds the old one or the new one, whole.

    An object store has this of itself: an object appears when all of it has arrived.
    """
    if not is_url(location):
        write_atomic(Path(location), data)
        return
    with reaching(location) as (system, path):
        system.pipe_file(path, data)


def size_of(location: str) -> int | None:
    """Return the bytes of a file, None if there is none."""
    try:
        if not is_url(location):
            return Path(location).stat().st_size
        with reaching(location) as (system, path):
            return system.info(path)["size"]
    except FileNotFoundError:
        return None


def list_files(folder: str, suffix: str = "") -> list[str]:
    """Return the locations of a folder's files whose names end in `suffix`, in order; none if there is no folder."""
    if not is_url(folder):
        found = [str(path) for path in Path(folder).glob(f"*{suffix}") if path.is_file()]
        return sorted(path for path in found if not Path(path).name.startswith("."))
    try:
        with reaching(folder) as (system, path):
            return sorted(
                system.unstrip_protocol(entry["name"])
                for entry in system.ls(path, detail=True)
                if entry["type"] == "file" and entry["name"].endswith(suffix)
            )
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def reaching(url: str) -> Iterator[tuple[Any, str]]:
    """Give fsspec's file system for a URL, and the path in it; what its libraries raise becomes OSError."""
    system, path = file_system(url)
    with as_oserrors(url):
        yield system, path


@contextlib.contextmanager
def as_oserrors(url: str) -> Iterator[None]:
    """Let what the libraries of a URL raise be OSError."""
    try:
        yield
    except OSError:
        raise
    except (
        Exception
    ) as error:  # each library has a tree of its own: botocore's NoCredentialsError is no OSError
        raise OSError(f"{url}: {type(error).__name__}: {error}") from error


def file_system(url: str, **options: Any) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, made with `options`, and the path in it.

    Raises:
        UsageError: when nothing here can open such a URL.
    """
    protocol = url.partition("://")[0]
    try:
        import fsspec  # noqa: PLC0415 - a local pipeline does without

        # Kept listings would not show what another process has written since.
        return fsspec.url_to_fs(url, use_listings_cache=False, **options)
    except (ImportError, ValueError) as error:
        package = "tamen[s3]" if protocol == "s3" else f"fsspec[{protocol}]"
        raise UsageError(
            f"{url} cannot be opened",
            why=f"what reads {protocol}:// is not installed ({error})",
            fix=f"pip install '{package}', or give files of this machine",
        ) from error
