"""Trees of subgames are those of betting, in units of the pot, and pots whose trees look alike have one form."""

from typing import get_args

import pytest

from core.errors import UsageError
from core.hands import STREETS, Street
from poker.betting import Betting, last_round, one_round, two_rounds
from poker.program import compile_tree
from poker.subgames import Subgame, street_after
from poker.tree import Chance, Decision, Fold, Leaf, Node, Showdown, nodes, scaled

STACK = 20_000.0
BETTING = Betting(STACK, (0.5, 1.0))


def shape(tree: Node) -> object:
    """Return what is left of a tree without its stakes and words."""
    match tree:
        case Fold(winner):
            return "fold", winner
        case Showdown(board=board):
            return "show", board
        case Leaf():
            return "leaf"
        case Decision(player, actions):
            return player, *(shape(child) for _, child in actions)
        case Chance(deals, cards):
            return cards, *((board, shape(child)) for board, child in deals)


def close(one: Node, other: Node) -> bool:
    """Whether trees have the same nodes, and stakes that differ by nothing but rounding."""
    ends = [
        [node.stake for node in nodes(tree) if isinstance(node, Fold | Showdown | Leaf)]
        for tree in (one, other)
    ]
    return shape(one) == shape(other) and ends[0] == pytest.approx(ends[1], rel=1e-12)


@pytest.mark.parametrize("pot_half", [1500, 4000, 15_000])
def test_trees_are_those_of_chips_in_units_of_the_pot(pot_half: int) -> None:
    wanted = {
        ("river", True): last_round(BETTING, pot_half),
        ("turn", True): two_rounds(BETTING, pot_half, boards=48),
        ("turn", False): one_round(BETTING, pot_half),
        ("flop", False): one_round(BETTING, pot_half),
    }
    for (street, to_the_end), tree in wanted.items():
        subgame = Subgame(street, BETTING, to_the_end=to_the_end)  # pyright: ignore
        assert subgame.tree_in_chips(pot_half) == tree
        assert close(scaled(subgame.tree(pot_half), pot_half), tree)


def test_a_street_that_ends_in_leaves_is_the_last_one_but_for_its_ends() -> None:
    ends = Subgame("turn", BETTING, to_the_end=False).tree(1500)
    last = Subgame("river", BETTING).tree(1500)

    def shown(node: Node) -> Node:
        match node:
            case Leaf(stake):
                return Showdown(stake)
            case Decision(player, actions):
                return Decision(player, tuple((word, shown(child)) for word, child in actions))
        return node

    assert shown(ends) == last
    assert any(isinstance(node, Leaf) for node in nodes(ends))
    assert not any(isinstance(node, Showdown | Chance) for node in nodes(ends))


@pytest.mark.parametrize(
    "subgame",
    [
        Subgame("river", BETTING),
        Subgame("flop", BETTING, to_the_end=False),
        Subgame("turn", Betting(STACK, (1.0,))),
        Subgame("turn", Betting(STACK, (1.0,), (0.5,))),
        Subgame("turn", Betting(STACK, (0.5, 1.0), (2.0,))),
    ],
    ids=["river", "flop", "turn", "turn with other sizes", "turn with fewer sizes"],
)
def test_forms_are_equal_where_trees_look_alike_and_nowhere_else(subgame: Subgame) -> None:
    pots = [*range(3000, 20_000, 1130), 3001, 6660, 6666, 6667, 6668, 19_950]
    shapes = {pot: shape(subgame.tree(pot)) for pot in pots}
    forms = {pot: subgame.form(pot) for pot in pots}
    for one in pots:
        for other in pots:
            assert (forms[one] == forms[other]) == (shapes[one] == shapes[other])
    assert 1 < len(set(forms.values())) < len(pots)


def test_a_pot_bet_is_all_in_from_a_third_of_the_stack_on() -> None:
    river = Subgame("river", Betting(STACK, (1.0,)))
    assert river.form(6667) == river.form(19_000) != river.form(6666)
    # Of a turn a third of that counts too, for a pot bet there is called, and another comes on the river.
    turn = Subgame("turn", Betting(STACK, (1.0,)))
    assert len({turn.form(pot) for pot in (2222, 2223, 6666, 6667)}) == 3


def test_later_sizes_are_those_of_the_river() -> None:
    plain = Subgame("turn", Betting(STACK, (1.0,))).tree(2000)
    same = Subgame("turn", Betting(STACK, (1.0,), (1.0,))).tree(2000)
    other = Subgame("turn", Betting(STACK, (1.0,), (0.5, 2.0))).tree(2000)
    assert same == plain != other

    def words(node: Node) -> list[str]:
        assert isinstance(node, Decision)
        return [word for word, _ in node.actions]

    assert words(other) == words(plain)
    chances = [[node for node in nodes(tree) if isinstance(node, Chance)] for tree in (plain, other)]
    assert len(chances[0]) == len(chances[1])
    checked = [found[0].deals[7][1] for found in chances]
    assert [len(words(node)) for node in checked] == [3, 4]
    assert words(checked[1]) == words(last_round(Betting(10.0, (0.5, 2.0)), 1.0))
    assert compile_tree(plain).actions < compile_tree(other).actions
    river, alike = (
        Subgame("river", Betting(STACK, (1.0,), later)).tree(2000) for later in (None, (0.5, 2.0))
    )
    assert river == alike


def test_trees_that_are_too_large_are_refused() -> None:
    with pytest.raises(UsageError, match="too large a tree"):
        Subgame("turn", Betting(STACK, (0.2, 0.3, 0.5))).tree(100)


def test_streets_follow_each_other() -> None:
    street: Street | None = "preflop_end"
    found: list[Street] = []
    while street is not None:
        found.append(street)
        street = street_after(street)
    assert found == list(STREETS[::-1]) == list(get_args(Street)[::-1])
    assert found == ["preflop_end", "flop", "flop_end", "turn", "turn_end", "river"]
