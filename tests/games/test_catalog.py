import pytest

from core.errors import UsageError
from games.catalog import make_game
from games.connect_four import ConnectFour
from games.hex import Hex
from games.open_spiel import OpenSpielGame
from games.tic_tac_toe import TicTacToe


def test_each_kind_of_name_makes_its_game() -> None:
    assert isinstance(make_game("tic_tac_toe"), TicTacToe)
    assert isinstance(make_game("connect_four"), ConnectFour)
    assert isinstance(make_game("hex5"), Hex)
    assert isinstance(make_game("open_spiel:nim"), OpenSpielGame)


@pytest.mark.parametrize("size", range(3, 20))
def test_every_size_of_hex_can_be_had_with_and_without_swap(size: int) -> None:
    assert make_game(f"hex{size}").num_actions == size * size
    assert make_game(f"hex{size}-swap").num_actions == size * size + 1


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tictactoe", "did you mean tic_tac_toe"),
        ("connect4", "did you mean connect_four"),
        ("connect_four_5_4", "did you mean connect_four_5x4"),
        ("connect_four_05x4", "did you mean connect_four_5x4"),
        ("connect_four_7x6", "write connect_four"),
        ("Hex5", "did you mean hex5"),
        ("hex5swap", "did you mean hex5-swap"),
        ("hex05", "did you mean hex5"),
        ("hex5-swap\n", "did you mean hex5-swap"),
        ("go", "choose one of them"),
        ("", "choose one of them"),
        ("hex2", "choose one such as hex3"),
        ("hex20", "choose one such as hex19"),
        ("hex99-swap", "choose one such as hex19"),
    ],
)
def test_an_unknown_name_is_refused_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as refusal:
        make_game(name)
    assert hint in refusal.value.fix
