"""A net whose observations hold a mask: what is forbidden has no probability and no gradient, and is not seen."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import NetworkConfig
from core.environments import ActionSpec, EnvironmentSpec
from core.errors import DataError
from networks.actor_critic import NEVER, ActorCritic
from networks.build import build_net, to_weights
from networks.model_folder import model_card
from networks.precision import resolve
from networks.weights import network_description, network_parts

SMALL = NetworkConfig(layers=(16, 8))
SEEN = 3


def masked_spec(*sizes: int) -> EnvironmentSpec:
    return EnvironmentSpec((SEEN + sum(sizes),), "float32", ActionSpec("categorical", sizes), masked=True)


def awake(spec: EnvironmentSpec) -> ActorCritic:
    """Return a net whose policy depends on what it sees."""
    net, generator = ActorCritic(spec, SMALL, seed=1), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return net


def rows(mask: np.ndarray, *, seed: int) -> torch.Tensor:
    seen = np.random.default_rng(seed).normal(0, 2, (len(mask), SEEN))
    return torch.from_numpy(np.hstack([seen, mask]).astype(np.float32))


@st.composite
def masks(draw: st.DrawFn) -> tuple[tuple[int, ...], np.ndarray]:
    """Return sizes of choices, and masks [5, P] that leave something of each."""
    sizes = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    mask = np.array(
        draw(
            st.lists(
                st.lists(st.booleans(), min_size=sum(sizes), max_size=sum(sizes)), min_size=5, max_size=5
            )
        )
    )
    for part in np.split(mask, np.cumsum(sizes)[:-1], axis=1):
        part[~part.any(axis=1), 0] = True
    return sizes, mask


@given(masks(), st.sampled_from(["fp32", "bf16"]))
def test_what_is_allowed_keeps_its_logit_and_the_rest_has_no_chance(
    case: tuple[tuple[int, ...], np.ndarray], precision: Any
) -> None:
    sizes, mask = case
    net = resolve(precision, "cpu").prepare(awake(masked_spec(*sizes)))
    free = {"observation": rows(np.ones_like(mask), seed=0)}
    held = {"observation": rows(mask, seed=0)}
    with torch.inference_mode():
        without, with_mask = net(free), net(held)
    allowed = torch.from_numpy(mask)
    assert torch.equal(with_mask["value"], without["value"])
    assert torch.equal(with_mask["policy"][allowed], without["policy"][allowed])
    assert (with_mask["policy"][~allowed] == NEVER).all()
    for logits, part in zip(with_mask["policy"].split(sizes, 1), allowed.split(sizes, 1), strict=True):
        chance = logits.softmax(1)
        assert (chance[~part] == 0).all()
        assert chance.sum(1) == pytest.approx(1.0)


def test_where_everything_is_forbidden_each_choice_is_as_likely_as_another() -> None:
    net = awake(masked_spec(4))
    with torch.inference_mode():
        policy = net({"observation": rows(np.zeros((2, 4)), seed=0)})["policy"]
    assert policy.softmax(1) == pytest.approx(0.25)


@given(masks())
def test_no_gradient_goes_to_what_is_never_allowed(case: tuple[tuple[int, ...], np.ndarray]) -> None:
    sizes, mask = case
    net = awake(masked_spec(*sizes))
    net({"observation": rows(mask, seed=1)})["policy"].square().sum().backward()
    never = ~mask.any(axis=0)
    for parameter in (net.policy_head.weight, net.policy_head.bias):
        assert (parameter.grad[never] == 0).all()
        assert (parameter.grad[~never] != 0).any(axis=-1).all()


def test_a_mask_is_not_measured_in_deviations() -> None:
    net = awake(masked_spec(4))
    mean, deviation = np.full(SEEN + 4, 0.25), np.full(SEEN + 4, 0.5)
    net.set_observation_moments(mean, deviation)
    mask = np.array([[1, 0, 0, 1]])
    raw = rows(mask, seed=2)
    plain = awake(masked_spec(4))
    scaled = torch.cat([(raw[:, :SEEN] - 0.25) / 0.5, raw[:, SEEN:]], dim=1)
    with torch.inference_mode():
        told, expected = net({"observation": raw}), plain({"observation": scaled})
    for name, output in expected.items():
        torch.testing.assert_close(told[name], output)


def test_a_masked_net_comes_back_from_its_weights() -> None:
    net = awake(masked_spec(2, 3))
    weights = to_weights(net, model="main", version=1, game="gym:Keys")
    again = build_net(weights)
    assert isinstance(again, ActorCritic)
    assert again.spec == net.spec
    observation = {"observation": rows(np.eye(5), seed=3)}
    with torch.inference_mode():
        assert torch.equal(again(observation)["policy"], net(observation)["policy"])
    assert "may be chosen, 1 or 0" in model_card(weights, {})


def test_masks_change_nothing_in_what_other_nets_are_described_by() -> None:
    spec = EnvironmentSpec((4,), "float32", ActionSpec("categorical", (2,), scalar=True))
    assert "masked" not in network_description(spec, SMALL)["environment"]
    assert network_parts(network_description(spec, SMALL))[0] == spec


@pytest.mark.parametrize(
    "changes",
    [
        {"observation_shape": [5]},
        {"observation_shape": [2, 8]},
        {"observation_dtype": "uint8"},
        {"masked": "yes"},
        {"actions": {"kind": "gaussian", "sizes": [2], "low": [0.0] * 2, "high": [1.0] * 2, "scalar": False}},
    ],
)
def test_a_description_whose_mask_cannot_be_is_refused(changes: Mapping[str, Any]) -> None:
    network = network_description(masked_spec(2, 3), SMALL)
    network["environment"] = {**network["environment"], **changes}
    with pytest.raises(DataError):
        network_parts(network)
    assert replace(masked_spec(2, 3), masked=False) != masked_spec(2, 3)
