"""Connect four on boards of all sizes: against rules written plainly, and against what is known of small ones."""

from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError, UsageError
from core.messages import BoardSpec
from games.catalog import make_game
from games.connect_four import ConnectFour

SIZES = [(width, height) for width in range(4, 10) for height in range(4, 10) if width * height <= 64]
ONE = np.zeros(1, np.int32)

every_size = pytest.mark.parametrize(("width", "height"), SIZES, ids=str)


class PlainBoard:
    """The rules once more, slowly: columns are lists of players, from the bottom up."""

    def __init__(self, width: int, height: int) -> None:
        self.height = height
        self.columns: list[list[int]] = [[] for _ in range(width)]
        self.result: int | None = None  # who won; 2 is a draw

    def drop(self, column: int, player: int) -> None:
        self.columns[column].append(player)
        if self._four_of(player):
            self.result = player
        elif all(len(each) == self.height for each in self.columns):
            self.result = 2

    def take_back(self, column: int) -> None:
        self.columns[column].pop()
        self.result = None

    def open_columns(self) -> list[bool]:
        return [self.result is None and len(column) < self.height for column in self.columns]

    def cells(self) -> list[int]:
        """From the top left: 1 for player 0, -1 for player 1, 0 for none."""
        return [
            1 - 2 * column[line] if line < len(column) else 0
            for line in reversed(range(self.height))
            for column in self.columns
        ]

    def _four_of(self, player: int) -> bool:
        stones = {
            (x, y) for x, each in enumerate(self.columns) for y, owner in enumerate(each) if owner == player
        }
        return any(
            all((x + k * right, y + k * up) in stones for k in range(4))
            for x, y in stones
            for right, up in ((1, 0), (0, 1), (1, 1), (1, -1))
        )


@given(data=st.data(), size=st.sampled_from(SIZES))
def test_a_game_goes_as_by_the_plain_rules(data: st.DataObject, size: tuple[int, int]) -> None:
    game, plain = ConnectFour(*size), PlainBoard(*size)
    states = game.new_states(1)
    game.new(states, ONE)
    for ply in count():
        legal = game.legal(states, ONE)[0]
        assert legal.tolist() == plain.open_columns()
        assert (states.cells[0, : game.max_plies] == plain.cells()).all()
        terminal, values = game.outcome(states, ONE)
        assert terminal[0] == (plain.result is not None)
        # The value is for the player to move; only who moved last can have won.
        assert values[0] == (-1 if plain.result == (ply + 1) % 2 else 0)
        if terminal[0]:
            return
        column = data.draw(st.sampled_from(np.flatnonzero(legal).tolist()))
        game.play(states, ONE, np.array([column], np.int16), ONE)
        plain.drop(column, ply % 2)


@every_size
def test_its_name_makes_it_again_and_nothing_else_of_its_size_does(width: int, height: int) -> None:
    game = ConnectFour(width, height)
    again = make_game(game.name)
    assert isinstance(again, ConnectFour)
    assert (again.width, again.height, again.name) == (width, height, game.name)
    assert game.board == BoardSpec(height=height, width=width, policy="columns")
    assert game.name == ("connect_four" if (width, height) == (7, 6) else f"connect_four_{width}x{height}")


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("connect_four_7x6", "write connect_four"),
        ("connect_four_3x4", "choose one such as connect_four_4x4"),
        ("connect_four_5x3", "choose one such as connect_four_5x4"),
        ("connect_four_10x4", "choose one such as connect_four_9x4"),
        ("connect_four_9x8", "choose one such as connect_four_9x7"),
        ("connect_four_8x99", "choose one such as connect_four_8x8"),
        ("connect_four_99x99", "choose one such as connect_four_9x7"),
        ("connect_four_7x1", "choose one such as connect_four_7x4"),
    ],
)
def test_a_size_that_is_not_played_is_refused_with_one_that_is(name: str, fix: str) -> None:
    with pytest.raises(UsageError) as refusal:
        make_game(name)
    assert refusal.value.fix == fix
    make_game(fix.rsplit(maxsplit=1)[-1])


