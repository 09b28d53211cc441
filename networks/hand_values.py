"""Counterfactual values of all hands of hold'em, of both players' ranges and the pot.

Shapes: `B` rows, `H` hands that the board does not block, the weakest first, `P` points, `F` features of a hand, `U`
units.

DeepStack's (Moravčík et al. 2017, arXiv 1701.01724) is a perceptron of 7 × 500 PReLUs that sees 1,000 clusters of
hands and values each by weights of its own, and a layer behind it that lets players win what they lose to each other.
Here all hands of a player are valued by one function. But for cards that block others, what a hand is worth follows
from how much of either range is weaker and how much is stronger, and from the same of all other hands: a curve,
whatever board and hands it comes from. A trunk of PReLUs sees that curve, at points that are alike for all, and the
pot; what it says are the weights of a small perceptron for each player, which is asked about each hand. It is shown how
much is weaker and stronger than the hand, and what that would win in a showdown at once, which knows of equals and of
blocked cards; and tells by how much the value differs from the latter.

Fitted to 50,000 samples of the river, on 5,000 others, in units of what each player has put in:

    a perceptron of 7 × 500 for all hands, 45 epochs     Huber loss 0.081, mean error 0.168     7.3 MFLOP a row
    this, 4 × 512, the best of 32 epochs                 Huber loss 0.028, mean error 0.093     3.9 MFLOP a row

Most of what is left are the strongest tenth of hands in deep stacks: where each has put in a 200th of the stack the
loss was 0.53 for these, 0.02 for the others. After 8 epochs of 8,000 it was 0.046 with 4 × 256, 0.041 with 4 × 512,
0.042 with 4 × 768. Shown what each hand wins and loses apart, and how much others block, it learnt no better.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from configs.schema import NetworkConfig
from core.hands import HandValueSpec
from networks.weights import Weights, network_description

UNITS = 32
"""Of the perceptron that is asked for each hand."""

FIRST_SLOPE = 0.25
"""Of the PReLUs for what is below 0, by He et al. 2015."""

EVEN_POINTS, TAIL_POINTS, FARTHEST = 48, 20, 5e-5
"""How many points lie at even distances, how many towards the strongest, and which share is beyond the last."""

LEAST_SHARE = 1e-4
"""That is told from none where shares are compared by their logarithms."""

_FEATURES, _POT_FEATURES, _CURVES = 9, 5, 3


class HandValueNet(nn.Module):
    """Values of both players' hands in units of what each has put in.

    Args:
        spec: where it is asked.
        config: layers of the trunk; the precision is the caller's to choose.
        seed: of the initial weights; nothing is drawn from torch's global generator.

    Attributes:
        network: plain description that, with the parameters, makes the same net again.
    """

    points: Tensor
    scales: Tensor

    def __init__(self, spec: HandValueSpec, config: NetworkConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.spec = spec
        self.network: dict[str, Any] = network_description(spec, config)
        self.register_buffer("points", _points(), persistent=False)
        self.register_buffer("scales", torch.tensor(_SCALES)[:, None], persistent=False)
        sizes = (_CURVES * len(self.points) + _POT_FEATURES, *config.layers)
        self.hidden = nn.ModuleList(_linear(*pair) for pair in pairwise(sizes))
        # Not called weights, which decay.
        self.slopes = nn.Parameter(torch.empty(len(config.layers)))
        self.head = _linear(config.layers[-1], 2 * sum(_WEIGHTS))
        initialise(self, seed)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return {"values": float32 [B, 2, H]}, whatever the computation is in.

        What both players win, weighed by the ranges, sums to 0.

        Args:
            inputs: those of `core.hands.HandValueSpec`, of any float dtype.
        """
        pot, ranges, showdown = (inputs[name].float() for name in ("pot", "ranges", "showdown"))
        weaker, stronger = shares(ranges)
        x = torch.cat([curve(weaker, stronger, self.points / _UNITS_OF_POINTS), *_pot_features(pot)], dim=1)
        x = x.to(self.head.weight.dtype)
        for layer, slope in zip(self.hidden, self.slopes, strict=True):
            x = layer(x)
            x = functional.prelu(x, slope.to(x.dtype))
        weights = self.head(x).float().unflatten(1, (2, -1))
        # Eight bits of a mantissa would not tell hands apart.
        with torch.autocast(ranges.device.type, enabled=False):
            said = perceptrons(weights, self._features(weaker, stronger, showdown))
        return {"values": zero_sum(said + showdown, ranges)}

    def accepts(self, weights: Weights) -> bool:
        """Return whether `weights` are of this very architecture and purpose."""
        return weights.network == self.network

    def _features(self, weaker: Tensor, stronger: Tensor, showdown: Tensor) -> Tensor:
        """Return [B, 2, F, H]: what is known of each hand from the view of who holds it, and 1."""
        own = torch.stack([weaker, logarithm(weaker), logarithm(stronger), showdown], dim=2)
        ones = torch.ones_like(showdown)[:, :, None]
        return torch.cat([own, own.roll(1, 1), ones], dim=2) * self.scales.float()


