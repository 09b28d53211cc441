import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.errors import DataError, UsageError
from core.seeds import derive_rng
from games.hex import Hex
from pipeline.contract import Stopped
from pipeline.positions import PositionsStep, Selection, Selector, cut_rows
from replay.shards import check_valid, load_info, pack_cells, read_shard, unpack_cells
from tests.pipeline.games_as_text import line_of, random_game, random_text, write_cleaned
from tests.pipeline.running_here import Here, Killed, context

Game = tuple[list[int], int]


def number_of(size: int, moves: list[int]) -> int:
    def digest(cells: list[int]) -> int:
        data = b"".join(cell.to_bytes(2, "little") for cell in cells)
        return int.from_bytes(
            hashlib.blake2b(data, digest_size=8, key=f"hex{size}".encode()).digest(), "little"
        )

    return min(digest(moves), digest([size * size - 1 - cell for cell in moves]))


def rows_by_the_rules(size: int, games: list[Game], selection: Selection) -> dict[str, np.ndarray]:
    """The same rows, one position at a time by the rules of hex: slow and plain."""
    hexes = Hex(size)
    states, row = hexes.new_states(1), np.zeros(1, np.int64)
    found = []
    for moves, winner in games:
        number = number_of(size, moves)
        plies = len(moves)
        chosen = {"all": range(plies + 1), "final": [plies], "penultimate": [plies - 1]}[selection.selector]
        hexes.new(states, row)
        for ply in range(plies + 1):
            for symmetry in range(1 + selection.symmetries):
                arrays, view = hexes.encode(states, row, np.array([symmetry]))
                to_move = int(hexes.to_play(states, row)[0])
                has_policy = selection.policy_from_ply <= ply < plies
                action = hexes.views[view[0], moves[ply]] if has_policy else -1
                outcome = winner if to_move == 0 else -winner
                if ply in chosen:
                    found.append((arrays["cells"][0], action, outcome, number, ply, plies))
            if ply < plies:
                hexes.play(states, row, np.array([moves[ply]]), row)
    cells = np.array([one[0] for one in found], np.int8).reshape(-1, size * size)
    columns = zip(
        ("action", "outcome", "game", "ply", "plies"),
        (np.int16, np.int8, np.uint64, np.int16, np.int16),
        strict=True,
    )
    return {"stones": pack_cells(cells)} | {
        name: np.array([one[k + 1] for one in found], dtype) for k, (name, dtype) in enumerate(columns)
    }


def cut(size: int, games: list[Game], selection: Selection = Selection()) -> dict[str, np.ndarray]:  # noqa: B008
    text = "".join(line_of(size, *game) for game in games).encode()
    return cut_rows(text, size, selection, source="a test")


@given(
    size=st.integers(3, 19),
    seed=st.integers(0, 2**32),
    count=st.integers(0, 4),
    selector=st.sampled_from(["all", "final", "penultimate"]),
    symmetries=st.booleans(),
    policy_from_ply=st.integers(0, 8),
)
@example(size=19, seed=0, count=3, selector="all", symmetries=True, policy_from_ply=2)
@settings(max_examples=60)
def test_rows_are_those_of_the_rules(
    size: int, seed: int, count: int, selector: Selector, symmetries: bool, policy_from_ply: int
) -> None:
    rng = derive_rng(seed, "games")
    games = [random_game(size, rng) for _ in range(count)]
    selection = Selection(selector=selector, symmetries=symmetries, policy_from_ply=policy_from_ply)
    rows, expected = cut(size, games, selection), rows_by_the_rules(size, games, selection)
    for name, column in expected.items():
        assert rows[name].dtype == column.dtype
        assert np.array_equal(rows[name], column), name
    assert check_valid(rows, size * size) == []


def test_a_game_of_m_moves_has_m_plus_one_rows_and_the_last_teaches_no_move() -> None:
    game = ([0, 4, 8], 0)
    assert cut(3, [game])["ply"].tolist() == [0, 1, 2, 3]
    assert cut(3, [game])["action"].tolist()[-1] == -1
    assert (cut(3, [game])["action"][:-1] >= 0).all()
    assert cut(3, [game], Selection(selector="final"))["ply"].tolist() == [3]
    assert cut(3, [game], Selection(selector="penultimate"))["ply"].tolist() == [2]
    assert cut(3, [([], 0)], Selection(selector="penultimate"))["ply"].tolist() == []


