"""A residual tower for boards of any size, with a policy head and a value head.

Shapes: `B` rows, `C` channels, `H`, `W` height and width of the board, `A` actions.

No parameter depends on H or W, so a net trained on a small board goes on learning on a larger one.

There is no normalisation layer. Batch statistics would differ between a microbatch, the whole batch and the
averaged weights; batch or group norm, or a learnable gain, before each convolution took a quarter of the
positions a second of a 13×13 net of 3 blocks × 32 channels on a CPU. As in Fixup (Zhang et al. 2019, arXiv
1901.09321) the last convolution of every residual branch starts at zero instead: the tower starts as the
identity, and neither activations nor gradients grow with depth. We leave out Fixup's scalar multipliers and
its depth-dependent scale, whose work Adam's step sizes do: 3, 6 and 16 blocks all learn in 400 steps who is
connected on a full 7×7 hex board.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from configs.schema import NetworkConfig
from core.messages import BoardSpec
from networks.weights import Weights, network_description

VALUE_FEATURES = 64


class BoardNet(nn.Module):
    """Policy and value of board positions.

    Args:
        spec: of the game's board.
        config: blocks and channels; the precision is the caller's to choose.
        seed: of the initial weights; nothing is drawn from torch's global generator.

    Attributes:
        network: plain description that, with the parameters, makes the same net again.
    """

    edges: Tensor

    def __init__(self, spec: BoardSpec, config: NetworkConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.spec = spec
        self.network: dict[str, Any] = network_description(spec, config)
        channels = config.channels
        self.register_buffer("edges", _static_planes(spec), persistent=False)
        self.stem = _conv(2 + self.edges.shape[1], channels, size=3)
        # Every second block pools, so that what happens at one edge is known at the other after two blocks
        # and not only after as many 3×3 convolutions as the board is wide (Wu 2019, arXiv 1902.10565 §3.3).
        self.blocks = nn.ModuleList(Block(channels, pools=index % 2 == 1) for index in range(config.blocks))
        self.policy_head = PolicyHead(spec, channels)
        self.value_head = ValueHead(channels)
        self.soft_policy_head = PolicyHead(spec, channels) if config.soft_policy else None
        initialise(self, seed)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return {"policy": logits [B, A], "value": [B] in [-1, 1]}, both in the dtype of the computation.

        In training a net that has the head for it also returns "soft_policy": logits [B, A].

        Args:
            inputs: {"cells": int8 [B, H*W]} from the view of the player to move: 1 own, -1 other, 0 empty.

        Illegal moves get logits like any other; masking them is the caller's.
        """
        x = self.stem(self._planes(inputs["cells"]))
        for block in self.blocks:
            x = block(x)
        return self.heads(functional.relu_(x))

    def heads(self, x: Tensor) -> dict[str, Tensor]:
        """Return what `forward` does from `x` [B, C, H, W], the relu of the last block."""
        summary = pooled(x)
        outputs = {"policy": self.policy_head(x, summary), "value": self.value_head(summary)}
        if self.soft_policy_head is not None and self.training:  # nobody who plays has a use for it
            outputs["soft_policy"] = self.soft_policy_head(x, summary)
        return outputs

    def accepts(self, weights: Weights) -> bool:
        """Return whether `weights` are of this very architecture and board."""
        return weights.network == self.network

    def _planes(self, cells: Tensor) -> Tensor:
        """Return [B, 3 or 5, H, W]: own stones, the other's, the whole board, and goal edges if any."""
        board = cells.view(-1, 1, self.spec.height, self.spec.width)
        edges = self.edges.expand(len(cells), -1, -1, -1)
        return torch.cat([(board == 1).to(edges.dtype), (board == -1).to(edges.dtype), edges], dim=1)


class Block(nn.Module):
    """x + second(relu(first(relu(x)))); one that `pools` adds a summary of the whole board in the middle."""

    def __init__(self, channels: int, *, pools: bool) -> None:
        super().__init__()
        self.first = _conv(channels, channels, size=3)
        self.second = _conv(channels, channels, size=3)
        self.pool = _linear(2 * channels, channels) if pools else None

    def forward(self, x: Tensor) -> Tensor:
        activated = functional.relu(x)
        y = self.first(activated)
        if self.pool is not None:
            y += self.pool(pooled(activated))[:, :, None, None]
        return self.second(functional.relu_(y)).add_(x)


class PolicyHead(nn.Module):
    """One logit a cell or a column, then those of the extra actions."""

    def __init__(self, spec: BoardSpec, channels: int) -> None:
        super().__init__()
        self.columns = spec.policy == "columns"
        self.hidden = _linear(channels, channels)
        self.board = _linear(2 * channels if self.columns else channels, 1)
        self.extras = _linear(2 * channels, spec.extra_actions) if spec.extra_actions else None

    def forward(self, x: Tensor, summary: Tensor) -> Tensor:
        # Linear layers on [B, H, W, C] instead of 1×1 convolutions: twice as fast on a CPU, where x lies like that.
        x = functional.relu_(self.hidden(x.permute(0, 2, 3, 1)))
        if self.columns:
            x = torch.cat([x.mean(1), x.amax(1)], dim=-1)
        logits = self.board(x).flatten(1)
        if self.extras is not None:
            logits = torch.cat([logits, self.extras(summary)], dim=1)
        return logits


class ValueHead(nn.Module):
    """The expected outcome from a summary of the board."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = _linear(2 * channels, VALUE_FEATURES)
        self.value = _linear(VALUE_FEATURES, 1)

    def forward(self, summary: Tensor) -> Tensor:
        return torch.tanh(self.value(functional.relu_(self.hidden(summary)))).squeeze(1)


def pooled(x: Tensor) -> Tensor:
    """Return [B, 2C]: mean and maximum of x [B, C, H, W] over the board."""
    return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)


def initialise(net: BoardNet, seed: int) -> None:
    """Draw all parameters anew: He's normal for what a ReLU follows, zero for what ends a residual branch.

    The last layers of the heads are drawn small, so that an untrained net's policy is nearly uniform and its
    value nearly 0: search then starts from no opinion instead of a random one.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in _layers(net):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
        for block in net.blocks:
            for layer in _layers(block):
                if layer is not block.first:
                    nn.init.zeros_(layer.weight)
        policies = [head for head in (net.policy_head, net.soft_policy_head) if head is not None]
        last = [layer for head in policies for layer in (head.board, head.extras)]
        for layer in (*last, net.value_head.value):
            if layer is not None:
                layer.weight.mul_(0.1)


def _layers(module: nn.Module) -> list[Any]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def _conv(inputs: int, outputs: int, *, size: int) -> Any:
    """Make a convolution that keeps H and W, its parameters unset."""
    return nn.utils.skip_init(nn.Conv2d, inputs, outputs, size, padding=size // 2)


def _linear(inputs: int, outputs: int) -> Any:
    """Make a linear layer, its parameters unset."""
    return nn.utils.skip_init(nn.Linear, inputs, outputs)


def _static_planes(spec: BoardSpec) -> Tensor:
    """Return float32 [1, 1 or 3, H, W]: ones, which show convolutions where the board ends, and goal edges.

    The own goal edges are the top and bottom rows, the other's the left and right columns.
    """
    planes = torch.zeros(3 if spec.goal_edges else 1, spec.height, spec.width)
    planes[0] = 1
    if spec.goal_edges:
        planes[1, [0, -1], :] = 1
        planes[2, :, [0, -1]] = 1
    return planes[None]
