"""What is written down of games outlives a process, each record whole or not at all, and is one process's alone."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import game_log
from actors.game_log import MOST_TRIES, GameLog, Moves, claim, decode, folder_of, remove_logs, remove_stale
from core.errors import DataError

ACTIONS = 5


def some_moves(step: int, games: int = 3) -> Moves:
    rng = np.random.default_rng(step)
    full = rng.random(games) < 0.5
    return Moves(
        keys=np.arange(games, dtype=np.uint64) + np.uint64(2**63),
        plies=np.full(games, step, np.int64),
        actions=rng.integers(ACTIONS, size=games).astype(np.int16),
        values=rng.random(games, np.float32),
        full=full,
        policies=rng.random((int(full.sum()), ACTIONS)).astype(np.float16),
        version=step - 1,
    )


def same(one: Moves, other: Moves) -> bool:
    arrays = ("keys", "plies", "actions", "values", "full", "policies")
    return one.version == other.version and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


def claimed(folder: Path, *, max_plies: int = 100) -> GameLog:
    return claim(folder, num_actions=ACTIONS, max_plies=max_plies)


def the_file(folder: Path) -> Path:
    (place,) = folder.iterdir()
    return max((file for file in place.iterdir() if file.name.isdecimal()), key=lambda file: int(file.name))


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


@given(
    steps=st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 9)), max_size=6), cut=st.integers(0, 400)
)
def test_what_was_encoded_is_decoded_up_to_where_it_was_cut(steps: list[tuple[int, int]], cut: int) -> None:
    records = [some_moves(step, games) for step, games in steps]
    ends = np.cumsum([len(record.encode()) for record in records]).tolist()
    data = b"".join(record.encode() for record in records)
    data = data[: max(0, len(data) - cut)]

    read, end = decode(data, ACTIONS)

    assert end == max([each for each in ends if each <= len(data)], default=0)
    assert len(read) == sum(each <= len(data) for each in ends)
    assert all(same(moves, record) for moves, record in zip(read, records, strict=False))


@settings(max_examples=200)
@given(place=st.integers(0, 200), bit=st.integers(0, 7))
def test_no_flipped_bit_passes_for_a_move(place: int, bit: int) -> None:
    first, second = some_moves(1), some_moves(2)
    data = bytearray(first.encode() + second.encode())
    place %= len(data)
    data[place] ^= 1 << bit
    before = [first] if place >= len(first.encode()) else []

    try:
        read, _ = decode(bytes(data), ACTIONS)
    except DataError:
        return
    # The length was made greater than what is there: as if torn.
    assert len(read) == len(before)
    assert all(same(moves, whole) for moves, whole in zip(read, before, strict=True))


def test_moves_of_some_games_have_their_policies() -> None:
    moves = some_moves(3, 6)
    chosen = np.array([True, False, True, False, True, True])

    some = moves.of(chosen)

    policies = iter(moves.policies)
    expected = [next(policies) if full else None for full in moves.full]
    kept = iter(some.policies)
    for k, g in enumerate(np.flatnonzero(chosen)):
        assert (some.keys[k], some.actions[k], some.full[k]) == (
            moves.keys[g],
            moves.actions[g],
            moves.full[g],
        )
        if moves.full[g]:
            assert np.array_equal(next(kept), expected[g])
    assert next(kept, None) is None


def test_a_log_whose_process_lives_is_nobody_elses_and_one_whose_process_died_is_gone_on_with(
    tmp_path: Path,
) -> None:
    first = claimed(tmp_path)
    first.append(some_moves(0))
    other = claimed(tmp_path)
    assert other.found == []
    first.append(some_moves(1))
    first.close()

    heir = claimed(tmp_path)
    assert [moves.version for moves in heir.found] == [-1, 0]
    heir.append(some_moves(2))
    heir.close()

    assert [moves.version for moves in claimed(tmp_path).found] == [-1, 0, 1]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_log_that_is_removed_leaves_nothing(tmp_path: Path) -> None:
    log = claimed(tmp_path)
    log.append(some_moves(0))
    log.remove()
    assert not tmp_path.exists() or list(tmp_path.iterdir()) == []


def test_what_a_kill_has_torn_is_cut_off_before_more_is_written(tmp_path: Path) -> None:
    log = claimed(tmp_path)
    log.append(some_moves(0))
    log.append(some_moves(1))
    log.close()
    file = the_file(tmp_path)
    file.write_bytes(file.read_bytes()[:-1])

    heir = claimed(tmp_path)
    assert [moves.version for moves in heir.found] == [-1]
    heir.append(some_moves(7))
    heir.close()
    assert [moves.version for moves in claimed(tmp_path).found] == [-1, 6]


@pytest.mark.parametrize("steps", range(1, 14))
def test_the_last_steps_of_the_longest_game_are_kept_and_no_more_than_twice_as_many(
    tmp_path: Path, steps: int
) -> None:
    log = claimed(tmp_path, max_plies=4)
    for step in range(steps):
        log.append(some_moves(step))
    log.close()

    heir = claimed(tmp_path, max_plies=4)
    found = [moves.version + 1 for moves in heir.found]
    assert found == list(range(steps))[-len(found) :]
    assert min(4, steps) <= len(found) <= 8
    heir.append(some_moves(steps))
    heir.close()
    again = [moves.version + 1 for moves in claimed(tmp_path, max_plies=4).found]
    assert again == list(range(steps + 1))[-len(again) :]
    assert len(again) >= min(4, steps + 1)


def test_where_the_disk_refuses_a_step_nothing_is_gone_on_with_from_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = claimed(tmp_path, max_plies=2)
    for step in range(3):
        log.append(some_moves(step))
    write = os.pwrite

    def full(file: int, data: bytes, at: int) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data[:10], at)

    monkeypatch.setattr(game_log.os, "pwrite", full)
    log.append(some_moves(3, games=1))
    assert "No space left on device" in log.trouble
    monkeypatch.undo()
    log.append(some_moves(4))
    assert log.trouble == ""
    log.close()

    assert [moves.version for moves in claimed(tmp_path).found] == [3]


def test_games_over_which_processes_die_again_and_again_are_given_up(tmp_path: Path) -> None:
    log = claimed(tmp_path)
    log.append(some_moves(0))
    for _ in range(MOST_TRIES):
        log.close()
        log = claimed(tmp_path)
        assert len(log.found) == 1
    log.close()

    last = claimed(tmp_path)
    assert last.found == []
    last.append(some_moves(9))
    last.close()
    assert [moves.version for moves in claimed(tmp_path).found] == [8]


def test_a_step_that_succeeds_ends_the_count_of_tries(tmp_path: Path) -> None:
    for step in range(3 * MOST_TRIES):
        log = claimed(tmp_path)
        assert len(log.found) == step
        log.append(some_moves(step))
        log.close()


@pytest.fixture
def player_elsewhere(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has written down two steps and plays on."""
    program = (
        "import sys, time; from pathlib import Path; from tests.actors.test_game_log import claimed, some_moves;"
        "log = claimed(Path(sys.argv[1])); log.append(some_moves(0)); log.append(some_moves(1));"
        "print('plays', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"plays\n"
        yield process
        process.kill()


def test_the_games_of_a_process_are_free_the_moment_it_is_killed(
    tmp_path: Path, player_elsewhere: subprocess.Popen[bytes]
) -> None:
    mine = claimed(tmp_path)
    assert mine.found == []
    mine.remove()
    player_elsewhere.send_signal(signal.SIGKILL)
    player_elsewhere.wait(10)

    assert len(claimed(tmp_path).found) == 2


def test_of_a_damaged_log_nothing_is_gone_on_with(tmp_path: Path) -> None:
    log = claimed(tmp_path)
    for step in range(3):
        log.append(some_moves(step))
    log.close()
    file = the_file(tmp_path)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)

    heir = claimed(tmp_path)
    assert heir.found == []
    heir.append(some_moves(7))
    heir.close()
    assert [moves.version for moves in claimed(tmp_path).found] == [6]


