"""tamen's own network for the peers that run on torch, evaluated by torch as a user of theirs would do it."""

import numpy as np
import torch

from configs.schema import NetworkConfig
from core.messages import BoardSpec
from networks.build import new_net
from networks.precision import resolve

CONNECT_FOUR = BoardSpec(height=6, width=7, policy="columns")


class TamenNet:
    """An untrained network for connect four on the CPU, in float32, on one thread.

    Attributes:
        rows: positions evaluated so far.
    """

    def __init__(self, *, blocks: int, channels: int) -> None:
        torch.set_num_threads(1)
        config = NetworkConfig(blocks=blocks, channels=channels, precision="fp32")
        self._net = resolve("fp32", "cpu").prepare(new_net(CONNECT_FOUR, config, seed=0))
        self.rows = 0

    @torch.inference_mode()
    def __call__(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits [B, 7], values [B]) of int8 [B, 42]: 1 own stone, -1 the other's; the top row first."""
        self.rows += len(cells)
        outputs = self._net({"cells": cells})
        return outputs["policy"], outputs["value"]


def random_cells(rows: int) -> torch.Tensor:
    """Return int8 [rows, 42] for which the network has as much to do as for positions of games."""
    return torch.from_numpy(np.random.default_rng(0).integers(-1, 2, (rows, 42)).astype(np.int8))
