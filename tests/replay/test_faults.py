"""What was acknowledged is there after any crash, once; what was not can be sent again."""

import contextlib
import os
import random
import re
import resource
import select
import signal
import threading
import time
from pathlib import Path

import pytest

from configs.schema import ReplayConfig
from core.errors import TamenError
from replay.buffer import ReplayBuffer
from replay.records import Chunk
from tests.core.faults import KILLED, die, find_the_disk_full, in_child, strike_here, striking
from tests.replay.experience import a_chunk, open_buffer

CHUNKS = [a_chunk(range(2 * k, 2 * k + 2)).encode() for k in range(3)]
WINDOW_OF_ONE_CHUNK = ReplayConfig(min_rows=6, capacity_rows=6)


def seqs(buffer: ReplayBuffer) -> list[int]:
    chunks = [Chunk.decode(data) for data in buffer.handles(buffer.live_chunks())]
    return [game.seq for chunk in chunks for game in chunk.games]


def text_lines(folder: Path) -> int:
    return sum(
        len(re.findall(r"^tic.*\n", f.read_text(), re.MULTILINE)) for f in (folder / "games").iterdir()
    )


def names_of_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def assert_all_came_once(folder: Path, buffer: ReplayBuffer) -> None:
    assert seqs(buffer) == [4, 5]
    assert text_lines(folder) == 6
    assert (buffer.stats()["games"], buffer.stats()["total_rows"]) == (6, 18)
    assert buffer.check_valid() == []
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_operation_loses_nothing_acknowledged_and_doubles_nothing(
    tmp_path: Path, after: bool
) -> None:
    status, step = KILLED, 0
    while status == KILLED:
        folder = tmp_path / str(step)
        log = tmp_path / f"acknowledged-{step}"

        def deliver_until_killed(step: int = step, folder: Path = folder, log: Path = log) -> None:
            with log.open("w") as file:
                strike_here(step, die, after=after)
                buffer = open_buffer(folder, WINDOW_OF_ONE_CHUNK)
                buffer.open_epoch(0)
                for chunk in CHUNKS:
                    buffer.add(chunk)
                    print("acknowledged", file=file, flush=True)

        status = in_child(deliver_until_killed)
        acknowledged = len(log.read_text().splitlines())
        buffer = open_buffer(folder, WINDOW_OF_ONE_CHUNK)
        assert buffer.opening_report.damaged == ()
        assert buffer.stats()["games"] in (2 * acknowledged, 2 * acknowledged + 2)
        for k, chunk in enumerate(CHUNKS):
            assert buffer.add(chunk).accepted in ((0,) if k < acknowledged else (0, 2))
        assert_all_came_once(folder, buffer)
        step += 1
    assert status == 0
    assert step > 25


def test_a_disk_that_fails_at_any_operation_leaves_the_chunk_to_be_sent_again(tmp_path: Path) -> None:
    struck, step = [True], 0
    while struck:
        folder = tmp_path / str(step)
        buffer = open_buffer(folder, WINDOW_OF_ONE_CHUNK)
        struck.clear()

        def strike(struck: list[bool] = struck) -> None:
            struck.append(True)
            find_the_disk_full()

        with pytest.MonkeyPatch.context() as patch:
            for name, operation in striking(step, strike).items():
                patch.setattr(os, name, operation)
            for k, chunk in enumerate(CHUNKS):
                files = names_of_files(folder)
                with contextlib.suppress(TamenError):
                    buffer.add(chunk)
                    continue
                assert struck
                assert names_of_files(folder) == files
                assert buffer.stats()["games"] == 2 * k
                assert buffer.add(chunk).accepted == 2
        again = open_buffer(folder, WINDOW_OF_ONE_CHUNK)
        of_one_chunk = {"rows": 6, "chunks": 1, "bytes": again.stats()["bytes"]}
        assert again.stats() | {"duplicates": 0} == buffer.stats() | of_one_chunk
        assert_all_came_once(folder, again)
        step += 1
    assert step > 20


