"""Values of hands: what players win from each other cancels, and whatever is shown matters."""

import json

import numpy as np
import pytest
import torch

from configs.schema import InferenceConfig, NetworkConfig
from core.errors import DataError
from core.hands import STREETS, HandValueSpec, Street
from inference_server.model_host import ModelHost
from networks.build import Net, build_net, new_net, to_weights
from networks.hand_values import HandValueNet
from networks.model_folder import model_card
from networks.precision import resolve
from networks.weights import Weights, network_parts

SMALL = NetworkConfig(layers=(16, 12), precision="fp32")
RIVER = HandValueSpec("river")


def some_inputs(spec: HandValueSpec, rows: int = 5, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Return what a network sees on boards on which hands neither share nor block each other."""
    rng = np.random.default_rng(seed)
    ranges = rng.gamma(0.3, size=(rows, 2, spec.hands))
    ranges = (ranges / ranges.mean(2, keepdims=True)).astype(np.float16)
    masses = ranges.astype(np.float64) / spec.hands
    below = masses.cumsum(2) - masses
    showdown = (2 * below + masses - masses.sum(2, keepdims=True))[:, ::-1]
    return {
        "pot": rng.uniform(0.01, 0.99, rows).astype(np.float32),
        "ranges": ranges,
        "showdown": showdown.astype(np.float16),
    }


def evaluate(net: Net, inputs: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return net({name: torch.from_numpy(array) for name, array in inputs.items()})["values"].numpy()


def awake(net: HandValueNet) -> HandValueNet:
    """Return a net that says more than nearly nothing."""
    with torch.no_grad():
        net.head.weight.mul_(5)
    return net


def gains(values: np.ndarray, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Return [R], what both players win, weighed by their masses."""
    return (values * inputs["ranges"].astype(np.float64)).mean(2).sum(1)


@pytest.mark.parametrize("street", STREETS)
def test_gains_cancel(street: Street) -> None:
    spec = HandValueSpec(street)
    inputs = some_inputs(spec)
    assert all(one.mismatch(inputs[one.name]) is None for one in spec.inputs)
    values = evaluate(awake(HandValueNet(spec, SMALL, seed=1)), inputs)
    assert values.shape == (5, 2, spec.hands)
    assert values.dtype == np.float32
    assert np.abs(values - inputs["showdown"]).max() > 0.1
    np.testing.assert_allclose(gains(values, inputs), 0.0, atol=1e-5)


@pytest.mark.parametrize("changed", ["pot", "ranges", "showdown"])
def test_all_that_is_shown_matters(changed: str) -> None:
    net, inputs = awake(HandValueNet(RIVER, SMALL, seed=1)), some_inputs(RIVER)
    said = evaluate(net, inputs)
    other = inputs | {changed: some_inputs(RIVER, seed=2)[changed]}
    assert not np.allclose(evaluate(net, other), said, atol=1e-2)


def test_a_row_does_not_depend_on_those_beside_it() -> None:
    net, inputs = awake(HandValueNet(RIVER, SMALL, seed=1)), some_inputs(RIVER)
    alone = evaluate(net, {name: array[2:3] for name, array in inputs.items()})
    np.testing.assert_allclose(alone[0], evaluate(net, inputs)[2], rtol=1e-4, atol=1e-4)


def test_an_untrained_net_says_nearly_what_a_showdown_does_and_depends_on_its_seed_alone() -> None:
    nets = [HandValueNet(RIVER, NetworkConfig(layers=(500,) * 7), seed=seed) for seed in (1, 1, 2)]
    one, same, other = (to_weights(net, model="m", version=0, game="g").digest for net in nets)
    assert one == same != other
    inputs = some_inputs(RIVER)
    assert 1e-3 < np.abs(evaluate(nets[0], inputs) - inputs["showdown"]).mean() < 0.5


def test_weights_as_bytes_give_back_the_net() -> None:
    spec = HandValueSpec("turn")
    net, inputs = awake(HandValueNet(spec, SMALL, seed=1)), some_inputs(spec)
    data = to_weights(net, model="m", version=3, game="holdem").to_bytes()
    weights = Weights.from_bytes(data, source="here")
    again = build_net(weights)
    assert isinstance(again, HandValueNet)
    assert again.spec == spec
    assert again.accepts(weights)
    assert np.array_equal(evaluate(again, inputs), evaluate(net, inputs))
    assert not new_net(HandValueSpec("turn_end"), SMALL, seed=1).accepts(weights)


@pytest.mark.parametrize(
    "change",
    [
        {"layers": []},
        {"layers": [0]},
        {"hands": {}},
        {"hands": {"street": "showdown"}},
        {"hands": {"cards": 5, "order": "strength"}},
        {"blocks": 3},
        {"hands": None},
    ],
)
def test_a_description_of_no_such_net_is_refused(change: dict[str, object]) -> None:
    network = HandValueNet(RIVER, SMALL).network
    assert network_parts(json.loads(json.dumps(network))) == (RIVER, NetworkConfig(layers=(16, 12)))
    with pytest.raises(DataError, match="description of a network"):
        network_parts(network | change)


def test_a_server_answers_with_it() -> None:
    net, inputs = awake(HandValueNet(RIVER, SMALL, seed=1)), some_inputs(RIVER)
    weights = to_weights(net, model="m", version=3, game="holdem")
    host = ModelHost(
        InferenceConfig(max_batch_rows=2), precision="fp32", device="cpu", fetch=lambda _: weights
    )
    host.check("m", inputs)
    values = host.evaluate("m", inputs).arrays["values"]
    assert all(one.mismatch(values) is None for one in RIVER.outputs)
    np.testing.assert_allclose(values, evaluate(net, inputs), rtol=2e-3, atol=1e-3)


def test_in_half_precision_gains_still_cancel() -> None:
    net, inputs = awake(HandValueNet(RIVER, SMALL, seed=1)), some_inputs(RIVER)
    exact, precision = evaluate(net, inputs), resolve("bf16", "cpu")
    with precision.autocast():
        cast = evaluate(net, inputs)
    for values in (cast, evaluate(precision.prepare(net), inputs)):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, exact, atol=0.05 * np.abs(exact).max())
        np.testing.assert_allclose(gains(values, inputs), 0.0, atol=1e-4)


def test_a_card_tells_what_goes_in() -> None:
    net = HandValueNet(RIVER, SMALL)
    card = model_card(to_weights(net, model="river", version=1, game="holdem"), {})
    assert all(f"`{spec.name}`" in card for spec in (*net.spec.inputs, *net.spec.outputs))
    assert "layers of 16 and 12 units" in card
    assert "1081" in card
