"""What a board net promises whatever the board: shapes, perspective, size tolerance, a calm start."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import NetworkConfig
from core.messages import BoardSpec
from networks.build import load_into, new_net, to_weights
from networks.tower import BoardNet

HEX5 = BoardSpec(5, 5, extra_actions=1, goal_edges=True)
HEX7 = BoardSpec(7, 7, extra_actions=1, goal_edges=True)
CONNECT_FOUR = BoardSpec(6, 7, policy="columns")
SMALL = NetworkConfig(blocks=3, channels=8)

boards = st.builds(
    BoardSpec,
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    policy=st.sampled_from(["cells", "columns"]),
    extra_actions=st.integers(0, 2),
    goal_edges=st.booleans(),
)


def random_cells(spec: BoardSpec, rows: int, *, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return {"cells": torch.from_numpy(rng.integers(-1, 2, (rows, spec.height * spec.width)).astype(np.int8))}


def evaluate(net: BoardNet, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        return net(inputs)


def awake(net: BoardNet) -> BoardNet:
    """Give every parameter that starts at zero a value, so that all branches take part."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net


@settings(max_examples=25)
@given(spec=boards, blocks=st.integers(1, 3), rows=st.integers(1, 4))
def test_outputs_are_what_the_board_asks_for(spec: BoardSpec, blocks: int, rows: int) -> None:
    net = new_net(spec, NetworkConfig(blocks=blocks, channels=4), seed=1)
    outputs = evaluate(net, random_cells(spec, rows))
    assert outputs["policy"].shape == (rows, spec.num_actions)
    assert outputs["value"].shape == (rows,)
    assert bool((outputs["value"].abs() <= 1).all())


@pytest.mark.parametrize("spec", [HEX5, CONNECT_FOUR])
def test_a_row_does_not_depend_on_the_rows_beside_it(spec: BoardSpec) -> None:
    net = awake(new_net(spec, SMALL, seed=1))
    inputs = random_cells(spec, 6)
    together = evaluate(net, inputs)
    alone = evaluate(net, {"cells": inputs["cells"][2:3]})
    torch.testing.assert_close(alone["policy"], together["policy"][2:3])
    torch.testing.assert_close(alone["value"], together["value"][2:3])


def test_no_parameter_knows_the_size_of_the_board() -> None:
    small, large = new_net(HEX5, SMALL, seed=1), new_net(HEX7, SMALL, seed=2)
    load_into(small, to_weights(large, model="m", version=3, game="hex7"))
    assert all(torch.equal(a, b) for a, b in zip(small.parameters(), large.parameters(), strict=True))
    assert small(random_cells(HEX5, 2))["policy"].shape == (2, 26)


def test_the_same_seed_gives_the_same_net_and_another_seed_another() -> None:
    digests = [
        to_weights(new_net(HEX5, SMALL, seed=s), model="m", version=0, game="g").digest for s in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_making_a_net_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    new_net(HEX5, SMALL, seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_an_untrained_net_has_hardly_an_opinion() -> None:
    net = new_net(HEX7, NetworkConfig(blocks=6, channels=32), seed=1)
    outputs = evaluate(net, random_cells(HEX7, 64))
    log_policy = torch.log_softmax(outputs["policy"], dim=1)
    assert float((log_policy + np.log(HEX7.num_actions)).abs().max()) < 1.0
    assert float(outputs["value"].abs().max()) < 0.5


def test_an_untrained_tower_is_the_identity_however_deep() -> None:
    net = new_net(HEX5, NetworkConfig(blocks=12, channels=8), seed=1)
    x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(1))
    y = x
    for block in net.blocks:
        y = block(y)
    assert torch.equal(x, y)


def test_every_parameter_learns_once_the_branches_are_awake() -> None:
    net = awake(new_net(HEX5, SMALL, seed=1))
    outputs = net(random_cells(HEX5, 8))
    (outputs["policy"].square().sum() + outputs["value"].sum()).backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_stone_far_away_is_known_after_two_blocks() -> None:
    spec = BoardSpec(15, 15)
    near_only = awake(new_net(spec, NetworkConfig(blocks=1, channels=8), seed=1))
    pooling = awake(new_net(spec, NetworkConfig(blocks=2, channels=8), seed=1))
    empty = torch.zeros(1, 225, dtype=torch.int8)
    corner = empty.clone()
    corner[0, 224] = 1

    def change_at_the_other_corner(net: BoardNet) -> float:
        there, absent = (evaluate(net, {"cells": cells})["policy"][0, 0] for cells in (corner, empty))
        return float((there - absent).abs())

    assert change_at_the_other_corner(near_only) == 0.0
    assert change_at_the_other_corner(pooling) > 0.0


def test_goal_edges_tell_the_sides_apart() -> None:
    """On an empty board nothing but the edges can make top and left differ."""
    net = awake(new_net(BoardSpec(5, 5, goal_edges=True), SMALL, seed=1))
    plain = awake(new_net(BoardSpec(5, 5), SMALL, seed=1))
    for block in [*net.blocks, *plain.blocks]:
        for conv in (block.first, block.second):
            conv.weight.data = conv.weight.data + conv.weight.data.transpose(2, 3)
    for tower in (net, plain):
        tower.stem.weight.data = tower.stem.weight.data + tower.stem.weight.data.transpose(2, 3)
    empty = {"cells": torch.zeros(1, 25, dtype=torch.int8)}
    with_edges = evaluate(net, empty)["policy"].view(5, 5)
    without = evaluate(plain, empty)["policy"].view(5, 5)
    torch.testing.assert_close(without, without.T)
    assert float((with_edges - with_edges.T).abs().max()) > 1e-3


def test_the_own_edges_are_top_and_bottom_and_the_others_left_and_right() -> None:
    net = new_net(BoardSpec(3, 4, goal_edges=True), SMALL, seed=1)
    ones = [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    own = [[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]]
    others = [[1, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 1]]
    assert net.edges.tolist() == [[ones, own, others]]


def test_own_stones_the_others_and_none_are_three_things() -> None:
    net = awake(new_net(BoardSpec(3, 3), SMALL, seed=1))
    cells = torch.tensor([[stone, 0, 0, 0, 0, 0, 0, 0, 0] for stone in (1, -1, 0)], dtype=torch.int8)
    own, other, none = evaluate(net, {"cells": cells})["value"].tolist()
    assert len({round(value, 4) for value in (own, other, none)}) == 3


def test_a_net_accepts_weights_of_its_own_board_and_shape_alone() -> None:
    net = new_net(HEX5, SMALL, seed=1)
    own = to_weights(net, model="m", version=0, game="hex5")
    larger = to_weights(new_net(HEX7, SMALL, seed=1), model="m", version=0, game="hex7")
    assert net.accepts(own)
    assert not net.accepts(larger)
