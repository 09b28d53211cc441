"""Logs of hands: whatever the form and the meaning of a raise, a hand is read as it was played, or set aside."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError, UsageError
from poker import acpc
from poker.acpc import (
    STREETS,
    Action,
    Hand,
    HandError,
    LogReader,
    Move,
    Raises,
    Reason,
    SetAside,
    Terms,
    find_terms,
    read_hand,
)
from poker.cards import card_name, parse_cards
from tests.poker.seven_cards import strength

DATA = Path(__file__).resolve().parents[1] / "data"
SLICES = {
    "acpc_200bb_slice.log.gz": (Terms(Raises.BY, 50, 100), 500, 12, 10),
    "acpc_100bb_slice.log.gz": (Terms(Raises.BY, 1, 2), 400, 8, 5),
}
TERMS = Terms(Raises.BY, 50, 100)
LINE = "4:BR,Player:0r100c/cr200c/cc/cc:5dAs,2dJd|/JcQhQc/Kh/Qs:-400,400(70.623594)"
STATE = "STATE:4:r200c/cr400c/cc/cc:5dAs|2dJd/JcQhQc/Kh/Qs:-400|400:BR|Player"


def worth(text: str) -> tuple[int, ...]:
    return strength(parse_cards(text))


@st.composite
def hands(draw: st.DrawFn) -> Hand:
    """A hand with blinds 50/100 and stacks of 2,000, played by the rules."""
    deck = draw(st.permutations(range(52)))
    put_in, stack, folded = [100, 50], 2000, None
    streets: list[tuple[Action, ...]] = []
    while folded is None and len(streets) < len(STREETS):
        actions: list[Action] = []
        player = int(not streets)
        while min(put_in) < stack or put_in[0] != put_in[1]:
            highest = max(put_in)
            may = [Move.CALL]
            may += [Move.FOLD] if put_in[player] < highest else []
            may += [Move.RAISE] if highest < stack else []
            move = draw(st.sampled_from(may))
            if move is Move.RAISE:
                put_in[player] = draw(st.integers(highest + 1, stack))
            elif move is Move.CALL:
                put_in[player] = highest
            actions.append(Action(player, move, put_in[player]))
            if move is Move.FOLD:
                folded = player
            if move is Move.FOLD or (move is Move.CALL and len(actions) > 1):
                break
            player = 1 - player
        streets.append(tuple(actions))
    cards, board = (tuple(deck[:2]), tuple(deck[2:4])), tuple(deck[4 : 4 + (0, 3, 4, 5)[len(streets) - 1]])
    if folded is None:
        mine, his = strength((*cards[0], *board)), strength((*cards[1], *board))
        won = put_in[0] * ((mine > his) - (mine < his))
    else:
        won = put_in[1] if folded else -put_in[0]
    names = ("one", "the other")
    return Hand(draw(st.integers(0, 10**9)), names, (100, 50), tuple(streets), cards, board, (won, -won))


def written(hand: Hand, raises: Raises, *, state: bool) -> str:
    """The hand as a line, in the form of `STATE:` or the other."""
    highest, words = 100, []
    for street, actions in enumerate(hand.streets):
        base, word = (0 if street == 0 else highest), ""
        for action in actions:
            start = {Raises.BY: highest, Raises.ROUND: base, Raises.TOTAL: 0}[raises]
            word += f"r{action.total - start}" if action.move is Move.RAISE else action.move
            highest = max(highest, action.total)
        words.append(word)
    names = [card_name(card) for card in hand.board]
    dealt = ["".join(names[:3]), *names[3:]] if names else []
    board = "".join(f"/{each}" for each in dealt)
    mine, his = ("".join(map(card_name, cards)) for cards in hand.cards)
    betting, (won, lost), (one, other) = "/".join(words), hand.won, hand.names
    if state:
        return f"STATE:{hand.number}:{betting}:{mine}|{his}{board}:{won}|{lost}:{one}|{other}"
    return f"{hand.number}:{one},{other}:0{betting}:{mine},{his}|{board}:{won},{lost}(0.500000)"


@given(hands(), st.sampled_from(Raises), st.booleans())
def test_a_hand_is_read_as_it_was_played(hand: Hand, raises: Raises, state: bool) -> None:
    assert read_hand(written(hand, raises, state=state), replace(TERMS, raises=raises)) == hand


@given(hands(), st.data())
def test_a_line_that_is_altered_is_read_or_set_aside_and_nothing_else(
    hand: Hand, data: st.DataObject
) -> None:
    line = written(hand, Raises.BY, state=False)
    start = data.draw(st.integers(0, len(line)))
    stop = data.draw(st.integers(start, min(len(line), start + 3)))
    text = line[:start] + data.draw(st.text("0123456789:/|,rfcAKs()-x٣", max_size=4)) + line[stop:]
    try:
        read = read_hand(text, TERMS)
    except HandError:
        return
    assert sum(read.won) == 0
    assert max(map(abs, read.won)) <= max(action.total for each in read.streets for action in each)


@pytest.mark.parametrize("name", SLICES)
def test_every_hand_of_a_real_log_comes_out_as_the_log_says(name: str) -> None:
    terms, number, headers, statistics = SLICES[name]
    reader = LogReader(str(DATA / name), find_terms(str(DATA / name)))
    read = list(reader)

    assert find_terms(str(DATA / name)) == terms
    assert len(read) == number
    assert all(isinstance(hand, Hand) for hand in read)
    assert (reader.header_lines, reader.statistics_lines) == (headers, statistics)
    assert reader.lines_passed == number + headers + statistics
    assert reader.bytes_passed == (DATA / name).stat().st_size


@pytest.mark.parametrize("name", SLICES)
@pytest.mark.parametrize("raises", [Raises.ROUND, Raises.TOTAL])
def test_read_otherwise_half_the_hands_of_a_real_log_do_not_come_out(name: str, raises: Raises) -> None:
    read = list(LogReader(str(DATA / name), replace(SLICES[name][0], raises=raises)))

    assert sum(isinstance(found, Hand) for found in read) < 0.6 * len(read)
    with pytest.raises(DataError, match="cannot be followed"):
        find_terms(str(DATA / name), raises=raises)


@pytest.mark.parametrize("raises", Raises)
def test_the_meaning_of_raises_is_found(raises: Raises, tmp_path: Path) -> None:
    name = "acpc_200bb_slice.log.gz"
    log = tmp_path / "other.log"
    hands = [hand for hand in LogReader(str(DATA / name), TERMS) if isinstance(hand, Hand)]
    log.write_text("".join(f"{written(hand, raises, state=True)}\n" for hand in hands))

    assert find_terms(str(log)) == replace(TERMS, raises=raises)
    assert list(LogReader(str(log), replace(TERMS, raises=raises))) == hands


def test_one_hand_in_both_forms() -> None:
    hand = read_hand(LINE, TERMS)

    assert hand == read_hand(STATE, replace(TERMS, raises=Raises.TOTAL))
    assert hand.names == ("BR", "Player")
    assert hand.streets[1] == (
        Action(0, Move.CALL, 200),
        Action(1, Move.RAISE, 400),
        Action(0, Move.CALL, 400),
    )
    assert hand.board == parse_cards("JcQhQcKhQs")
    assert hand.won == (-400, 400)


@pytest.mark.parametrize(
    ("altered", "reason", "detail"),
    [
        (LINE[:40], Reason.NOT_A_HAND, "neither"),
        (LINE.replace(":0r", ":r"), Reason.NOT_A_HAND, "neither"),
        (LINE.replace("5dAs", "5dAx"), Reason.BAD_CARDS, "'Ax'"),
        (LINE.replace("5dAs", "QsAs"), Reason.BAD_CARDS, "Qs is twice"),
        (LINE.replace("/Kh", ""), Reason.BAD_CARDS, "4 streets"),
        (LINE.replace("5dAs", "5d"), Reason.BAD_CARDS, "two cards each"),
        (LINE.replace("/cc/cc:", "/cc:"), Reason.BAD_BETTING, "ends on the turn without a fold"),
        (LINE.replace("/cc/cc:", "/cc/cc/cc:"), Reason.BAD_BETTING, "goes on after its end, with 'cc'"),
        (LINE.replace("/cc/cc:", "/cc/c:"), Reason.BAD_BETTING, "still to move after 'c'"),
        (LINE.replace("/cc/cc:", "/cc/ccc:"), Reason.BAD_BETTING, "'ccc' goes on"),
        (LINE.replace("/cc/cc:", "/f/cc:"), Reason.BAD_BETTING, "nothing to call"),
        (LINE.replace("/cc/cc:", "/r9f/cc:"), Reason.BAD_BETTING, "goes on after its end"),
        (LINE.replace("/cc/cc:", "/cc/:"), Reason.BAD_BETTING, "still to move after ''"),
        (LINE.replace("/cc/cc:", "//cc:"), Reason.BAD_BETTING, "both were all-in"),
        (LINE.replace("r200", "r0"), Reason.BAD_BETTING, "no raise over 200"),
        (LINE.replace("r200", "b200"), Reason.BAD_BETTING, "'cb200c'"),
        (LINE.replace("r200", "r300"), Reason.WRONG_RESULT, "-500,500, the line says -400,400"),
        (LINE.replace("-400,400", "400,-400"), Reason.WRONG_RESULT, "-400,400, the line says 400,-400"),
        (LINE.replace("-400,400", "-400,500"), Reason.WRONG_RESULT, "-400,500"),
    ],
)
def test_a_line_that_cannot_be_is_refused_with_the_reason(altered: str, reason: Reason, detail: str) -> None:
    with pytest.raises(HandError, match=re.escape(detail)) as refused:
        read_hand(altered, TERMS)
    assert refused.value.reason is reason


def test_lines_are_counted_by_kind_and_broken_ones_are_set_aside_with_their_number(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    lines = ["# a comment", "Using seed 7.", LINE, "", LINE[:40], "RESULTS", "1)BR: -5", "SCORE:1|-1:a|b"]
    long = b"x" * (2 * acpc.LONGEST_LINE_BYTES + 5)
    log.write_bytes("\n".join(lines).encode() + b"\n\xff\n" + long + b"\n" + LINE.encode())
    reader = LogReader(str(log), TERMS)
    read = list(reader)

    assert [found for found in read if isinstance(found, Hand)] == [read_hand(LINE, TERMS)] * 2
    aside = [(found.line, found.reason) for found in read if isinstance(found, SetAside)]
    assert aside == [(5, Reason.NOT_A_HAND), (9, Reason.NOT_TEXT), (10, Reason.TOO_LONG)]
    assert all(len(found.text) <= 100 for found in read if isinstance(found, SetAside))
    assert (reader.lines_passed, reader.header_lines, reader.statistics_lines) == (11, 2, 3)


def test_of_a_file_cut_short_what_is_there_is_read(tmp_path: Path) -> None:
    cut = tmp_path / "cut.log.gz"
    cut.write_bytes((DATA / "acpc_200bb_slice.log.gz").read_bytes()[:6000])
    *read, last = LogReader(str(cut), find_terms(str(cut)))

    assert len(read) > 100
    assert all(isinstance(hand, Hand) for hand in read[:-1])
    assert isinstance(last, SetAside)
    assert (last.line, last.reason) == (0, Reason.CUT_SHORT)


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", Reason.EMPTY), (b"\x1f\x8bnothing packed", Reason.UNREADABLE)]
)
def test_a_file_that_holds_nothing_is_told(data: bytes, reason: Reason, tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    file.write_bytes(data)
    (only,) = LogReader(str(file), TERMS)

    assert isinstance(only, SetAside)
    assert (only.line, only.reason) == (0, reason)
    with pytest.raises(DataError, match="not one hand"):
        find_terms(str(file))


def test_terms_that_the_results_do_not_tell_must_be_said(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    folds = ["1:a,b:0f:3c7d,2h8d|:50,-50", "2:a,b:0r300f:3c7d,2h8d|:-100,100"]
    log.write_text("\n".join(folds[:1]))
    with pytest.raises(UsageError, match="a fold to the first raise"):
        find_terms(str(log))
    log.write_text("\n".join(folds[1:]))
    with pytest.raises(UsageError, match="a fold at once"):
        find_terms(str(log))
    log.write_text("3:a,b:0cr200f:3c7d,2h8d|:100,-100\n" + "\n".join(folds))
    with pytest.raises(UsageError, match="cannot be told what a raise"):
        find_terms(str(log))
    assert find_terms(str(log), raises=Raises.BY) == TERMS
    with pytest.raises(DataError, match="blinds of 10/20"):
        find_terms(str(log), blinds=(10, 20))


def test_strengths_are_in_the_order_of_poker() -> None:
    ordered = [
        "2c3d5h7s9cJdKh",  # king high
        "2c3d5h7s9cJdAh",
        "2c2d5h7s9cJdAh",  # a pair
        "AcAd5h7s9cJd2h",
        "2c2d3h3s9cJdAh",  # two pair
        "2c2d3h3sKcKdAh",  # of three pairs the best two, and the ace
        "2c2d2h7s9cJdAh",  # three
        "Ac2d3h4s5cJdKh",  # a straight from the ace
        "2d3h4s5c6cJdKh",
        "TcJdQhKsAc2d3h",
        "2c4c7c9cJc3dAh",  # a flush
        "2c4c7c9cAc9d7h",  # whose pairs count for nothing
        "2c2d2h3s3c9dAh",  # a full house
        "2c3d3h3sAcAd2h",  # of three and two pairs, the better pair
        "3c3d3hAsAcAd2h",
        "2c2d2h2s9cJdAh",  # four
        "AcKc2c3c4c5c9d",  # a straight flush from the ace: five high
        "2c3c4c5c6cAdKd",
        "TsJsQsKsAs2d3h",
    ]
    for weaker, stronger in itertools.pairwise(ordered):
        assert worth(weaker) < worth(stronger), (weaker, stronger)
    assert worth("7dTs2c4cAc7c5c") == worth("5s6d2c4cAc7c5c")