def shares(ranges: Tensor) -> tuple[Tensor, Tensor]:
    """Return what shares of each range are weaker and stronger than each hand, [B, 2, H] each.

    Half of a hand's own mass is either. Sums are of float64: in float32 little would be told of the strongest.

    Args:
        ranges: float32 [B, 2, H] masses, the weakest hand first.
    """
    masses = ranges.double()
    masses = masses / masses.sum(2, keepdim=True).clamp_min(torch.finfo(ranges.dtype).tiny)
    weaker = (masses.cumsum(2) - masses / 2).clamp(0, 1)
    return weaker.float(), (1 - weaker).float()


def curve(weaker: Tensor, stronger: Tensor, points: Tensor) -> Tensor:
    """Return [B, 3 P]: how ranges differ at the points, in shares, and in logarithms of what is weaker and stronger.

    Args:
        weaker: [B, 2, H] shares of either range.
        stronger: likewise.
        points: [P], shares that are weaker of both ranges on average, rising.
    """
    mean = weaker.mean(1)
    after = torch.searchsorted(mean, points.expand(len(mean), -1).contiguous()).clamp(1, mean.shape[1] - 1)
    low, high = mean.gather(1, after - 1), mean.gather(1, after)
    part = ((points - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)[:, None]
    places = after[:, None].expand(-1, 2, -1)
    below, above = (
        torch.lerp(one.gather(2, places - 1), one.gather(2, places), part) for one in (weaker, stronger)
    )
    of_both = torch.cat([4 * below, logarithm(below), logarithm(above)], dim=2)
    return of_both[:, 0] - of_both[:, 1]


def logarithm(share: Tensor) -> Tensor:
    """Return the natural logarithm of shares, of which the least is `LEAST_SHARE`."""
    return (share + LEAST_SHARE).log()


def perceptrons(weights: Tensor, features: Tensor) -> Tensor:
    """Return [B, 2, H]: what each player's perceptron of ReLUs, and a line beside it, says of each hand.

    Args:
        weights: [B, 2, F U + U + F], those of the units, of what they say, and of the line.
        features: [B, 2, F, H], the last of which is 1.
    """
    units, said, line = weights.flatten(0, 1).split(_WEIGHTS, dim=1)
    seen = features.flatten(0, 1)
    active = functional.relu_(units.unflatten(1, (UNITS, -1)) @ seen)
    return (said[:, None] @ active + line[:, None] @ seen).view_as(features[:, :, 0])


def zero_sum(values: Tensor, ranges: Tensor) -> Tensor:
    """Return `values` moved by one number a row, so that what one player wins the other loses.

    With ranges r and values f of players 1 and 2:

        e = r_1 · f_1 + r_2 · f_2
        f_i - e / (Σ r_1 + Σ r_2)

    This is the last layer of DeepStack's value network (Moravčík et al. 2017, arXiv 1701.01724), where ranges sum
    to 1 and the denominator is 2; dividing by what they do sum to leaves no rest where they were rounded. Both
    arguments get gradients. A row whose ranges are 0 stays as it is.

    Args:
        values: [R, 2, H] counterfactual values, in any unit that both players share.
        ranges: [R, 2, H], at least 0, in any unit.
    """
    excess = (ranges * values).sum((1, 2))  # no product of matrices, which would be one in half precision
    mass = ranges.sum((1, 2)).clamp_min(torch.finfo(ranges.dtype).tiny)
    return values - (excess / mass)[:, None, None]


def initialise(net: HandValueNet, seed: int) -> None:
    """Draw all weights anew: He's normal for PReLUs, and a head that says nearly the same perceptrons of every row."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in (*net.hidden, net.head):
            nn.init.kaiming_normal_(layer.weight, a=FIRST_SLOPE, generator=generator)  # pyright: ignore
            nn.init.zeros_(layer.bias)  # pyright: ignore
        net.head.weight.mul_(0.1)
        units, said, _ = net.head.bias.unflatten(0, (2, -1)).split(_WEIGHTS, dim=1)
        units.normal_(std=_FEATURES**-0.5, generator=generator)
        said.normal_(std=0.02, generator=generator)
        net.slopes.fill_(FIRST_SLOPE)


_WEIGHTS = (UNITS * _FEATURES, UNITS, _FEATURES)
_SCALES = (2.0, 0.25, 0.25, 1.0, 2.0, 0.25, 0.25, 1.0, 1.0)
"""That make features of hands alike in size; eight bits hold them."""
_UNITS_OF_POINTS = 2.0**24
"""In 1: whole numbers stay what they are when a net is cast."""


def _points() -> Tensor:
    """Return int32 [P], rising."""
    even = (torch.arange(EVEN_POINTS) + 0.5) / EVEN_POINTS
    ratio = (0.5 / EVEN_POINTS / FARTHEST) ** (1 / TAIL_POINTS)
    tail = FARTHEST * ratio ** torch.arange(TAIL_POINTS)
    points = torch.cat([even, 1 - tail, tail[TAIL_POINTS // 2 :]]).sort().values
    return (points * _UNITS_OF_POINTS).int()


def _pot_features(pot: Tensor) -> list[Tensor]:
    """Return [B, 1] each, of `pot` [B] in parts of the stack."""
    logarithms = pot.log()
    features = (pot, logarithms, logarithms.square() / 10, (20 * pot).clamp_max(1), (5 * pot).clamp_max(1))
    return [feature[:, None] for feature in features]


def _linear(inputs: int, outputs: int) -> Any:
    """Make a linear layer, its parameters unset."""
    return nn.utils.skip_init(nn.Linear, inputs, outputs)