def test_thirty_kills_at_random_times_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(0)
    folder = tmp_path / "run"
    acknowledged = 0
    for _ in range(30):
        acknowledged = _deliver_and_kill(folder, acknowledged, chance)
        buffer = open_buffer(folder)
        found = seqs(buffer)
        assert found == list(range(len(found)))
        assert len(found) >= acknowledged
        assert text_lines(folder) == len(found)
        assert buffer.stats()["total_rows"] == 3 * len(found)
        assert buffer.check_valid() == []
        del buffer  # lets the folder go
    assert acknowledged >= 40


def _deliver_and_kill(folder: Path, first: int, chance: random.Random) -> int:
    """Kill a delivering child a little after some acknowledgements; return how many games it was told."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        _deliver_for_ever(folder, first, writable)
    os.close(writable)
    told = b""
    for _ in range(chance.randrange(5)):
        assert select.select([readable], [], [], 60)[0]
        told += os.read(readable, 4)
    time.sleep(chance.uniform(0.0, 0.02))
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with os.fdopen(readable, "rb") as rest:
        told += rest.read()
    return max([first, *(int.from_bytes(told[k : k + 4], "little") for k in range(0, len(told), 4))])


def _deliver_for_ever(folder: Path, first: int, told: int) -> None:
    """Deliver from a little before the first game that was not acknowledged, and tell of each that is."""
    try:
        buffer = open_buffer(folder)
        for seq in range(max(0, first - 2), 100_000, 2):
            buffer.add(a_chunk([seq, seq + 1]).encode())
            os.write(told, (seq + 2).to_bytes(4, "little"))
    finally:
        os._exit(1)


def test_a_full_disk_is_told_and_passes(tmp_path: Path) -> None:
    def fill_and_go_on() -> None:
        buffer = open_buffer(tmp_path)
        buffer.add(CHUNKS[0])
        whole = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, whole[1]))
        for _ in range(3):
            with pytest.raises(TamenError, match="File too large"):
                buffer.add(CHUNKS[1])
        assert buffer.stats()["games"] == 2
        resource.setrlimit(resource.RLIMIT_FSIZE, whole)
        assert buffer.add(CHUNKS[1]).accepted == 2
        assert buffer.check_valid() == []

    assert in_child(fill_and_go_on) == 0
    buffer = open_buffer(tmp_path)
    assert seqs(buffer) == [0, 1, 2, 3]
    assert buffer.check_valid() == []


def test_a_full_disk_lets_go_at_once_of_what_was_to_be_deleted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = ReplayConfig(min_rows=6, capacity_rows=6 * 64)
    chunks = (a_chunk(range(2 * k, 2 * k + 2)).encode() for k in range(200))
    buffer = open_buffer(tmp_path, window)

    def files() -> int:
        return len(list(tmp_path.rglob("*.chunk")))

    while files() == len(buffer.live_chunks()):
        buffer.add(next(chunks))

    def full(*_: object) -> int:
        raise TamenError("no room", why="test", fix="none")

    one_more = next(chunks)
    with monkeypatch.context() as patched:
        patched.setattr(buffer._archive, "store", full)
        with pytest.raises(TamenError, match="no room"):
            buffer.add(one_more)
    assert files() == len(buffer.live_chunks())
    assert buffer.add(one_more).accepted == 2
    assert buffer.check_valid() == []


def test_a_chunk_file_cut_short_anywhere_is_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    for chunk in CHUNKS[:3]:
        buffer.add(chunk)
    file = tmp_path / "replay" / "00000001.chunk"
    whole = file.read_bytes()
    for length in [0, 1, 22, 23, len(whole) // 2, len(whole) - 1]:
        file.write_bytes(whole[:length])
        buffer = open_buffer(tmp_path)
        assert buffer.opening_report.damaged == ("00000001.chunk",)
        assert (buffer.opening_report.chunks, buffer.opening_report.rows) == (2, 12)
        assert seqs(buffer) == [0, 1, 4, 5]
        file.with_name("00000001.chunk.damaged").unlink()


def test_a_damaged_chunk_keeps_its_bytes_and_its_number(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    for chunk in CHUNKS[:2]:
        buffer.add(chunk)
    newest = tmp_path / "replay" / "00000001.chunk"
    flipped = bytearray(newest.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    newest.write_bytes(flipped)

    buffer = open_buffer(tmp_path)
    assert newest.with_name("00000001.chunk.damaged").read_bytes() == flipped
    assert buffer.stats()["damaged_files"] == 1
    assert buffer.add(CHUNKS[1]).accepted == 2, "its games are gone, so they may come again"
    assert buffer.live_chunks().tolist() == [0, 2]
    assert open_buffer(tmp_path).opening_report.damaged == ()


@pytest.mark.parametrize("lost", ["damaged", "deleted"])
def test_without_its_ledger_a_replay_goes_on_and_still_gives_out_new_lives(tmp_path: Path, lost: str) -> None:
    buffer = open_buffer(tmp_path)
    lives = [(actor, buffer.open_epoch(actor)) for actor in (0, 0, 1)]
    for chunk in CHUNKS[:2]:
        buffer.add(chunk)
    for _ in range(2):
        ledger = tmp_path / "replay" / "ledger.sealed"
        if lost == "deleted":
            ledger.unlink()
        else:
            ledger.write_bytes(ledger.read_bytes()[:-1])
        buffer = open_buffer(tmp_path)
        assert buffer.opening_report.damaged == (() if lost == "deleted" else ("ledger.sealed",))
        assert seqs(buffer)[:4] == [0, 1, 2, 3]
        assert buffer.add(CHUNKS[0]).duplicates == 2
        for actor in (0, 1, 2):
            life = (actor, buffer.open_epoch(actor))
            assert life not in lives
            lives.append(life)
        buffer.add(a_chunk([0], actor=2, epoch=lives[-1][1]).encode())


def test_a_replay_whose_folder_was_removed_leaves_the_texts_of_games_alone(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    for chunk in CHUNKS[:3]:
        buffer.add(chunk)
    for file in (tmp_path / "replay").iterdir():
        file.unlink()
    buffer = open_buffer(tmp_path)
    buffer.add(CHUNKS[0])
    assert text_lines(tmp_path) == 8
    assert buffer.live_chunks().tolist() == [3]


def test_the_text_of_a_chunk_is_written_again_when_it_is_missing(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    buffer.add(CHUNKS[0])
    text = tmp_path / "games" / "00000000.txt"
    before = text.read_text()
    text.unlink()
    assert open_buffer(tmp_path).opening_report.restored_texts == 1
    assert text.read_text() == before


def test_one_process_at_a_time_writes_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        _deliver_for_ever(tmp_path, 0, writable)
    try:
        assert select.select([readable], [], [], 60)[0]
        monkeypatch.setattr("replay.archive.LOCK_SECONDS", 0.1)
        with pytest.raises(TamenError, match="is being written by another process") as caught:
            open_buffer(tmp_path)
        assert "replay/.lock for 0.1 s" in caught.value.why
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(readable)
        os.close(writable)
    monkeypatch.setattr("replay.archive.LOCK_SECONDS", 10.0)
    assert open_buffer(tmp_path).check_valid() == []


def test_a_replay_waits_for_the_end_of_the_one_before(tmp_path: Path) -> None:
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        _deliver_for_ever(tmp_path, 0, writable)
    assert select.select([readable], [], [], 60)[0]
    killed = threading.Timer(0.3, os.kill, (child, signal.SIGKILL))
    killed.start()
    buffer = open_buffer(tmp_path)
    killed.join()
    os.waitpid(child, 0)
    os.close(writable)
    with os.fdopen(readable, "rb") as told:
        acknowledged = max(int.from_bytes(told.read()[-4:], "little"), 2)
    assert len(seqs(buffer)) in (acknowledged, acknowledged + 2)
    assert buffer.check_valid() == []


def test_half_written_files_are_swept_away(tmp_path: Path) -> None:
    open_buffer(tmp_path)
    (tmp_path / "replay" / ".00000000.chunk.abc.tmp").write_bytes(b"half")
    open_buffer(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))