def test_blue_sees_the_board_as_it_lies_and_red_transposed() -> None:
    """By hand: b1 (cell 1) and a2 (cell 3) on 3×3, then c1."""
    rows = cut(3, [([1, 3, 2], 1)])
    cells = unpack_cells(rows["stones"], 9).reshape(-1, 3, 3).tolist()
    assert cells[1] == [[0, 0, 0], [-1, 0, 0], [0, 0, 0]]
    assert cells[2] == [[0, 1, 0], [-1, 0, 0], [0, 0, 0]]
    assert rows["action"].tolist() == [1, 1, 2, -1]  # a2, transposed, is where b1 is
    assert rows["outcome"].tolist() == [1, -1, 1, -1]


def test_an_unknown_winner_is_outcome_nought() -> None:
    assert not cut(3, [([0, 1], 0)])["outcome"].any()


def test_the_number_of_a_game_is_that_of_its_moves_whoever_won() -> None:
    one, other = cut(3, [([0, 1, 2], 1)])["game"], cut(3, [([0, 1, 2], -1)])["game"]
    assert one[0] == other[0] == number_of(3, [0, 1, 2])
    assert one[0] == cut(3, [([8, 7, 6], 1)])["game"][0]  # the same game, turned
    assert one[0] not in cut(3, [([0, 1], 1), ([0, 2, 1], 1)])["game"]


def test_four_symmetries_with_their_colour_swaps_are_two_rows() -> None:
    """Every position as it lies, turned, and mirrored in both diagonals with the colours exchanged."""
    size, rng = 6, derive_rng(3, "symmetries")
    views = Hex(size).views
    for _ in range(20):
        moves, winner = random_game(size, rng)
        rows = cut(size, [(moves, winner)], Selection(symmetries=True))
        board = np.zeros((size, size), np.int8)
        for ply in range(len(moves) + 1):
            target = np.zeros((size, size), bool)
            if ply < len(moves):
                target[np.divmod(moves[ply], size)] = True
            to_move, pairs = 1 - 2 * (ply % 2), set()
            for mirrored, seen in (
                (False, lambda a: a),
                (False, lambda a: a[::-1, ::-1]),
                (True, lambda a: a.T),
                (True, lambda a: a.T[::-1, ::-1]),
            ):
                colour = -1 if mirrored else 1
                image = (colour * seen(board), seen(target), colour * to_move, colour * winner)
                pairs.add(row_in_view(*image, views=views))
            ours = {
                (stones.tobytes(), int(action), int(outcome))
                for stones, action, outcome in zip(
                    rows["stones"][2 * ply : 2 * ply + 2],
                    rows["action"][2 * ply : 2 * ply + 2],
                    rows["outcome"][2 * ply : 2 * ply + 2],
                    strict=True,
                )
            }
            assert pairs == ours
            if ply < len(moves):
                board[np.divmod(moves[ply], size)] = to_move


def row_in_view(
    board: np.ndarray, target: np.ndarray, to_move: int, winner: int, *, views: np.ndarray
) -> tuple[bytes, int, int]:
    """What is shown of a position to `to_move` (1 blue, -1 red) and what is to be learnt."""
    view = views[0 if to_move == 1 else 2]
    shown, played = np.zeros(board.size, np.int8), np.zeros(board.size, bool)
    shown[view], played[view] = board.ravel() * to_move, target.ravel()
    action = int(played.argmax()) if played.any() else -1
    return pack_cells(shown[None])[0].tobytes(), action, winner * to_move


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("#5,a1b2\n", "does not begin with #4,"),
        ("", "does not begin with #4,"),
        ("#4\n", "does not begin with #4,"),
        ("#4,a1b\n", "no cell of a board of 4×4"),
        ("#4,a1e1 b\n", "no cell"),
        ("#4,a0\n", "no cell"),
        ("#4,a5\n", "no cell"),
        ("#4,a01\n", "no cell"),
        ("#4,A1\n", "no cell"),
        ("#4,a1swapb2\n", "no cell"),
        ("#4,a1\xe9\n", "no cell"),
        ("#4,a1b2a1 r\n", "taken twice"),
        ("#4,a1b2 x\n", "no winner"),
        ("#4,a1b2 b \n", "no winner"),
        ("#4,a1b2 \n", "no winner"),
        ("#4,a1b2\r\n", "no cell"),
    ],
)
def test_a_line_that_is_no_clean_game_is_named(line: str, problem: str) -> None:
    text = f"#4,a1 b\n#4,\n{line or chr(10)}#4,a2\n".encode("latin-1")
    with pytest.raises(DataError, match=rf"games\.trmph:3 cannot be read\n.*{problem}"):
        cut_rows(text, 4, Selection(), source="games.trmph")


