import sys
from pathlib import Path

import fsspec
import pytest

from core.errors import UsageError
from pipeline.storage import join, list_files, open_binary, read_bytes, size_of, write_atomic_at
from tests.pipeline.s3 import bucket, s3_server  # noqa: F401 - fixtures


@pytest.fixture(params=["path", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on disk, and one in S3."""
    return str(tmp_path / "rows") if request.param == "path" else request.getfixturevalue("bucket") + "/rows"


def test_files_are_written_listed_and_read(place: str) -> None:
    assert list_files(place) == []
    assert size_of(join(place, "a.npz")) is None
    for name in ("b.npz", "a.npz", "a.npz.json"):
        write_atomic_at(join(place, name), name.encode() * 100)
    write_atomic_at(join(place, "below", "c.npz"), b"")
    assert list_files(place, ".npz") == [join(place, "a.npz"), join(place, "b.npz")]
    assert size_of(join(place, "a.npz")) == 500
    assert read_bytes(join(place, "b.npz")) == b"b.npz" * 100
    with open_binary(join(place, "b.npz")) as file:
        file.seek(495)
        assert file.read() == b"b.npz"
        file.seek(0)
        assert file.read(2) == b"b."


def test_a_file_is_replaced_whole(place: str) -> None:
    for data in (b"the first", b"2nd"):
        write_atomic_at(join(place, "a"), data)
        assert read_bytes(join(place, "a")) == data
        assert size_of(join(place, "a")) == len(data)


def test_what_is_not_there_is_not_found(place: str) -> None:
    for read in (read_bytes, open_binary):
        with pytest.raises(FileNotFoundError):
            read(join(place, "nothing"))


def test_what_a_library_raises_is_an_oserror(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    with pytest.raises(OSError, match="bucket"):
        write_atomic_at("s3://nobodys/a", b"")
    s3 = fsspec.get_filesystem_class("s3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3.clear_instance_cache()
    with pytest.raises(OSError, match="NoCredentialsError"):
        read_bytes(join(bucket, "a"))
    s3.clear_instance_cache()


def test_fsspec_is_left_alone_where_nothing_is_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    write_atomic_at(str(tmp_path / "a"), b"1")
    assert list_files(str(tmp_path)) == [str(tmp_path / "a")]
    with pytest.raises(UsageError, match=r"pip install 'tamen\[s3\]'"):
        read_bytes("s3://tamen/a")


def test_a_url_that_nothing_can_open_is_told() -> None:
    with pytest.raises(UsageError, match=r"gopher://a/b cannot be opened\n.*not installed.*\n.*pip install"):
        read_bytes("gopher://a/b")