@pytest.mark.parametrize("deletions", range(4))
def test_what_a_process_that_dies_while_it_deletes_leaves_is_a_log_or_nothing(
    tmp_path: Path, deletions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = claimed(tmp_path, max_plies=2)
    for step in range(4):
        log.append(some_moves(step))
    unlink, left = Path.unlink, [deletions]

    def dying(path: Path, **options: bool) -> None:
        if not left[0]:
            raise OSError(errno.EIO, "it dies here")
        left[0] -= 1
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", dying)
    log.remove()
    monkeypatch.undo()

    found = [moves.version for moves in claimed(tmp_path, max_plies=2).found]
    assert found == [-1, 0, 1, 2][2 * deletions :]


def test_a_file_that_a_process_died_over_is_deleted_with_those_before_the_last_two(tmp_path: Path) -> None:
    log = claimed(tmp_path, max_plies=1)
    for step in range(3):
        log.append(some_moves(step))
    log.close()
    (place,) = tmp_path.iterdir()
    (place / "3").touch()

    heir = claimed(tmp_path, max_plies=1)
    assert [moves.version for moves in heir.found] == [1]
    assert sorted(file.name for file in place.iterdir()) == ["2", "3", "lock"]


def test_where_no_file_can_be_locked_that_is_told_and_nothing_is_tried_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(game_log.fcntl, "flock", no_locks)
    with pytest.raises(OSError, match="No locks"):
        claimed(tmp_path)

    def another_has_it(*_: int) -> None:
        raise BlockingIOError

    monkeypatch.setattr(game_log.fcntl, "flock", another_has_it)
    with pytest.raises(OSError, match="others lock"):
        claimed(tmp_path)


def test_a_log_that_cannot_be_read_is_left_alone_and_its_lock_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = claimed(tmp_path)
    log.append(some_moves(0))
    log.close()

    def unreadable(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", unreadable)
    other = claimed(tmp_path)
    assert other.found == []
    monkeypatch.undo()
    assert len(claimed(tmp_path).found) == 1


def test_folders_are_the_owners_alone_and_one_that_others_can_write_to_is_refused() -> None:
    folder = folder_of("machine", "run")
    top = folder.parents[1]
    assert top.stat().st_mode & 0o777 == 0o700
    claimed(folder).close()
    remove_logs("machine", "run")
    assert list(top.iterdir()) == []

    top.chmod(0o770)
    with pytest.raises(PermissionError, match="not this user's alone"):
        folder_of("machine", "run")
    top.rmdir()
    elsewhere = top.parent / "elsewhere"
    claimed(elsewhere / "machine" / "run").close()
    top.symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="not this user's alone"):
        folder_of("machine", "run")
    remove_stale(older_than=-1.0)
    remove_logs("machine", "run")
    assert len(list((elsewhere / "machine" / "run").iterdir())) == 1


def test_stale_logs_are_deleted_and_those_in_use_or_fresh_are_not() -> None:
    old, used, fresh, new = (folder_of("machine", run) for run in ("old", "used", "fresh", "new"))
    claimed(old).close()
    in_use = claimed(used)
    claimed(fresh).close()
    for folder in (old, used, fresh):
        for path in (*folder.glob("*/*"), *folder.glob("*")):
            os.utime(path, (0, 0))
    next(fresh.glob("*/0")).touch()
    (new / "made but not locked").mkdir()

    remove_stale()

    assert not old.exists()
    assert [folder.exists() for folder in (used, fresh, new)] == [True] * 3
    in_use.remove()
    assert not used.exists()


def test_a_folder_that_who_left_last_has_deleted_is_made_again() -> None:
    folder = folder_of("machine", "run")
    claimed(folder).remove()
    assert not folder.exists()

    assert claimed(folder).found == []


def test_what_was_left_last_is_gone_on_with_first(tmp_path: Path) -> None:
    logs = [claimed(tmp_path) for _ in range(3)]
    for age, log in enumerate(logs):
        log.append(some_moves(age))
        for path in (log._place, *log._place.iterdir()):
            os.utime(path, (1000 - age, 1000 - age))
    for log in logs:
        log.close()

    assert [claimed(tmp_path).found[-1].version for _ in range(3)] == [-1, 0, 1]


def test_with_little_room_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = claimed(tmp_path, max_plies=2)
    log.append(some_moves(0))
    monkeypatch.setattr(game_log, "SPARE_BYTES", 1 << 62)
    log.append(some_moves(1))
    assert log.trouble == ""
    log.append(some_moves(2))
    assert "No space left" in log.trouble
    with pytest.raises(OSError, match="No space left"):
        claimed(tmp_path)
    log.close()

    assert claimed(tmp_path).found == []  # of what it had, so that it can be gone on with as an empty one
