"""What an actor tells of its groups."""

from types import SimpleNamespace
from typing import Any

from actors.worker import TimeSpent
from cluster.run.parts import Player, first_requests
from cluster.run.workloads import Cast
from core.messages import ArraySpec
from games.catalog import make_game
from tests.cluster.tiny import tiny_config


def a_group() -> Any:
    return SimpleNamespace(moves=0, set_aside=0, set_aside_cause="", in_play=8)


def test_the_newest_cause_is_told_whichever_group_it_came_from() -> None:
    groups: list[Any] = [a_group(), a_group()]
    harvest: Any = SimpleNamespace(games=0, plies=0)
    worker: Any = SimpleNamespace(spent=TimeSpent(), undelivered_games=3)
    player = Player(worker, Cast(tuple(groups), harvest))
    told = [player.stats()["set_aside_cause"]]
    for group, cause in ((0, "it is away"), (1, "it is full"), (0, "it is away again")):
        groups[group].set_aside += 8
        groups[group].set_aside_cause = cause
        told += [player.stats()["set_aside_cause"] for _ in range(2)]

    assert told == ["", *["it is away"] * 2, *["it is full"] * 2, *["it is away again"] * 2]
    assert player.stats()["set_aside"] == 24
    assert player.stats()["games_at_stake"] == 2 * 8 + 3


def test_the_first_requests_grow_to_the_largest_batch_and_fit_the_model() -> None:
    (spec,) = make_game("tic_tac_toe").board.inputs
    for most, sizes in ((1, [1]), (64, [1, 4, 16, 64]), (100, [1, 4, 16, 64, 100])):
        requests = list(first_requests(tiny_config(inference__max_batch_rows=most)))

        assert [request.num_rows for request in requests] == sizes
        assert {request.model for request in requests} == {"main"}
        assert isinstance(spec, ArraySpec)
        assert [spec.mismatch(request.arrays[spec.name]) for request in requests] == [None] * len(sizes)
