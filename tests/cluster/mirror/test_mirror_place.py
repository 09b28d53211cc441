"""What reaches the place of a mirror ends in time, finds renewed keys, and touches nothing else."""

import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cluster.mirror.place import Crew, Place
from tests.cluster.mirroring import until


@pytest.mark.parametrize("name", ["hex*", "hex?", "hex[7]"])
def test_a_mirror_deletes_nothing_of_another_whose_name_is_like_a_pattern(tmp_path: Path, name: str) -> None:
    root = f"memory://{tmp_path.name}"
    place, other = (Place(f"{root}/{each}", timeout_seconds=1) for each in (name, "hex7"))
    for each in (place, other):
        each.write("objects/abc", b"a piece")
    place.delete("objects/abc")
    assert other.sizes("objects") == {"abc": 7}
    assert place.sizes("objects") == {}
    place.delete("objects/abc")
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def test_keys_that_were_renewed_are_read_once_the_old_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid, opened = [0], []

    class Keyed(MemoryFileSystem):
        protocol = "keyed"

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.key = valid[0]
            opened.append(self)

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
            if self.key != valid[0]:
                raise PermissionError("ExpiredToken")
            super().pipe_file(path, value, mode=mode, **options)

    fsspec.register_implementation("keyed", Keyed, clobber=True)
    place = Place(f"keyed://{tmp_path.name}", timeout_seconds=1)
    place.write("objects/a", b"1")
    valid[0] += 1
    with pytest.raises(PermissionError, match="ExpiredToken"):
        place.write("objects/b", b"2")
    place.write("objects/b", b"2")
    assert place.sizes("objects") == {"a": 1, "b": 1}
    assert len(opened) == 2
    for name in ("a", "b"):
        place.delete(f"objects/{name}")


def test_an_operation_has_the_longer_the_more_bytes_it_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.mirror.place.SLOWEST_BYTES_A_SECOND", 1000)
    crew = Crew(2, timeout_seconds=0.05, attempts=1)

    def move(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    assert crew.map(move, [0.5, 0.3], size=lambda _: 10_000) == [0.5, 0.3]
    with pytest.raises(TimeoutError, match=r"within 0\.15 s \(mirror\.timeout_seconds\)"):
        crew.map(move, [0.6], size=lambda _: 100)


def test_an_operation_that_hangs_is_given_up_and_there_are_never_many() -> None:
    crew, released = Crew(8, timeout_seconds=0.05, attempts=1), threading.Event()
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
            crew.map(lambda _: released.wait(60), range(8))
    with pytest.raises(TimeoutError, match="16 operations have not come back"):
        crew.call(lambda: None)
    released.set()
    until(lambda: sum(thread.name == "mirror-crew" for thread in threading.enumerate()) == 0)
    assert crew.map(lambda x: 2 * x, range(100)) == list(range(0, 200, 2))
