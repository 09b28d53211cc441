"""Policy and value of an environment: two perceptrons, behind convolutions where it shows images.

Shapes: `B` rows, `P` numbers of a policy.

Policy and value share no hidden layer, as is usual in continuous control (Andrychowicz et al. 2021, arXiv 2006.05990
§3.2); the convolutions of images are shared, for they are nearly all of the work.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from configs.schema import NetworkConfig
from core.environments import EnvironmentSpec
from networks.normaliser import Normaliser
from networks.perceptrons import TwinLayer, twin_perceptrons
from networks.weights import Weights, network_description

CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Channels, size and stride of each layer, by Mnih et al. 2015."""
MIN_IMAGE_SIDE = 36
"""Of a smaller image the convolutions leave nothing."""
NEVER = -1e9
"""Logit of a choice that a mask forbids: its probability is 0 in float32, and no sum with it is infinite."""


class ActorCritic(nn.Module):
    """Policy and value of observations.

    Observations of bytes are scaled to [0, 1], others normalised; see `set_observation_moments`. Images are seen by
    convolutions, all else is one row of numbers.

    Where observations hold a mask (`spec.masked`), the logits of what it forbids are `NEVER`. So whatever is made of
    the policy knows nothing of masks: such a choice has probability 0, adds nothing to the entropy and gets no
    gradient (Huang and Ontañón 2020, arXiv 2006.14171). Where all are forbidden, each is as likely as another.

    Args:
        spec: of the environment.
        config: layers; the precision is the caller's to choose.
        seed: of the initial weights; nothing is drawn from torch's global generator.

    Attributes:
        network: plain description that, with the parameters and buffers, makes the same net again.
        normaliser: in which unit observations and rewards are.
    """

    def __init__(self, spec: EnvironmentSpec, config: NetworkConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.spec = spec
        self.network: dict[str, Any] = network_description(spec, config)
        self._bytes = spec.observation_dtype == "uint8"
        self.normaliser = Normaliser(0 if self._bytes else math.prod(spec.seen_shape))
        if is_image(spec):
            channels, height, width = spec.observation_shape
            self.trunk = _trunk(channels)
            features = CONVOLUTIONS[-1][0] * _side_after(height) * _side_after(width)
        else:
            self.trunk = None
            features = math.prod(spec.seen_shape)
        gaussian = spec.actions.kind == "gaussian"
        sizes = (features, *config.layers)
        self.hidden = nn.ModuleList(TwinLayer(*pair) for pair in pairwise(sizes))
        self.policy_head = _linear(sizes[-1], sum(spec.actions.sizes))
        self.value_head = _linear(sizes[-1], 1)
        # The same for all observations, as in Schulman et al. 2017.
        self.log_deviations = nn.Parameter(torch.zeros(spec.actions.sizes)) if gaussian else None
        initialise(self, seed)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return {"policy": [B, P], "value": [B] in units of raw reward}, float32 whatever the computation is in.

        Args:
            inputs: {"observation": [B, *shape]} as the environment gave it.
        """
        observation, mask = self._parts(inputs["observation"])
        x = self._features(observation)
        policy, value = twin_perceptrons(x, self.hidden, self.policy_head, self.value_head)
        policy = policy.float()
        if mask is not None:
            policy = policy.masked_fill(mask == 0, NEVER)
        if self.log_deviations is not None:
            policy = torch.cat([policy, self.log_deviations.float().expand_as(policy)], dim=1)
        return {"policy": policy, "value": value.squeeze(1).float() * self.normaliser.reward_scale}

    def accepts(self, weights: Weights) -> bool:
        """Return whether `weights` are of this very architecture and environment."""
        return weights.network == self.network

    @property
    def reward_scale(self) -> float:
        """Raw reward in one unit of what the value head says."""
        return float(self.normaliser.reward_scale)

    def rescale_rewards(self, new_scale: float) -> None:
        """Let the value head speak in units of `new_scale` > 0 raw rewards, and values stay what they are.

        The last layer is divided by what the unit grows by (PopArt, van Hasselt et al. 2016, arXiv 1602.07714).
        """
        head, old_scale = self.value_head, self.reward_scale
        self.normaliser.reward_scale.fill_(new_scale)
        ratio = old_scale / self.reward_scale
        with torch.no_grad():
            head.weight.mul_(ratio)
            head.bias.mul_(ratio)

    def set_observation_moments(self, mean: np.ndarray, deviation: np.ndarray) -> None:
        """Normalise observations by `mean` and `deviation` > 0, of the shape of an observation; not for bytes.

        A mask stays what it is, whatever its moments are.
        """
        seen = math.prod(self.spec.seen_shape)
        self.normaliser.set_moments(mean.ravel()[:seen], deviation.ravel()[:seen])

    def observation_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and deviation by which observations are normalised, float64 of their shape; not for bytes.

        A mask, which is not normalised, has 0 and 1.
        """
        shape = self.spec.observation_shape
        mean, deviation = np.zeros(math.prod(shape)), np.ones(math.prod(shape))
        seen = math.prod(self.spec.seen_shape)
        mean[:seen] = self.normaliser.mean.double().cpu().numpy()
        deviation[:seen] = 1 / self.normaliser.inverse_deviation.double().cpu().numpy()
        return mean.reshape(shape), deviation.reshape(shape)

    def _parts(self, observation: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what there is to see in observations, and their masks [B, P], if they have any."""
        if not self.spec.masked:
            return observation, None
        seen = self.spec.seen_shape[0]
        return observation[:, :seen], observation[:, seen:]

    def _features(self, observation: Tensor) -> Tensor:
        """Return what the perceptrons are given: [B, features] in the dtype of their parameters."""
        dtype = self.value_head.weight.dtype
        if self.trunk is not None:
            return self.trunk((observation * (1 / 255)).to(dtype))
        x = observation if observation.ndim == 2 else observation.reshape(len(observation), -1)
        return (x * (1 / 255) if self._bytes else self.normaliser(x)).to(dtype)


def is_image(spec: EnvironmentSpec) -> bool:
    """Return whether observations are [channels, height, width] bytes, large enough for the convolutions."""
    shape = spec.observation_shape
    return spec.observation_dtype == "uint8" and len(shape) == 3 and min(shape[1:]) >= MIN_IMAGE_SIDE


def initialise(net: ActorCritic, seed: int) -> None:
    """Draw all weights anew, orthogonal (Saxe et al. 2014, arXiv 1312.6120), and set all biases to zero.

    The policy's head is drawn a hundred times smaller: an untrained net does one thing as readily as another
    (Andrychowicz et al. 2021, §3.2).
    """
    generator = torch.Generator().manual_seed(seed)
    gains = {net.policy_head: 0.01, net.value_head: 1.0}
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, TwinLayer | nn.Conv2d | nn.Linear):
                for weight in layer.weight if isinstance(layer, TwinLayer) else [layer.weight]:
                    nn.init.orthogonal_(weight, gains.get(layer, math.sqrt(2)), generator=generator)
                nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]


def _trunk(channels: int) -> nn.Sequential:
    """Make the convolutions, their parameters unset."""
    layers: list[nn.Module] = []
    for outputs, size, stride in CONVOLUTIONS:
        layers += [
            nn.utils.skip_init(nn.Conv2d, channels, outputs, size, stride=stride),
            nn.ReLU(inplace=True),
        ]
        channels = outputs
    return nn.Sequential(*layers, nn.Flatten())


def _side_after(side: int) -> int:
    """Return the height or width that the convolutions leave of `side`."""
    for _, size, stride in CONVOLUTIONS:
        side = (side - size) // stride + 1
    return side


def _linear(inputs: int, outputs: int) -> Any:
    """Make a linear layer, its parameters unset."""
    return nn.utils.skip_init(nn.Linear, inputs, outputs)
