"""The fast forward says what the net says, for any board, number of rows and channels."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import NetworkConfig
from core.environments import ActionSpec, EnvironmentSpec
from core.messages import BoardSpec
from networks.build import new_net
from networks.tower import BoardNet
from networks.winograd import WinogradForward, fastest_forward
from networks.winograd_kernels import Tiling
from networks.winograd_points import POINTS, Matrix, filter_transform, input_transform, output_transform

small_integers = st.integers(-9, 9)
boards = st.builds(
    BoardSpec,
    height=st.integers(1, 13),
    width=st.integers(1, 13),
    policy=st.sampled_from(["cells", "columns"]),
    extra_actions=st.integers(0, 2),
    goal_edges=st.booleans(),
)


def an_awake_net(spec: BoardSpec, *, blocks: int, channels: int, soft_policy: bool = False) -> BoardNet:
    """Return a net none of whose parameters is zero, its activations about as large as a trained one's."""
    net = new_net(spec, NetworkConfig(blocks=blocks, channels=channels, soft_policy=soft_policy), seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return net


def random_cells(spec: BoardSpec, rows: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    cells = torch.randint(-1, 2, (rows, spec.height * spec.width), generator=generator)
    return {"cells": cells.to(torch.int8)}


def times(matrix: Matrix, vector: list[Fraction]) -> list[Fraction]:
    return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]


@given(data=st.data(), size=st.sampled_from(sorted(POINTS)))
def test_the_three_transforms_are_a_convolution_to_the_last_digit(data: st.DataObject, size: int) -> None:
    line = data.draw(st.lists(small_integers, min_size=size + 2, max_size=size + 2))
    taps = data.draw(st.lists(small_integers, min_size=3, max_size=3))
    inputs, filters = [Fraction(x) for x in line], [Fraction(x) for x in taps]
    products = [
        a * b
        for a, b in zip(
            times(filter_transform(size), filters), times(input_transform(size), inputs), strict=True
        )
    ]
    expected = [sum(line[k + tap] * taps[tap] for tap in range(3)) for k in range(size)]
    assert times(output_transform(size), products) == expected


@settings(max_examples=60, deadline=None)
@given(
    spec=boards,
    blocks=st.integers(1, 3),
    channels=st.sampled_from([8, 16, 24, 32]),
    rows=st.sampled_from([1, 2, 5, 40]),
)
def test_the_fast_forward_says_what_the_net_says(
    spec: BoardSpec, blocks: int, channels: int, rows: int
) -> None:
    net = an_awake_net(spec, blocks=blocks, channels=channels)
    inputs = random_cells(spec, rows)
    with torch.inference_mode():
        expected, got = net(inputs), WinogradForward(net)(inputs)
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 64, 200])
def test_a_position_is_evaluated_alike_alone_and_among_others(rows: int) -> None:
    spec = BoardSpec(6, 7, policy="columns")
    forward = WinogradForward(an_awake_net(spec, blocks=2, channels=16))
    inputs = random_cells(spec, rows)
    with torch.inference_mode():
        together = forward(inputs)
        alone = forward({"cells": inputs["cells"][-1:]})
    torch.testing.assert_close(alone["policy"][0], together["policy"][-1])
    torch.testing.assert_close(alone["value"][0], together["value"][-1])


def test_what_was_evaluated_before_leaves_no_trace() -> None:
    spec = BoardSpec(9, 9, goal_edges=True)
    net = an_awake_net(spec, blocks=2, channels=8)
    used, fresh = WinogradForward(net), WinogradForward(net)
    with torch.inference_mode():
        used(random_cells(spec, 70))
        again, first = used(random_cells(spec, 3)), fresh(random_cells(spec, 3))
    assert torch.equal(again["policy"], first["policy"])


@pytest.mark.parametrize(
    ("side", "tile", "tiles"),
    [(3, 4, 1), (4, 4, 1), (5, 6, 1), (7, 4, 2), (11, 6, 2), (13, 4, 4), (19, 4, 5)],
)
def test_a_board_is_covered_by_the_tiles_that_take_the_fewest_products(
    side: int, tile: int, tiles: int
) -> None:
    tiling = Tiling.of_board(side, side)
    assert (tiling.tile_height, tiling.rows) == (tile, tiles)
    assert tiling.tile_height * tiling.rows >= side


def test_a_net_that_the_kernels_do_not_have_is_evaluated_as_it_is() -> None:
    spec = BoardSpec(5, 5)
    odd = new_net(spec, NetworkConfig(blocks=1, channels=12), seed=1)
    half = new_net(spec, NetworkConfig(blocks=1, channels=16), seed=1).to(torch.bfloat16)
    assert fastest_forward(odd) is odd
    assert fastest_forward(half) is half
    assert fastest_forward(new_net(spec, NetworkConfig(blocks=1, channels=16), seed=1)) is not odd


def test_a_net_of_an_environment_is_evaluated_as_it_is() -> None:
    spec = EnvironmentSpec((4,), "float32", ActionSpec("categorical", (2,), scalar=True))
    net = new_net(spec, NetworkConfig(channels=16), seed=1)
    assert fastest_forward(net) is net
