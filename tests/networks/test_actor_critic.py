"""What a net of an environment promises: what it takes and gives, in which units, and how it starts."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import NetworkConfig
from core.environments import ActionSpec, EnvironmentSpec
from networks.actor_critic import ActorCritic
from networks.build import build_net, load_into, to_weights
from networks.precision import resolve
from networks.weights import Weights

CARTPOLE = EnvironmentSpec((4,), "float32", ActionSpec("categorical", (2,), scalar=True))
PENDULUM = EnvironmentSpec((3,), "float32", ActionSpec("gaussian", (2,), low=(-2.0, -1.0), high=(2.0, 1.0)))
PONG = EnvironmentSpec((4, 84, 84), "uint8", ActionSpec("categorical", (6,), scalar=True))
SMALL = NetworkConfig(layers=(16, 8))

choices = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(
    lambda sizes: ActionSpec("categorical", tuple(sizes))
)
gaussians = st.integers(1, 4).map(
    lambda dimensions: ActionSpec(
        "gaussian", (dimensions,), low=(-np.inf,) * dimensions, high=(1.0,) * dimensions
    )
)
shapes = st.lists(st.integers(1, 4), max_size=4).map(tuple)
images = st.tuples(st.integers(1, 4), st.integers(36, 44), st.integers(36, 44))
observations = st.one_of(
    st.tuples(shapes, st.sampled_from(["float32", "uint8"])), st.tuples(images, st.just("uint8"))
)
environments = st.builds(
    lambda observation, actions: EnvironmentSpec(*observation, actions),
    observations,
    st.one_of(choices, gaussians),
)


def some_observations(spec: EnvironmentSpec, rows: int, *, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    shape = (rows, *spec.observation_shape)
    if spec.observation_dtype == "uint8":
        return {"observation": torch.from_numpy(rng.integers(0, 256, shape).astype(np.uint8))}
    return {"observation": torch.from_numpy(rng.normal(0, 2, shape).astype(np.float32))}


def evaluate(net: ActorCritic, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        return net(inputs)


def awake(net: ActorCritic) -> ActorCritic:
    """Give biases and the policy's head a say."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return net


def through_perceptron(x: np.ndarray, tensors: dict[str, np.ndarray], which: int) -> np.ndarray:
    for layer in (0, 1):
        weight, bias = (tensors[f"hidden.{layer}.{name}"][which] for name in ("weight", "bias"))
        x = np.tanh(x @ weight + bias)
    head = ("policy_head", "value_head")[which]
    return x @ tensors[f"{head}.weight"].T + tensors[f"{head}.bias"]


