"""The trained tower says what the net says, and its gradients are the net's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from core.messages import BoardSpec
from networks.tower import BoardNet
from networks.winograd_training import GROUP_POSITIONS, WinogradNet, fastest_trainable
from tests.networks.test_winograd import an_awake_net, random_cells

# Two rounding paths may fall on either side of a relu's corner; few do, and in double precision none would. What one of
# 10,000 such numbers lets through is about 1/√10,000 of a gradient's length.
TOLERANCE = 0.01


def gradients(
    net: BoardNet, module: nn.Module, inputs: dict[str, Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return outputs, and gradients of a fixed function of them by all parameters."""
    net.zero_grad()
    outputs = module(inputs)
    generator = torch.Generator().manual_seed(3)
    total = torch.zeros(())
    for name in sorted(outputs):
        total = total + (outputs[name] * torch.randn(outputs[name].shape, generator=generator)).sum()
    total.backward()
    slopes = [parameter.grad for parameter in net.parameters()]
    return [each.detach() for each in outputs.values()], [
        slope.clone() for slope in slopes if slope is not None
    ]


@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(2, 13),
    width=st.integers(2, 13),
    rows=st.integers(1, 2 * GROUP_POSITIONS + 1),
    channels=st.sampled_from([8, 16, 24, 48]),
    blocks=st.integers(1, 3),
    policy=st.sampled_from(["cells", "columns"]),
    soft=st.booleans(),
)
def test_outputs_and_gradients_are_the_nets(
    height: int, width: int, rows: int, channels: int, blocks: int, policy: str, soft: bool
) -> None:
    spec = BoardSpec(height, width, policy=policy, extra_actions=1, goal_edges=True)  # pyright: ignore[reportArgumentType]
    net = an_awake_net(spec, blocks=blocks, channels=channels, soft_policy=soft)
    inputs = random_cells(spec, rows)
    said, slopes = gradients(net, net, inputs)
    module = WinogradNet(net)
    for _ in range(2):  # the second time in memory that was used
        found, found_slopes = gradients(net, module, inputs)
        for one, other in zip(said, found, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)
        assert len(slopes) == len(found_slopes) == len(list(net.parameters()))
        off = sum(float((a - b).square().sum()) for a, b in zip(slopes, found_slopes, strict=True))
        size = sum(float(a.square().sum()) for a in slopes)
        assert off <= TOLERANCE**2 * size


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_equal_threads_make_equal_bits(threads: int) -> None:
    spec = BoardSpec(10, 10, goal_edges=True)
    net = an_awake_net(spec, blocks=2, channels=16)
    inputs, before = random_cells(spec, 40), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        module = WinogradNet(net)
        (_, first), (_, second) = (gradients(net, module, inputs) for _ in range(2))
        (_, plain) = gradients(net, net, inputs)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    for one, other in zip(plain, first, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-2, atol=1e-2)


def test_a_backward_of_an_older_forward_is_refused() -> None:
    spec = BoardSpec(5, 5)
    module = WinogradNet(an_awake_net(spec, blocks=1, channels=8))
    older = module(random_cells(spec, 3))["value"].sum()
    module(random_cells(spec, 3))
    with pytest.raises(RuntimeError, match="came before this backward"):
        older.backward()


def test_what_the_kernels_cannot_do_is_left_as_it_is() -> None:
    odd = an_awake_net(BoardSpec(5, 5), blocks=1, channels=12)
    assert fastest_trainable(odd) is odd
    even = an_awake_net(BoardSpec(5, 5), blocks=1, channels=16)
    assert isinstance(fastest_trainable(even), WinogradNet)
