"""Blocks of games in files of a thousand chunks."""

from pathlib import Path

import pytest

from games.tic_tac_toe import TicTacToe
from replay import game_texts
from replay.experience import BoardExperience
from replay.game_texts import GameTexts
from tests.replay.experience import a_chunk


def texts(folder: Path) -> GameTexts:
    return GameTexts(folder, BoardExperience(TicTacToe()))


def test_a_file_takes_its_share_of_the_chunks_and_the_next_one_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(game_texts, "CHUNKS_PER_FILE", 2)
    written = texts(tmp_path)
    for number in range(5):
        written.append(number, a_chunk([2 * number, 2 * number + 1]))
    names = ["00000000.txt", "00000002.txt", "00000004.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    again = texts(tmp_path)
    assert [again.has(number) for number in range(6)] == [True] * 5 + [False]
    assert again.next_number() == 5


def test_a_block_cut_short_at_any_byte_is_cut_off_and_the_one_before_it_stays(tmp_path: Path) -> None:
    written = texts(tmp_path)
    written.append(0, a_chunk([0, 1]))
    (file,) = tmp_path.iterdir()
    first = file.read_bytes()
    written.append(1, a_chunk([2, 3]))
    both = file.read_bytes()
    for length in range(len(first), len(both)):
        file.write_bytes(both[:length])
        again = texts(tmp_path)
        assert (again.has(0), again.has(1), again.next_number()) == (True, False, 1)
        again.append(1, a_chunk([2, 3]))
        assert file.read_bytes() == both


def test_a_first_block_cut_short_is_cut_off(tmp_path: Path) -> None:
    texts(tmp_path).append(7, a_chunk([0, 1]))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    again = texts(tmp_path)
    assert not again.has(7)
    assert file.read_bytes() == b""


def test_lines_that_are_no_block_stay(tmp_path: Path) -> None:
    file = tmp_path / "00000000.txt"
    file.write_text("written by hand\nhalf a l")
    written = texts(tmp_path)
    written.append(0, a_chunk([0]))
    assert file.read_text().startswith("written by hand\n# chunk 0: 1 games\n")
