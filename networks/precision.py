"""Which arithmetic a network runs in: one policy for inference and learning.

"auto" takes bf16 only where it is fast: on a GPU that has it, and on a CPU that has tiles for it (AMX). Others emulate
it, or have vectors for it (AVX-512 BF16), which do twice the products of fp32, where the kernels of `networks.winograd`
need a quarter: a 13×13 net of 3 blocks × 32 channels evaluated 295 positions/s in bf16 and 2,669 in eager fp32 on a CPU
with AVX2 alone, and on one with such vectors 6,400 in bf16 and 9,200 in those kernels. Where bf16 is not fast, a GPU
takes fp16, which needs a loss scale to learn, and a CPU fp32.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from core.errors import UsageError
from networks.build import Net


@dataclass(frozen=True, slots=True)
class Precision:
    """The arithmetic of one network on one device.

    Attributes:
        name: "bf16", "fp16" or "fp32".
        why: the reason it was taken, for the log.
        device: of the network.
        dtype: of convolutions and matrix products. Master weights and losses are float32 in any case.
        use_grad_scaler: small gradients would be lost, so the loss has to be scaled.
        channels_last: memory order in which convolutions of this kind are fastest.
    """

    name: str
    why: str
    device: torch.device
    dtype: torch.dtype
    use_grad_scaler: bool
    channels_last: bool

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context in which float32 modules compute in `dtype`."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def place(self, net: Net) -> Net:
        """Move a net to the device, its parameters in float32 and in the fastest memory order."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return net.to(self.device, memory_format=layout)  # pyright: ignore[reportCallIssue]

    def prepare(self, net: Net) -> Net:
        """Make a net ready to evaluate: `place` it, and cast its parameters once, not in every forward."""
        return self.place(net).to(self.dtype).eval()


def resolve(precision: str, device: str | torch.device) -> Precision:
    """Return the arithmetic for `precision` ("auto", "bf16", "fp16" or "fp32") on a device; see the module.

    A precision named outright is obeyed, however slow it is there.

    Raises:
        UsageError: for another name, or a device that torch does not have here.
    """
    place = _checked_device(device)
    name, why = _fastest(place) if precision == "auto" else (precision, "the configuration asks for it")
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if name not in dtypes:
        raise UsageError(
            f"precision {precision!r} is not known",
            why="it is one of auto, bf16, fp16, fp32",
            fix="set network.precision=auto",
        )
    return Precision(
        name=name,
        why=why,
        device=place,
        dtype=dtypes[name],
        use_grad_scaler=name == "fp16",
        # On an AVX2 CPU in fp32 channels-last evaluates 13-36 % more positions/s than channels-first at 1 to
        # 256 rows: oneDNN need not reorder between layers. On a GPU it is the half precisions that want it.
        channels_last=place.type == "cpu" or name != "fp32",
    )


def _fastest(device: torch.device) -> tuple[str, str]:
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "the GPU has bf16"
        return "fp16", "the GPU has no bf16"
    if device.type == "cpu" and torch.cpu._is_amx_tile_supported():
        return "bf16", "the CPU has tiles for bf16"
    return "fp32", f"the {device.type} has no fast bf16"


def _checked_device(device: str | torch.device) -> torch.device:
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch built without CUDA
        raise UsageError(
            f"device {str(device)!r} cannot be used",
            why=str(error).splitlines()[0],
            fix="use cpu, or cuda on a machine with a GPU and its driver",
        ) from error
    return place