def test_a_last_line_without_its_end_is_a_line() -> None:
    whole = cut_rows(b"#4,a1 b\n#4,d4\n", 4, Selection(), source="a test")
    short = cut_rows(b"#4,a1 b\n#4,d4", 4, Selection(), source="a test")
    assert all(np.array_equal(whole[name], short[name]) for name in whole)
    assert len(cut_rows(b"", 4, Selection(), source="a test")["game"]) == 0


def test_there_are_three_selectors() -> None:
    with pytest.raises(UsageError, match="all, final, penultimate"):
        Selection(selector="last")  # pyright: ignore[reportArgumentType]


@pytest.fixture
def cleaned(tmp_path: Path) -> Path:
    texts = {f"hex5_{k:03d}": random_text(10, seed=k) for k in range(3)}
    write_cleaned(tmp_path / "cleaned", texts | {"hex4_000": random_text(10, size=4)})
    return tmp_path / "cleaned"


def run(cleaned: Path, folder: Path, executor: Here | None = None, **kwargs) -> dict:
    folder.mkdir(exist_ok=True)
    return PositionsStep(Selection()).run({"preprocess": cleaned}, folder, context(executor, **kwargs))


def test_each_file_becomes_a_shard_that_names_it(cleaned: Path, tmp_path: Path) -> None:
    counts = run(cleaned, tmp_path / "rows")
    assert sorted(path.name for path in (tmp_path / "rows").glob("*.npz")) == [
        "hex4_000.npz",
        *(f"hex5_{k:03d}.npz" for k in range(3)),
    ]
    info = load_info(tmp_path / "rows" / "hex5_001.npz")
    assert (info.game, info.cells, info.sources) == ("hex5", 25, ("hex5_001.trmph",))
    assert counts["shards"] == 4
    assert counts["rows"] == sum(counts["rows_of"].values())
    expected = cut_rows(random_text(10, seed=1), 5, Selection(), source="a test")
    assert all(
        np.array_equal(column, expected[name])
        for name, column in read_shard(tmp_path / "rows" / "hex5_001.npz").items()
    )


@pytest.mark.parametrize("lives", range(4))
def test_a_killed_step_goes_on_and_cuts_nothing_twice(cleaned: Path, tmp_path: Path, lives: int) -> None:
    whole = run(cleaned, tmp_path / "whole")
    with pytest.raises(Killed):
        run(cleaned, tmp_path / "rows", Here(lives=lives))
    resumed = Here()
    assert run(cleaned, tmp_path / "rows", resumed) == whole
    assert len(resumed.ran) == 4 - lives
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "rows" / path.name).read_bytes()
    again = Here()
    assert run(cleaned, tmp_path / "rows", again) == whole
    assert again.ran == []


def test_a_step_stops_between_two_files(cleaned: Path, tmp_path: Path) -> None:
    executor = Here()
    with pytest.raises(Stopped):
        run(cleaned, tmp_path / "rows", executor, should_stop=lambda: len(executor.ran) >= 2)
    assert len(list((tmp_path / "rows").glob("*.npz"))) == 2


def test_games_other_than_those_that_were_cleaned_are_refused(cleaned: Path, tmp_path: Path) -> None:
    shutil.copytree(cleaned, tmp_path / "copy")
    file = sorted((tmp_path / "copy").glob("*.trmph"))[0]
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cannot be read\n.*the manifest says"):
        run(tmp_path / "copy", tmp_path / "rows")


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ("", "cannot be read"),
        ("{}", "cannot be read"),
        ('{"files": []}', "holds no games"),
        ('{"files": [{"name": "a", "game": "go", "digest": ""}]}', "no positions can be cut"),
        ('{"files": [{"name": "a", "game": "hex99", "digest": ""}]}', "no positions can be cut"),
    ],
)
def test_what_preprocess_did_not_write_is_refused(tmp_path: Path, manifest: str, problem: str) -> None:
    write_cleaned(tmp_path / "cleaned", {})
    (tmp_path / "cleaned" / "manifest.json").write_text(manifest)
    with pytest.raises(DataError, match=problem):
        run(tmp_path / "cleaned", tmp_path / "rows")
