"""Values of hands: blocked ones have none, what players win from each other cancels, and orders are undone."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from configs.schema import InferenceConfig, NetworkConfig
from core.errors import DataError
from core.hands import NUM_HANDS, HandOrder, HandValueSpec
from inference_server.model_host import ModelHost
from networks.build import build_net, new_net, to_weights
from networks.hand_values import HandValueNet, live_hands
from networks.model_folder import model_card
from networks.precision import resolve
from networks.weights import Weights, network_parts
from poker.cards import HANDS
from poker.cards import live_hands as live_on

SMALL = NetworkConfig(layers=(16, 12), precision="fp32")
ORDERS: tuple[HandOrder, ...] = ("numbers", "strength")


def some_inputs(spec: HandValueSpec, rows: int = 5, *, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    boards = np.stack([rng.permutation(52)[: spec.cards] for _ in range(rows)]).astype(np.uint8)
    live = np.stack([live_on(board.tolist()) for board in boards])
    ranges = np.zeros((rows, 2, NUM_HANDS), np.float32)
    for row, hands in enumerate(live):
        ranges[row][:, hands] = rng.dirichlet(np.full(len(hands), 0.3), 2)
    shown = (
        {"board": boards}
        if spec.order == "numbers"
        else {
            "weakest_first": rng.permuted(live, axis=1).astype(np.int16),
            "showdown": rng.uniform(-1, 1, ranges.shape).astype(np.float32) * (ranges > 0),
        }
    )
    return {"pot": rng.uniform(0.01, 0.99, rows).astype(np.float32), "ranges": ranges, **shown}


def evaluate(net: HandValueNet, inputs: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return net({name: torch.from_numpy(array) for name, array in inputs.items()})["values"].numpy()


def awake(net: HandValueNet) -> HandValueNet:
    """Return a net that says more than nearly nothing."""
    with torch.no_grad():
        net.head.weight.mul_(50)
    return net


def test_hands_are_numbered_as_in_poker() -> None:
    net = HandValueNet(HandValueSpec(), SMALL)
    assert (
        net.cards_of_hands.tolist() == HANDS.tolist() == [list(pair) for pair in combinations(range(52), 2)]
    )
    board = torch.tensor([[3, 17, 20, 41, 50]], dtype=torch.uint8)
    assert (
        live_hands(board, net.cards_of_hands)[0].nonzero()[:, 0].tolist()
        == live_on([3, 17, 20, 41, 50]).tolist()
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("cards", [3, 4, 5])
def test_blocked_hands_have_no_value_and_gains_cancel(order: HandOrder, cards: int) -> None:
    spec = HandValueSpec(cards, order)
    inputs = some_inputs(spec)
    values = evaluate(awake(HandValueNet(spec, SMALL, seed=1)), inputs)
    assert values.shape == (5, 2, NUM_HANDS)
    assert values.dtype == np.float32
    assert ((values != 0).sum(2) == spec.hands).all()
    assert np.abs(values).max() > 0.1
    np.testing.assert_allclose((values * inputs["ranges"]).sum((1, 2)), 0.0, atol=1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_the_mass_of_blocked_hands_is_not_seen(order: HandOrder) -> None:
    spec = HandValueSpec(5, order)
    net, inputs = awake(HandValueNet(spec, SMALL, seed=1)), some_inputs(spec)
    blocked = evaluate(net, inputs) == 0
    more = inputs | {"ranges": inputs["ranges"] + blocked.astype(np.float32)}
    assert np.array_equal(evaluate(net, more), evaluate(net, inputs))


def test_the_order_of_strength_is_undone() -> None:
    """Renaming hands renames their values and changes nothing else."""
    spec = HandValueSpec(5, "strength")
    net, inputs = awake(HandValueNet(spec, SMALL, seed=1)), some_inputs(spec)
    renamed = np.random.default_rng(3).permutation(NUM_HANDS)
    ranges, showdown = np.empty_like(inputs["ranges"]), np.empty_like(inputs["showdown"])
    ranges[:, :, renamed], showdown[:, :, renamed] = inputs["ranges"], inputs["showdown"]
    other = inputs | {
        "ranges": ranges,
        "showdown": showdown,
        "weakest_first": renamed[inputs["weakest_first"]].astype(np.int16),
    }
    assert np.array_equal(evaluate(net, other)[:, :, renamed], evaluate(net, inputs))


def test_a_place_in_the_order_belongs_to_the_hand_that_stands_there() -> None:
    """With a head that knows nothing but its biases every hand is worth its place and what it wins in a showdown."""
    spec = HandValueSpec(5, "strength")
    net = HandValueNet(spec, SMALL)
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.copy_(torch.arange(2 * spec.hands))
    inputs = some_inputs(spec, rows=2)
    values = evaluate(net, inputs)
    for row, order in enumerate(inputs["weakest_first"]):
        ordered = (values[row] - inputs["showdown"][row])[:, order]
        np.testing.assert_allclose(np.diff(ordered.reshape(-1)), 1.0, atol=1e-3)


@pytest.mark.parametrize("order", ORDERS)
def test_pot_and_shown_cards_matter(order: HandOrder) -> None:
    spec = HandValueSpec(5, order)
    net, inputs = awake(HandValueNet(spec, SMALL, seed=1)), some_inputs(spec, rows=2)
    said = evaluate(net, inputs)
    assert not np.allclose(evaluate(net, inputs | {"pot": inputs["pot"] / 2}), said)
    shown = "board" if order == "numbers" else "weakest_first"
    assert not np.allclose(evaluate(net, inputs | {shown: inputs[shown][::-1].copy()}), said)


def test_the_order_of_the_cards_of_a_board_does_not_matter() -> None:
    spec = HandValueSpec(5, "numbers")
    net, inputs = awake(HandValueNet(spec, SMALL, seed=1)), some_inputs(spec)
    turned = inputs | {"board": inputs["board"][:, ::-1].copy()}
    assert np.array_equal(evaluate(net, turned), evaluate(net, inputs))


@pytest.mark.parametrize("order", ORDERS)
def test_a_row_does_not_depend_on_those_beside_it(order: HandOrder) -> None:
    spec = HandValueSpec(5, order)
    net, inputs = awake(HandValueNet(spec, SMALL, seed=1)), some_inputs(spec)
    alone = evaluate(net, {name: array[2:3] for name, array in inputs.items()})
    np.testing.assert_allclose(alone[0], evaluate(net, inputs)[2], rtol=1e-4, atol=1e-4)


def test_an_untrained_net_says_nearly_nothing_and_depends_on_its_seed_alone() -> None:
    spec = HandValueSpec()
    nets = [HandValueNet(spec, NetworkConfig(layers=(500,) * 7), seed=seed) for seed in (1, 1, 2)]
    one, same, other = (to_weights(net, model="m", version=0, game="g").digest for net in nets)
    assert one == same != other
    values = evaluate(nets[0], some_inputs(spec))
    assert 1e-3 < np.abs(values).max() < 3


@pytest.mark.parametrize("order", ORDERS)
def test_weights_as_bytes_give_back_the_net(order: HandOrder) -> None:
    spec = HandValueSpec(4, order)
    net, inputs = awake(HandValueNet(spec, SMALL, seed=1)), some_inputs(spec)
    data = to_weights(net, model="m", version=3, game="holdem").to_bytes()
    weights = Weights.from_bytes(data, source="here")
    again = build_net(weights)
    assert isinstance(again, HandValueNet)
    assert again.spec == spec
    assert again.accepts(weights)
    assert np.array_equal(evaluate(again, inputs), evaluate(net, inputs))
    other = new_net(replace(spec, cards=5), SMALL, seed=1)
    assert not other.accepts(weights)


@pytest.mark.parametrize(
    "change",
    [
        {"layers": []},
        {"layers": [0]},
        {"hands": {}},
        {"hands": {"cards": 6, "order": "strength"}},
        {"blocks": 3},
        {"hands": {"cards": 5, "order": "luck"}},
        {"hands": None},
    ],
)
def test_a_description_of_no_such_net_is_refused(change: dict[str, object]) -> None:
    network = HandValueNet(HandValueSpec(), SMALL).network
    assert network_parts(json.loads(json.dumps(network))) == (HandValueSpec(), NetworkConfig(layers=(16, 12)))
    with pytest.raises(DataError, match="description of a network"):
        network_parts(network | change)


@pytest.mark.parametrize("order", ORDERS)
def test_a_server_answers_with_it(order: HandOrder) -> None:
    spec = HandValueSpec(5, order)
    net, inputs = awake(HandValueNet(spec, SMALL, seed=1)), some_inputs(spec)
    weights = to_weights(net, model="m", version=3, game="holdem")
    host = ModelHost(
        InferenceConfig(max_batch_rows=2), precision="fp32", device="cpu", fetch=lambda _: weights
    )
    host.check("m", inputs)
    reply = host.evaluate("m", inputs)
    np.testing.assert_allclose(reply.arrays["values"], evaluate(net, inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_in_half_precision_gains_still_cancel(order: HandOrder) -> None:
    spec = HandValueSpec(5, order)
    net, inputs = awake(HandValueNet(spec, SMALL, seed=1)), some_inputs(spec)
    exact, precision = evaluate(net, inputs), resolve("bf16", "cpu")
    with precision.autocast():
        cast = evaluate(net, inputs)
    for values in (cast, evaluate(precision.prepare(net), inputs)):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, exact, atol=0.05 * np.abs(exact).max())
        np.testing.assert_allclose((values * inputs["ranges"]).sum((1, 2)), 0.0, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_a_card_tells_what_goes_in(order: HandOrder) -> None:
    net = HandValueNet(HandValueSpec(5, order), SMALL)
    card = model_card(to_weights(net, model="river", version=1, game="holdem"), {})
    assert all(f"`{spec.name}`" in card for spec in (*net.spec.inputs, *net.spec.outputs))
    assert "layers of 16 and 12 units" in card
    assert "[B, 5]" in card or "[B, 1081]" in card