def told_moments(net: ActorCritic, *, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Give `net` moments of observations, and return them."""
    rng = np.random.default_rng(seed)
    shape = net.spec.observation_shape
    mean, deviation = np.asarray(rng.normal(0, 5, shape)), np.asarray(rng.uniform(0.1, 3, shape))
    net.set_observation_moments(mean, deviation)
    return mean, deviation


@pytest.mark.parametrize("spec", [CARTPOLE, replace(CARTPOLE, observation_shape=(6,), masked=True)])
def test_moments_are_told_as_they_were_given_but_for_a_mask(spec: EnvironmentSpec) -> None:
    net = ActorCritic(spec, SMALL)
    mean, deviation = net.observation_moments()
    assert (mean.tolist(), deviation.tolist()) == ([0] * len(mean), [1] * len(mean))
    given = told_moments(net)
    told = net.observation_moments()
    np.testing.assert_allclose(np.array(told)[:, :4], np.array(given)[:, :4], rtol=1e-6)
    assert np.array(told)[:, 4:].tolist() == ([[0, 0], [1, 1]] if spec.masked else [[], []])


@settings(max_examples=40, deadline=None)
@given(spec=environments, rows=st.integers(1, 4))
def test_outputs_are_what_the_environment_asks_for(spec: EnvironmentSpec, rows: int) -> None:
    outputs = evaluate(ActorCritic(spec, SMALL, seed=1), some_observations(spec, rows))
    assert outputs["policy"].shape == (rows, spec.actions.num_policy)
    assert outputs["value"].shape == (rows,)
    assert {output.dtype for output in outputs.values()} == {torch.float32}
    assert all(bool(output.isfinite().all()) for output in outputs.values())


@pytest.mark.parametrize("spec", [CARTPOLE, PENDULUM])
def test_the_net_is_two_perceptrons(spec: EnvironmentSpec) -> None:
    net = awake(ActorCritic(spec, SMALL, seed=1))
    tensors = {name: tensor.double().numpy() for name, tensor in net.state_dict().items()}
    inputs = some_observations(spec, 20)
    x = inputs["observation"].double().numpy()
    policy = through_perceptron(x, tensors, 0)
    if spec.actions.kind == "gaussian":
        policy = np.hstack([policy, np.tile(tensors["log_deviations"], (20, 1))])
    outputs = evaluate(net, inputs)
    np.testing.assert_allclose(outputs["policy"].numpy(), policy, rtol=1e-4, atol=1e-5)
    value = through_perceptron(x, tensors, 1)[:, 0]
    np.testing.assert_allclose(outputs["value"].numpy(), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(4,), (2, 2), ()])
def test_observations_are_measured_from_their_mean_in_deviations_and_held_within_ten(
    shape: tuple[int, ...],
) -> None:
    spec = replace(CARTPOLE, observation_shape=shape)
    net = awake(ActorCritic(spec, SMALL, seed=1))
    mean, deviation = told_moments(net)
    raw = np.random.default_rng(1).normal(0, 30, (50, *shape)).astype(np.float32)
    expected = np.clip((raw - mean) / deviation, -10, 10)
    assert np.abs(expected).max() == 10
    plain = awake(ActorCritic(spec, SMALL, seed=1))
    told = evaluate(net, {"observation": torch.from_numpy(raw)})
    for name, output in evaluate(plain, {"observation": torch.from_numpy(expected).float()}).items():
        torch.testing.assert_close(told[name], output, rtol=1e-4, atol=1e-4)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4))
def test_a_normaliser_that_was_told_nothing_changes_nothing(numbers: list[float]) -> None:
    observation = torch.tensor([numbers])
    assert torch.equal(ActorCritic(CARTPOLE, SMALL).normaliser(observation), observation)


def test_an_observation_is_not_written_to() -> None:
    for spec in (CARTPOLE, PONG):
        inputs = some_observations(spec, 3)
        before = inputs["observation"].clone()
        evaluate(ActorCritic(spec, SMALL, seed=1), inputs)
        assert torch.equal(inputs["observation"], before)


@given(scales=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5))
def test_a_new_scale_of_rewards_changes_no_value(scales: list[float]) -> None:
    net = awake(ActorCritic(CARTPOLE, SMALL, seed=1))
    inputs = some_observations(CARTPOLE, 8)
    before = evaluate(net, inputs)["value"]
    for scale in scales:
        net.rescale_rewards(scale)
        assert net.reward_scale == pytest.approx(scale, rel=1e-6)
    torch.testing.assert_close(evaluate(net, inputs)["value"], before, rtol=1e-5, atol=1e-5)


def test_the_same_scale_again_changes_no_bit() -> None:
    net = awake(ActorCritic(CARTPOLE, SMALL, seed=1))
    net.rescale_rewards(0.3)
    before = to_weights(net, model="m", version=0, game="g").digest
    net.rescale_rewards(0.3)
    assert to_weights(net, model="m", version=0, game="g").digest == before


def test_values_are_the_heads_in_units_of_the_reward_scale() -> None:
    net = awake(ActorCritic(CARTPOLE, SMALL, seed=1))
    inputs = some_observations(CARTPOLE, 8)
    in_ones = evaluate(net, inputs)["value"]
    net.normaliser.reward_scale.fill_(50.0)
    torch.testing.assert_close(evaluate(net, inputs)["value"], 50 * in_ones)


def test_bytes_are_seen_as_shares_of_255() -> None:
    """A white pixel is a 1 to the first convolution."""
    net = ActorCritic(PONG, SMALL, seed=1)
    seen: list[torch.Tensor] = []
    net.trunk[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    inputs = some_observations(PONG, 2)
    evaluate(net, inputs)
    torch.testing.assert_close(seen[0], inputs["observation"].float() / 255)


def test_images_pass_through_the_convolutions_of_the_nature_paper() -> None:
    net = ActorCritic(PONG, NetworkConfig(layers=(512,)), seed=1)
    assert net.trunk(torch.zeros(1, 4, 84, 84)).shape == (1, 64 * 7 * 7)
    assert net.hidden[0].weight.shape == (2, 3136, 512)


def test_what_is_too_small_for_convolutions_is_a_row_of_numbers() -> None:
    assert ActorCritic(replace(PONG, observation_shape=(3, 36, 36)), SMALL).trunk is not None
    assert ActorCritic(replace(PONG, observation_shape=(3, 35, 36)), SMALL).trunk is None
    assert ActorCritic(replace(PONG, observation_dtype="float32"), SMALL).trunk is None


@pytest.mark.parametrize("spec", [CARTPOLE, PENDULUM, PONG])
def test_a_row_does_not_depend_on_the_rows_beside_it(spec: EnvironmentSpec) -> None:
    net = awake(ActorCritic(spec, SMALL, seed=1))
    inputs = some_observations(spec, 5)
    together, alone = evaluate(net, inputs), evaluate(net, {"observation": inputs["observation"][2:3]})
    for name, output in together.items():
        torch.testing.assert_close(alone[name], output[2:3])
    assert not torch.equal(together["value"][2], together["value"][3])


def test_the_same_seed_gives_the_same_net_and_another_seed_another() -> None:
    digests = [
        to_weights(ActorCritic(CARTPOLE, SMALL, seed=s), model="m", version=0, game="g").digest
        for s in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_making_a_net_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    ActorCritic(PONG, SMALL, seed=1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("spec", [CARTPOLE, PENDULUM])
def test_hidden_layers_start_orthogonal_and_heads_with_their_own_gains(spec: EnvironmentSpec) -> None:
    net = ActorCritic(spec, NetworkConfig(layers=(64, 64)), seed=1)
    for square in net.hidden[1].weight.detach():
        torch.testing.assert_close(square @ square.T, 2 * torch.eye(64), atol=1e-5, rtol=0)
    for layer, head_gain in ((net.policy_head, 0.01), (net.value_head, 1.0)):
        head = layer.weight.detach()
        torch.testing.assert_close(head @ head.T, head_gain**2 * torch.eye(len(head)), atol=1e-5, rtol=0)
    biases = [p for name, p in net.named_parameters() if not name.endswith("weight")]
    assert not any(bool(bias.any()) for bias in biases)


def test_an_untrained_net_does_one_thing_as_readily_as_another() -> None:
    policy = evaluate(ActorCritic(CARTPOLE, NetworkConfig(), seed=1), some_observations(CARTPOLE, 64))[
        "policy"
    ]
    assert float((policy.softmax(1) - 0.5).abs().max()) < 0.05


@pytest.mark.parametrize("spec", [CARTPOLE, PENDULUM, PONG])
def test_every_parameter_learns(spec: EnvironmentSpec) -> None:
    net = awake(ActorCritic(spec, SMALL, seed=1))
    outputs = net(some_observations(spec, 8))
    (outputs["policy"].square().sum() + outputs["value"].sum()).backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_policy_and_value_share_no_parameter() -> None:
    net = awake(ActorCritic(CARTPOLE, SMALL, seed=1))
    net(some_observations(CARTPOLE, 4))["value"].sum().backward()
    assert net.policy_head.weight.grad is not None
    assert not net.policy_head.weight.grad.any()
    for layer in net.hidden:
        assert not layer.weight.grad[0].any()
        assert layer.weight.grad[1].any()


CASTS: dict[str, Callable[[ActorCritic], ActorCritic]] = {
    "bf16": lambda net: net.to(torch.bfloat16),
    "half": lambda net: net.half(),
    "double": lambda net: net.double(),
    "prepared": lambda net: resolve("bf16", "cpu").prepare(net),
}


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS.keys())
def test_scales_stay_float32_to_the_last_bit_whatever_the_net_is_cast_to(
    cast: Callable[[ActorCritic], ActorCritic],
) -> None:
    net = ActorCritic(CARTPOLE, SMALL, seed=1)
    told_moments(net)
    net.rescale_rewards(1 / 3)
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    found = dict(cast(net).named_buffers())
    assert next(net.parameters()).dtype is not torch.float32
    assert found.keys() == before.keys()
    assert all(torch.equal(found[name], buffer) for name, buffer in before.items())
    assert {buffer.dtype for buffer in found.values()} == {torch.float32}


@pytest.mark.parametrize("spec", [CARTPOLE, PENDULUM, PONG])
@pytest.mark.parametrize(("name", "tolerance"), [("fp32", 1e-4), ("bf16", 0.2), ("fp16", 0.02)])
def test_each_precision_agrees_with_fp32_as_far_as_its_digits_go(
    name: str, tolerance: float, spec: EnvironmentSpec
) -> None:
    net, inputs = awake(ActorCritic(spec, SMALL, seed=1)), some_observations(spec, 16)
    reference = evaluate(net, inputs)
    prepared = resolve(name, "cpu").prepare(build_net(to_weights(net, model="m", version=0, game="g")))
    for output, tensor in evaluate(prepared, inputs).items():
        assert tensor.dtype is torch.float32
        torch.testing.assert_close(tensor, reference[output], rtol=tolerance, atol=tolerance)


def test_autocast_trains_in_bf16_and_answers_in_float32() -> None:
    net = awake(ActorCritic(PENDULUM, SMALL, seed=1))
    inputs = some_observations(PENDULUM, 8)
    with resolve("bf16", "cpu").autocast():
        outputs = net(inputs)
    assert {output.dtype for output in outputs.values()} == {torch.float32}
    assert not torch.equal(outputs["value"], net(inputs)["value"])
    outputs["value"].sum().backward()
    assert net.value_head.weight.grad.dtype is torch.float32


@pytest.mark.parametrize("spec", [CARTPOLE, PENDULUM, PONG])
def test_a_net_comes_back_from_bytes_with_its_scales(spec: EnvironmentSpec) -> None:
    net = awake(ActorCritic(spec, SMALL, seed=1))
    if spec is not PONG:
        told_moments(net)
    net.rescale_rewards(7.5)
    data = to_weights(net, model="m", version=1, game="gym:X-v0").to_bytes()
    weights = Weights.from_bytes(data, source="here")
    again = build_net(weights)
    assert isinstance(again, ActorCritic)
    assert again.spec == spec
    assert again.accepts(weights)
    inputs = some_observations(spec, 4)
    expected = evaluate(net, inputs)
    for name, output in evaluate(again, inputs).items():
        assert torch.equal(output, expected[name])


def test_a_net_that_plays_takes_new_scales_in_place() -> None:
    trained, playing = (awake(ActorCritic(CARTPOLE, SMALL, seed=seed)) for seed in (1, 2))
    told_moments(trained)
    trained.rescale_rewards(3.0)
    weights = to_weights(trained, model="m", version=1, game="g")
    held = [buffer.data_ptr() for buffer in playing.buffers()]
    load_into(playing, weights)
    assert [buffer.data_ptr() for buffer in playing.buffers()] == held
    assert to_weights(playing, model="m", version=1, game="g").digest == weights.digest


def test_a_net_accepts_weights_of_its_own_environment_and_layers_alone() -> None:
    net = ActorCritic(CARTPOLE, SMALL, seed=1)
    others = [ActorCritic(PENDULUM, SMALL), ActorCritic(CARTPOLE, NetworkConfig(layers=(16, 16)))]
    assert net.accepts(to_weights(net, model="m", version=0, game="g"))
    assert not any(net.accepts(to_weights(other, model="m", version=0, game="g")) for other in others)