def unlike_positions(game: ConnectFour) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """All positions that can be reached, ply by ply: cells int8 [P, C], children int64 [P, W] (-1: none), results.

    A position with as many stones on each side has player 0 to move, so cells and plies are all of it.
    """
    cells = game.max_plies
    powers = 3 ** np.arange(cells, dtype=np.uint64)
    boards, children, results = [np.zeros((1, cells), np.int8)], [], [np.zeros(1, np.int8)]
    for ply in range(cells):
        parents = np.arange(len(boards[-1]), dtype=np.int32)
        states = game.new_states(2 * parents.size)
        states.cells[: parents.size, :cells] = boards[-1]
        states.results[: parents.size] = results[-1]
        states.plies[: parents.size] = ply
        legal = game.legal(states, parents)
        found, numbers, ends = [], [], []
        for column in range(game.width):
            able = parents[legal[:, column]]
            game.play(states, able, np.full(able.size, column, np.int16), able + parents.size)
            found.append(states.cells[able + parents.size, :cells])
            ends.append(states.results[able + parents.size])
            numbers.append((found[-1] + 1).astype(np.uint64) @ powers)
        _, first, which = np.unique(np.concatenate(numbers), return_index=True, return_inverse=True)
        after = np.full((parents.size, game.width), -1)
        after.T[legal.T] = which
        children.append(after)
        boards.append(np.concatenate(found)[first])
        results.append(np.concatenate(ends)[first])
    return boards, children, results


@pytest.mark.parametrize(
    ("width", "height", "positions"),
    [(4, 4, 161_029), (4, 5, 1_706_255), (5, 4, 3_945_711)],
    ids=["4x4", "4x5", "5x4"],
)
def test_a_small_board_has_as_many_positions_as_is_known_and_is_a_draw(
    width: int, height: int, positions: int
) -> None:
    """Both from John Tromp's "Connect Four Playground": https://tromp.github.io/c4/c4.html."""
    boards, children, results = unlike_positions(ConnectFour(width, height))
    values = np.zeros(0)
    for after, result in zip(reversed([*children, None]), reversed(results), strict=True):
        best = np.where(result == 1, -1.0, 0.0)
        if after is not None:
            moves = np.where(after < 0, -np.inf, -np.append(values, 0)[after])
            best = np.where(result == 0, moves.max(axis=1), best)
        values = best
    assert sum(map(len, boards)) == positions
    assert values.tolist() == [0]


def count_lines(board: PlainBoard, ply: int, counts: list[int]) -> None:
    """Add the lines that go on from a board to `counts`, one number a ply."""
    counts[ply] += 1
    if ply + 1 < len(counts):
        for column in np.flatnonzero(board.open_columns()).tolist():
            board.drop(column, ply % 2)
            count_lines(board, ply + 1, counts)
            board.take_back(column)


def test_as_many_lines_of_play_lead_to_each_ply_as_by_the_plain_rules() -> None:
    game, plies = ConnectFour(4, 4), 8  # the first lines that end do so at ply 7
    counts, plain = [1], [0] * (plies + 1)
    states, rows = game.new_states(1), ONE
    game.new(states, rows)
    for _ in range(plies):
        parents, columns = np.nonzero(game.legal(states, rows))
        after, rows = game.new_states(parents.size), np.arange(parents.size, dtype=np.int32)
        for row, parent in enumerate(parents.tolist()):
            game.restore(after, row, game.snapshot(states, parent))
        game.play(after, rows, columns.astype(np.int16), rows)
        states = after
        counts.append(rows.size)
    count_lines(PlainBoard(4, 4), 0, plain)
    assert counts == plain


def test_a_board_is_drawn_and_written_in_its_size() -> None:
    game = ConnectFour(5, 4)
    states = game.new_states(1)
    game.new(states, ONE)
    for move in "3351":
        game.play(states, ONE, np.array([game.parse_action(move)], np.int16), ONE)
    assert game.render(states, 0).splitlines() == [
        "│ · · · · · │",
        "│ · · · · · │",
        "│ · · ○ · · │",
        "│ ○ · ● · ● │",
        "└───────────┘",
        "  1 2 3 4 5",
    ]
    assert game.game_line([2, 2, 4, 0], 0.0) == "connect_four_5x4,3351 draw"
    with pytest.raises(UsageError, match="'6' is not a move of connect_four_5x4"):
        game.parse_action("6")


def test_a_snapshot_of_another_size_with_as_many_cells_is_refused() -> None:
    wide, high = ConnectFour(5, 4), ConnectFour(4, 5)
    states = wide.new_states(1)
    wide.new(states, ONE)
    with pytest.raises(DataError, match="not one of connect_four_4x5"):
        high.restore(high.new_states(1), 0, wide.snapshot(states, 0))
