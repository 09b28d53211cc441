"""Models in memory: what they answer, when they change, and what a cache may never change."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import InferenceConfig, NetworkConfig
from core.environments import ActionSpec, EnvironmentSpec
from core.errors import DataError, EvaluationError
from inference_server import model_host
from inference_server.model_host import ModelHost
from networks.build import new_net, to_weights
from networks.tower import BoardNet
from networks.wire import from_wire, to_wire
from tests.inference_server.brains import a_host, assert_same_outputs, boards, damaged, outputs, some_weights


def test_a_reply_has_a_policy_and_a_value_a_row_and_the_version_that_made_it() -> None:
    reply = a_host(some_weights(version=7)).evaluate("main", boards(5))

    assert reply.weights_version == 7
    assert reply.arrays["policy"].shape == (5, 9)
    assert reply.arrays["policy"].dtype == np.float16
    assert reply.arrays["value"].shape == (5,)
    assert reply.arrays["value"].dtype == np.float32
    assert (np.abs(reply.arrays["value"]) <= 1).all()


def test_every_row_is_answered_as_if_it_came_alone() -> None:
    weights, arrays = some_weights(), boards(6)
    together = outputs(weights, arrays)
    alone = [outputs(weights, {"cells": arrays["cells"][row : row + 1]}) for row in range(6)]

    assert_same_outputs(together, {name: np.concatenate([one[name] for one in alone]) for name in together})
    assert len(np.unique(together["value"])) > 1


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 20])
def test_a_request_larger_than_a_batch_is_answered_in_slices(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, seen = some_weights(channels=4), []
    whole = outputs(weights, boards(rows))
    forward = BoardNet.forward
    monkeypatch.setattr(
        BoardNet, "forward", lambda net, inputs: seen.append(len(inputs["cells"])) or forward(net, inputs)
    )

    reply = a_host(weights, max_batch_rows=8).evaluate("main", boards(rows))

    assert_same_outputs(reply.arrays, whole)
    assert max(seen) <= 8
    assert sum(seen) == rows


def test_models_of_two_games_stand_side_by_side() -> None:
    small, large = some_weights("small"), some_weights("large", game="connect_four")
    host = a_host(small, large)

    assert host.evaluate("small", boards(2)).arrays["policy"].shape == (2, 9)
    assert host.evaluate("large", boards(2, cells=42)).arrays["policy"].shape == (2, 7)


def test_the_model_asked_longest_ago_makes_room_and_comes_back_when_it_is_asked_again() -> None:
    host = a_host(*(some_weights(name) for name in "abc"), models_in_memory=2)
    for name in "abac":
        host.evaluate(name, boards(1))

    assert [host.version(name) for name in "abc"] == [0, None, 0]
    assert_same_outputs(host.evaluate("b", boards(3)).arrays, outputs(some_weights("b"), boards(3)))


@pytest.mark.parametrize("channels", [4, 8])
def test_new_weights_answer_from_then_on(channels: int) -> None:
    old, new = (some_weights(version=version, channels=channels) for version in (1, 2))
    host = a_host(old)
    before = host.evaluate("main", boards(4))
    host.load(new)
    after = host.evaluate("main", boards(4))

    assert (before.weights_version, after.weights_version) == (1, 2)
    assert_same_outputs(after.arrays, outputs(new, boards(4)))
    assert np.abs(after.arrays["value"] - before.arrays["value"]).max() > 0.01


@pytest.mark.parametrize("channels", [4, 8])
def test_weights_answer_while_those_after_them_are_made_ready_in_the_memory_of_those_before(
    channels: int,
) -> None:
    versions = [some_weights(version=version, channels=channels) for version in range(1, 6)]
    host = a_host(versions[0])
    host.evaluate("main", boards(1))
    for held, new in pairwise(versions):
        ready = host.prepare(new)
        assert_same_outputs(host.evaluate("main", boards(4)).arrays, outputs(held, boards(4)))
        host.install(ready)
        assert_same_outputs(host.evaluate("main", boards(4)).arrays, outputs(new, boards(4)))


def test_weights_that_do_not_match_their_digest_are_refused_and_the_old_ones_stay() -> None:
    host = a_host(some_weights(version=1))
    host.evaluate("main", boards(1))
    with pytest.raises(DataError, match="do not match their digest"):
        host.load(damaged(some_weights(version=2)))

    assert host.version("main") == 1
    assert_same_outputs(host.evaluate("main", boards(4)).arrays, outputs(some_weights(version=1), boards(4)))


@pytest.mark.parametrize("cache_positions", [0, 64])
def test_weights_that_cannot_be_made_ready_leave_the_old_ones_as_they_were(
    cache_positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(net: BoardNet) -> None:
        raise MemoryError

    host = a_host(some_weights(version=1), cache_positions=cache_positions)
    before = host.evaluate("main", boards(4))
    with monkeypatch.context() as patch:
        patch.setattr(model_host, "fastest_forward", no_memory)
        with pytest.raises(MemoryError):
            host.load(some_weights(version=2))
    after = host.evaluate("main", boards(8))

    assert after.weights_version == host.version("main") == 1
    assert_same_outputs({name: array[:4] for name, array in after.arrays.items()}, before.arrays)
    assert_same_outputs(after.arrays, outputs(some_weights(version=1), boards(8)))


def test_weights_of_another_architecture_take_the_place_of_the_old() -> None:
    host = a_host(some_weights(version=1))
    host.evaluate("main", boards(1))
    wider = some_weights(version=2, channels=16)
    host.load(wider)

    assert_same_outputs(host.evaluate("main", boards(4)).arrays, outputs(wider, boards(4)))


BAD_REQUESTS = {
    "another name": ({"stones": np.zeros((2, 9), np.int8)}, "it holds the arrays"),
    "one array too many": (dict(boards(2)) | {"komi": np.zeros(2, np.float32)}, "it holds the arrays"),
    "another dtype": ({"cells": np.zeros((2, 9), np.float32)}, "float32"),
    "another shape": ({"cells": np.zeros((2, 8), np.int8)}, r"int8\[2, 8\]"),
    "a board without an axis of rows": ({"cells": np.zeros(9, np.int8)}, r"int8\[9\]"),
    "no row": ({"cells": np.zeros((0, 9), np.int8)}, "at least 1"),
}


@pytest.mark.parametrize(("arrays", "why"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_a_request_that_does_not_fit_the_model_is_refused_with_the_reason(
    arrays: dict[str, np.ndarray], why: str
) -> None:
    with pytest.raises(EvaluationError, match=why):
        a_host(some_weights()).check("main", arrays)


def test_a_request_that_fits_passes() -> None:
    a_host(some_weights()).check("main", boards(3))


def test_a_forward_that_fails_is_an_evaluation_error_and_the_next_one_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def out_of_memory(net: BoardNet, inputs: object) -> None:
        raise RuntimeError("out of memory\nand more")

    host = a_host(some_weights(channels=4))
    with monkeypatch.context() as patch:
        patch.setattr(BoardNet, "forward", out_of_memory)
        with pytest.raises(EvaluationError, match="why: out of memory\n"):
            host.evaluate("main", boards(2))

    assert len(host.evaluate("main", boards(2)).arrays["value"]) == 2


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=24), min_size=1, max_size=8))
def test_a_cache_changes_no_answer(requests: list[list[int]]) -> None:
    pool, weights = boards(41)["cells"], some_weights()
    expected, host = outputs(weights, {"cells": pool}), a_host(weights, cache_positions=16)
    for rows in requests:
        reply = host.evaluate("main", {"cells": pool[rows]})
        assert_same_outputs(reply.arrays, {name: array[rows] for name, array in expected.items()})
    asked = sum(map(len, requests))
    assert host.forward_rows + host.cached_rows == asked
    assert host.forward_rows >= len({row for rows in requests for row in rows})


def test_a_position_known_already_costs_no_forward() -> None:
    host = a_host(some_weights(), cache_positions=64)
    host.evaluate("main", boards(10))
    computed = host.forward_rows
    host.evaluate("main", boards(10))

    assert host.forward_rows == computed <= 10


def test_new_weights_forget_what_the_old_ones_said() -> None:
    host = a_host(some_weights(version=1), cache_positions=64)
    host.evaluate("main", boards(10))
    host.load(some_weights(version=2))
    reply = host.evaluate("main", boards(10))

    assert reply.weights_version == 2
    assert_same_outputs(reply.arrays, outputs(some_weights(version=2), boards(10)))


def test_equal_weights_under_a_new_version_keep_what_is_known() -> None:
    host = a_host(some_weights(version=1), cache_positions=64)
    host.evaluate("main", boards(10))
    computed = host.forward_rows
    host.load(replace(some_weights(version=1), version=2))
    reply = host.evaluate("main", boards(10))

    assert reply.weights_version == 2
    assert host.forward_rows == computed


def test_two_models_do_not_share_a_cache() -> None:
    a, b = some_weights("a", version=1), some_weights("b", version=2)
    host: ModelHost = a_host(a, b, cache_positions=64)
    host.evaluate("a", boards(5))

    assert_same_outputs(host.evaluate("b", boards(5)).arrays, outputs(b, boards(5)))


def test_a_net_of_an_environment_answers_in_float32_and_new_scales_reach_it() -> None:
    spec = EnvironmentSpec((3,), "float32", ActionSpec("gaussian", (2,), low=(-1.0, -1.0), high=(1.0, 1.0)))
    net = new_net(spec, NetworkConfig(layers=(8,)), seed=1)
    host = a_host(to_weights(net, model="main", version=0, game="gym:X-v0"))
    arrays = {"observation": np.full((5, 3), 2.0, np.float32)}
    before = host.evaluate("main", arrays)
    net.set_observation_moments(np.full(3, 2.0), np.ones(3))
    net.rescale_rewards(10.0)
    host.load(to_weights(net, model="main", version=1, game="gym:X-v0"))
    after = host.evaluate("main", arrays)

    assert {name: (array.dtype, array.shape) for name, array in after.arrays.items()} == {
        "policy": (np.float32, (5, 4)),
        "value": (np.float32, (5,)),
    }
    assert np.abs(before.arrays["value"]).min() > 0.01
    assert not after.arrays["value"].any()  # what lies at the mean, without biases


@pytest.mark.parametrize("cache_positions", [0, 64])
def test_what_is_made_ready_changes_nothing_until_it_is_installed(cache_positions: int) -> None:
    old, new = some_weights(version=1), some_weights(version=2)
    host = a_host(old, cache_positions=cache_positions)
    host.evaluate("main", boards(4))
    ready = host.prepare(new)
    before = host.evaluate("main", boards(8))
    host.install(ready)
    after = host.evaluate("main", boards(8))

    assert (before.weights_version, after.weights_version) == (1, 2)
    assert_same_outputs(before.arrays, outputs(old, boards(8)))
    assert_same_outputs(after.arrays, outputs(new, boards(8)))


def test_a_version_that_was_made_ready_too_late_does_not_take_the_place_of_a_newer_one() -> None:
    host = a_host(some_weights(version=1))
    host.evaluate("main", boards(1))
    late = host.prepare(some_weights(version=2))
    host.load(some_weights(version=3))
    host.install(late)

    assert host.version("main") == 3
    assert_same_outputs(host.evaluate("main", boards(4)).arrays, outputs(some_weights(version=3), boards(4)))


def test_equal_weights_that_were_made_ready_before_others_came_find_an_empty_cache() -> None:
    a, b = some_weights(version=1), some_weights(version=2)
    host = a_host(a, cache_positions=64)
    host.evaluate("main", boards(4))
    ready = host.prepare(replace(a, version=3))
    host.load(b)
    host.evaluate("main", boards(4))
    host.install(ready)

    assert_same_outputs(host.evaluate("main", boards(4)).arrays, outputs(a, boards(4)))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_host_in_16_bits_computes_the_same_from_what_travelled_in_16(precision: str) -> None:
    weights = some_weights(channels=4)
    host = ModelHost(InferenceConfig(), precision=precision, device="cpu", fetch=lambda model: weights)
    arrived = from_wire(to_wire(weights, host.wire_form), source="it")
    other = ModelHost(InferenceConfig(), precision=precision, device="cpu", fetch=lambda model: arrived)

    assert host.wire_form == precision
    for name, array in host.evaluate("main", boards(4)).arrays.items():
        np.testing.assert_array_equal(other.evaluate("main", boards(4)).arrays[name], array)
