import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError
from core.files import digest, file_digest, seal, sync_folder, unseal, write_atomic
from tests.core.faults import KILLED, die, find_the_disk_full, in_child, strike_here, striking

SEALED_ABC = bytes.fromhex(
    "74616d656e310a" + "0300000000000000" + "cf4ab791c62b8d2b2109c90275287816" + "616263"
)
"""Magic, length, BLAKE2b-128 and content: the form of every sealed file ever written."""


def test_the_sealed_form_never_changes() -> None:
    assert seal(b"abc") == SEALED_ABC
    assert unseal(SEALED_ABC, source="a file") == b"abc"
    assert digest(b"abc") == "cf4ab791c62b8d2b2109c90275287816"


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 3])
def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    (tmp_path / "x").write_bytes(data[:size])
    assert file_digest(tmp_path / "x") == (digest(data[:size]), size)
    with pytest.raises(FileNotFoundError):
        file_digest(tmp_path / "none")


@given(st.binary(max_size=200))
def test_what_was_sealed_is_given_back(data: bytes) -> None:
    assert unseal(seal(data), source="a file") == data


def test_a_seal_cut_short_anywhere_is_damaged() -> None:
    sealed = seal(b"every byte counts")
    for length in range(len(sealed)):
        with pytest.raises(DataError, match=r"run/x\.sealed is damaged"):
            unseal(sealed[:length], source="run/x.sealed")


def test_a_seal_with_any_bit_flipped_is_damaged() -> None:
    sealed = seal(b"every bit counts")
    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DataError):
            unseal(bytes(flipped), source="a file")


@given(st.binary(min_size=1, max_size=20))
def test_a_seal_with_more_behind_it_is_damaged(tail: bytes) -> None:
    with pytest.raises(DataError, match="where its header says 3"):
        unseal(SEALED_ABC + tail, source="a file")


@given(st.binary(max_size=80))
def test_no_bytes_raise_anything_but_a_data_error(data: bytes) -> None:
    with pytest.raises(DataError):
        unseal(data, source="a file")


def test_a_written_file_is_read_back_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "folder" / "x"
    write_atomic(file, b"old")
    write_atomic(file, b"new")
    assert file.read_bytes() == b"new"
    assert [path.name for path in file.parent.iterdir()] == ["x"]


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_step_leaves_the_old_file_or_the_new(tmp_path: Path, after: bool) -> None:
    file = tmp_path / "x"
    found = []
    for step in range(10):
        write_atomic(file, b"old")

        def write_and_die(step: int = step) -> None:
            strike_here(step, die, after=after)
            write_atomic(file, b"new")

        status = in_child(write_and_die)
        found.append(file.read_bytes())
        if status == 0:
            break
        assert status == KILLED
    assert found == [b"old", b"new" if after else b"old", b"new", b"new"]


@pytest.mark.parametrize("step", [0, 1])
def test_a_failing_step_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    file = tmp_path / "x"
    write_atomic(file, b"old")
    for name, operation in striking(step, find_the_disk_full).items():
        monkeypatch.setattr(os, name, operation)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(file, b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "x"
    write_atomic(file, b"old")

    def write_too_much() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(OSError, match="File too large"):
            write_atomic(file, bytes(2000))

    assert in_child(write_too_much) == 0
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_folder_that_is_not_there_cannot_be_synced(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "none")
