"""Which arithmetic is taken, and how far each is from fp32."""

import pytest
import torch

from configs.schema import NetworkConfig
from core.errors import UsageError
from core.messages import BoardSpec
from networks.build import build_net, load_into, new_net, to_weights
from networks.precision import resolve
from networks.tower import BoardNet

SPEC = BoardSpec(5, 5, extra_actions=1, goal_edges=True)
CONFIG = NetworkConfig(blocks=2, channels=16)


def a_net_with_opinions() -> BoardNet:
    net = new_net(SPEC, CONFIG, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return net


def cells() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {"cells": torch.randint(-1, 2, (32, 25), generator=generator).to(torch.int8)}


def test_auto_takes_bf16_on_a_cpu_only_if_it_has_instructions_for_it() -> None:
    expected = "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"
    taken = resolve("auto", "cpu")
    assert taken.name == expected
    assert "CPU" in taken.why or "cpu" in taken.why


@pytest.mark.parametrize(
    ("name", "dtype", "scaled"),
    [("bf16", torch.bfloat16, False), ("fp16", torch.float16, True), ("fp32", torch.float32, False)],
)
def test_a_precision_named_outright_is_obeyed(name: str, dtype: torch.dtype, scaled: bool) -> None:
    taken = resolve(name, "cpu")
    assert (taken.name, taken.dtype, taken.use_grad_scaler) == (name, dtype, scaled)


def test_another_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="auto, bf16, fp16, fp32"):
        resolve("int8", "cpu")


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        resolve("auto", device)


@pytest.mark.parametrize(("name", "tolerance"), [("fp32", 1e-5), ("bf16", 0.1), ("fp16", 0.02)])
def test_each_precision_agrees_with_fp32_as_far_as_its_digits_go(name: str, tolerance: float) -> None:
    net, precision = a_net_with_opinions(), resolve(name, "cpu")
    with torch.inference_mode():
        reference = net(cells())
    low = precision.prepare(build_net(to_weights(net, model="m", version=0, game="g")))
    with torch.inference_mode(), precision.autocast():
        outputs = low(cells())
    assert outputs["policy"].dtype is precision.dtype
    exact, found = reference["policy"].softmax(1), outputs["policy"].float().softmax(1)
    assert float((exact - found).abs().sum(1).max()) < tolerance
    assert float((reference["value"] - outputs["value"].float()).abs().max()) < tolerance


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_half_precision_really_computes_in_fewer_digits(name: str) -> None:
    net, precision = a_net_with_opinions().requires_grad_(False), resolve(name, "cpu")
    with precision.autocast():
        low = net(cells())["policy"]
    assert low.dtype is precision.dtype
    assert not torch.equal(low.float(), net(cells())["policy"])


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_a_prepared_net_takes_new_weights_in_place(name: str) -> None:
    precision = resolve(name, "cpu")
    prepared = precision.prepare(new_net(SPEC, CONFIG, seed=1))
    before = [parameter.data_ptr() for parameter in prepared.parameters()]
    load_into(prepared, to_weights(a_net_with_opinions(), model="m", version=1, game="g"))
    assert [parameter.data_ptr() for parameter in prepared.parameters()] == before
    fresh = precision.prepare(a_net_with_opinions())
    with torch.inference_mode(), precision.autocast():
        assert torch.equal(prepared(cells())["policy"], fresh(cells())["policy"])
