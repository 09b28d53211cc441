"""Real texts of each form, and what is wrong with others."""

import multiprocessing as mp

import pytest

from games.formats.reading import form_of, is_header, read_game
from games.formats.record import GameText, GameTextError, Reason, Word

B4, C3 = 16, 12  # on 5×5


@pytest.mark.parametrize(
    ("text", "form", "moves", "winner"),
    [
        ("#5,b4c3 b", "trmph", (B4, C3), 0),
        ("#5,b4c3 r", "trmph", (B4, C3), 1),
        ("#5,b4c3 1", "trmph", (B4, C3), 0),
        ("#5,b4c3\t2 ", "trmph", (B4, C3), 1),
        ("#5,b4c3", "trmph", (B4, C3), None),
        ("#5,", "trmph", (), None),
        ("#5,b4c3 b # a fine game", "trmph", (B4, C3), 0),
        ("#5,b4c3 # unfinished: 1,2", "trmph", (B4, C3), None),
        ("#5,b4swapc3 r", "trmph", (B4, Word.SWAP_PIECES, C3), 1),
        ("http://www.trmph.com/hex/board#5,b4c3 1", "trmph", (B4, C3), 0),
        ("https://trmph.com/hex/board#5,b4c3", "trmph", (B4, C3), None),
        ("https://hexworld.org/board/#5,b4c3", "hexworld", (B4, C3), None),
        ("hexworld.org/board/#5,b4,c3", "hexworld", (B4, C3), None),
        ("#5r9nc1,b4c3", "hexworld", (B4, C3), None),
        ("#5mn,b4,c3", "hexworld", (B4, C3), None),
        ("#5c1,b4:sc3:rw", "hexworld", (B4, Word.SWAP_PIECES, C3, Word.RED_RESIGNS), 0),
        ("#5,b4:Sc3:fb", "hexworld", (B4, Word.SWAP_SIDES, C3, Word.BLUE_FORFEITS), 1),
        ("#5,b4:pc3 b", "hexworld", (B4, Word.PASS, C3), 0),
        ("https://hexworld.org/board/#5", "hexworld", (), None),
        ("(;GM[11]SZ[5];B[b4];W[c3])", "sgf", (B4, C3), None),
        ("(;FF[4]GM[11]SZ[5]RE[W+Resign];B[B4];W[C3];B[resign])", "sgf", (B4, C3, Word.BLUE_RESIGNS), 1),
        ("(;GM[11]SZ[5];B[b4];W[swap-pieces];B[c3])", "sgf", (B4, Word.SWAP_PIECES, C3), None),
        ("(;GM[11]SZ[5];B[b4];W[Swap-Sides];W[c3])", "sgf", (B4, Word.SWAP_SIDES, C3), None),
        ("(;GM[11]SZ[5]C[a \\] in (a comment;]\n;B[b4]\n(;W[c3]C[\\\\])(;W[a1];B[a2]))\n", "sgf", (B4, C3), None),
    ],
)  # fmt: skip
def test_a_text_says(text: str, form: str, moves: tuple[int, ...], winner: int | None) -> None:
    assert form_of(text.strip()) == form
    assert read_game(text) == GameText(form, 5, 5, moves, winner)  # pyright: ignore[reportArgumentType]


def test_a_game_of_little_golem_is_read() -> None:
    # The second player resigned: RE[B] names the first, whose moves are called W.
    text = (
        "(;FF[4]EV[hex.mc.2010.oct.1.11]PB[one]PW[two]SZ[13]RE[B]GC[ game #1254910]"
        "SO[http://www.littlegolem.com];W[mf];B[swap];W[de];B[resign])"
    )
    moves = (5 * 13 + 12, Word.SWAP_PIECES, 4 * 13 + 3, Word.RED_RESIGNS)
    assert read_game(text) == GameText("sgf", 13, 13, moves, 0)


def test_boards_may_be_oblong_and_wide() -> None:
    assert read_game("#14x10,n10").moves == (9 * 14 + 13,)
    assert read_game("(;GM[11]SZ[14:10];B[n10])").moves == (9 * 14 + 13,)
    assert read_game("#30,aa1ad30 b").moves == (26, 29 * 30 + 29)


@pytest.mark.parametrize(
    ("text", "reason", "told"),
    [
        ("<<<<<<< HEAD", Reason.NOT_A_GAME, "neither"),
        ("=======", Reason.NOT_A_GAME, "neither"),
        ("b4c3", Reason.NOT_A_GAME, "neither"),
        ("#5 b4c3", Reason.NOT_A_GAME, "#SIZE,MOVES"),
        ("#5,b4 b b", Reason.NOT_A_GAME, "#SIZE,MOVES"),
        ("#5,b4c3 b #5,b4", Reason.NOT_A_GAME, "#SIZE,MOVES"),
        ("#5,b4c", Reason.NOT_A_GAME, "move 2 begins with 'c'"),
        ("#5,b4?c3", Reason.NOT_A_GAME, "move 2 begins with '?c3'"),
        ("#5,b04", Reason.NOT_A_GAME, "move 1 begins with 'b04'"),
        ("#5,B4", Reason.NOT_A_GAME, "move 1 begins with 'B4'"),
        ("#5,b4:x", Reason.NOT_A_GAME, "move 2 begins with ':x'"),
        ("#5q,b4", Reason.NOT_A_GAME, "#SIZE,MOVES"),
        ("#0,a1", Reason.BOARD_SIZE, "a side of 0"),
        ("#12345,a1", Reason.BOARD_SIZE, "1 to 999"),
        ("#5,a1f2", Reason.OFF_THE_BOARD, "move 2, f2, is not on a board of 5×5"),
        ("#5,a6", Reason.OFF_THE_BOARD, "move 1, a6"),
        ("#99,a1a100", Reason.OFF_THE_BOARD, "move 2, a100"),
        ("#5,swap3", Reason.NOT_A_GAME, "move 1 begins with 'swap3'"),
        (f"#5,{'a' * 200_000}", Reason.NOT_A_GAME, "move 1 begins with 'aaaaaaaaaaa…'"),
        (f"(;GM[11]{'C[' * 100_000}", Reason.NOT_A_GAME, "brackets"),
        ("#5,b4c3 w", Reason.UNKNOWN_WINNER, "'w'"),
        ("#5,b4c3 0", Reason.UNKNOWN_WINNER, "'0'"),
        ("#5,b4:rb b", Reason.WINNER_CONTRADICTED, "blue is told to have won and gave up at move 2"),
        ("(;GM[11]SZ[5]RE[W];B[b4];W[resign])", Reason.WINNER_CONTRADICTED, "red is told"),
        ("(;GM[11]SZ[5];B[b4:rb]", Reason.NOT_A_GAME, "brackets"),
        ("(;GM[11]SZ[5];B[b4]) junk", Reason.NOT_A_GAME, "'junk'"),
        ("(;GM[11]SZ[5];B[b4]))", Reason.NOT_A_GAME, "brackets"),
        ("(;GM[11]SZ[5];B[b4])(;GM[11];B[a1])", Reason.NOT_A_GAME, "brackets"),
        ("()", Reason.NOT_A_GAME, "brackets"),
        ("(;GM[1]SZ[5];B[bd])", Reason.NOT_A_GAME, "GM[1] is not hex"),
        ("(;GM[11]SZ[5]AB[a1];W[b4])", Reason.NOT_A_GAME, "AB sets stones up"),
        ("(;GM[11]SZ[x];B[b4])", Reason.BOARD_SIZE, "SZ[x]"),
        ("(;GM[11]SZ[5]RE[Draw];B[b4])", Reason.UNKNOWN_WINNER, "RE[Draw]"),
        ("(;GM[11]SZ[5];B[f1])", Reason.OFF_THE_BOARD, "'f1'"),
        ("(;GM[11]SZ[5];B[what])", Reason.OFF_THE_BOARD, "'what'"),
        ("(;SZ[5];W[af];B[aa])", Reason.OFF_THE_BOARD, "'af'"),
        ("(;GM[11]SZ[5];W[b4];B[c3])", Reason.WRONG_TURN, "move 1, W[b4]"),
        ("(;GM[11]SZ[5];B[b4];B[c3])", Reason.WRONG_TURN, "move 2, B[c3]"),
        ("(;GM[11]SZ[5];B[b4]W[c3])", Reason.WRONG_TURN, "move 1"),
        ("(;GM[11]SZ[5];B[b4];W[swap-sides];B[c3])", Reason.WRONG_TURN, "move 3"),
    ],
)
def test_what_is_wrong_is_told(text: str, reason: Reason, told: str) -> None:
    with pytest.raises(GameTextError) as caught:
        read_game(text)
    assert (caught.value.reason, told in caught.value.detail) == (reason, True), caught.value.detail


def test_a_long_text_is_shown_shortened() -> None:
    with pytest.raises(GameTextError) as caught:
        read_game("x" * 1000)
    assert len(caught.value.what) < 120


def test_headers_are_told_from_games() -> None:
    headers = ["# Model: x", "#", "# 10x10 games", "#!", "#a1,b2"]
    games = ["#5,a1", "#5", "#10x", "a1", "<<<"]
    assert [is_header(line) for line in headers + games] == [True] * 5 + [False] * 5


def _fail(text: str) -> None:
    read_game(text)


def test_an_error_travels_between_processes() -> None:
    with mp.get_context("spawn").Pool(1) as pool, pytest.raises(GameTextError) as caught:
        pool.apply(_fail, ("#5,b4c3 w",))
    assert (caught.value.reason, caught.value.text) == (Reason.UNKNOWN_WINNER, "#5,b4c3 w")
