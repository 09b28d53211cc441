"""How much of what was learnt before counts, iteration by iteration: the variants of counterfactual regret
minimisation.

At iteration t, from 1, a regret R becomes f · R + r, where f depends on its sign, and the sum of strategies A becomes
decay · A + weight · (reach · strategy).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from core.errors import UsageError


class Weights(NamedTuple):
    """What the kernels multiply with at one iteration: positive and negative regrets, the average, what is added to
    it.
    """

    positive: float
    negative: float
    decay: float
    weight: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """A variant.

    Attributes:
        name: of it.
        weights: at iteration t.
        floor: whether regrets below 0 become 0.
        simultaneous: whether both players learn from each other's strategies of before, or the second from the first's
            new one.
    """

    name: str
    weights: Callable[[int], Weights]
    floor: bool = False
    simultaneous: bool = False


def cfr() -> Schedule:
    """The first (Zinkevich et al. 2007): everything counts alike."""
    return Schedule("cfr", lambda t: Weights(1.0, 1.0, 1.0, 1.0))


def cfr_plus() -> Schedule:
    """CFR+ (Tammelin 2014, arXiv 1407.5042): no negative regrets, and strategies count by their iteration."""
    return Schedule("cfr+", lambda t: Weights(1.0, 1.0, (t - 1) / t, 1.0), floor=True)


def linear() -> Schedule:
    """Linear CFR (Brown and Sandholm 2019, arXiv 1809.04040): regrets and strategies count by their iteration."""
    return Schedule("linear", lambda t: Weights((t - 1) / t, (t - 1) / t, (t - 1) / t, 1.0))


def dcfr(
    alpha: float = 1.5, beta: float = 0.0, gamma: float = 2.0, *, resets: bool = False, every: int = 1
) -> Schedule:
    """Discounted CFR (the same paper).

    Args:
        alpha, beta: before iteration t positive regrets are multiplied by (t-1)^α / ((t-1)^α + 1), negative ones
        likewise by β. gamma: strategies count by (their iteration)^γ. resets: whether the average begins anew after
        1, 4, 16, 64 … iterations, as postflop-solver has it with γ = 3. every: of so many iterations the strategies of
        one go into the average, besides those of the first; the kernels are a tenth faster where they need not.
    """

    def weights(t: int) -> Weights:
        kept = _kept(t - 1, alpha), _kept(t - 1, beta)
        if t > 1 and t % every:
            return Weights(*kept, 1.0, 0.0)
        since = t - _power_of_4_below(t) if resets else t
        if every > 1:
            since = (
                1 + since // every
            )  # the first counts a little for ever, lest lines that are not played have no mass
        return Weights(*kept, ((since - 1) / since) ** gamma, 1.0)

    more = f"{', resets' if resets else ''}{f', every {every}' if every > 1 else ''}"
    return Schedule(f"dcfr({alpha:g}, {beta:g}, {gamma:g}{more})", weights)


def dcfr_plus(alpha: float = 1.5, delay: int = 100) -> Schedule:
    """DCFR+ (Zarick et al. 2020, arXiv 2007.10442): regrets are discounted, then cut at 0; strategies count by t -
    delay.
    """

    def weights(t: int) -> Weights:
        counted = max(0, t - delay)
        decay = (counted - 1) / counted if counted else 0.0
        return Weights(_kept(t - 1, alpha), 0.0, decay, float(counted > 0))

    return Schedule(f"dcfr+({alpha:g}, delay {delay})", weights, floor=True, simultaneous=True)


VARIANTS: Mapping[str, Callable[[], Schedule]] = {
    "cfr": cfr,
    "cfr+": cfr_plus,
    "linear": linear,
    "dcfr": dcfr,
    "dcfr3": lambda: dcfr(gamma=3.0, resets=True),
    "dcfr+": dcfr_plus,
    "dcfr6": lambda: dcfr(1.2, 0.5, 6.0),
    "dcfr6/2": lambda: dcfr(1.2, 0.5, 6.0, every=2),
}
"""Of rivers with ranges and pots as DeepStack drew them "dcfr6" needs the fewest iterations: on average of 384
situations to
0.25 % of the pot 195, where "dcfr3" needs 274; of 192 to 0.1 % 331 and 530. Its numbers are the best of some 25
tried. "dcfr6/2" needs 1 to 2 % more, and is a tenth faster."""

DEFAULT_VARIANT = "dcfr6/2"


def make_schedule(name: str) -> Schedule:
    """Return a variant by its name. Raises UsageError when there is none of it."""
    if name not in VARIANTS:
        raise UsageError(
            f"there is no variant {name!r} of CFR",
            why=f"the variants are {', '.join(VARIANTS)}",
            fix="name one of them, such as dcfr3",
        )
    return VARIANTS[name]()


def _kept(t: int, power: float) -> float:
    if t == 0:
        return 0.0
    raised = float(t) ** power
    return raised / (raised + 1)


def _power_of_4_below(t: int) -> int:
    """Return the greatest of 0, 1, 4, 16 … that is below t."""
    power = 1
    while 4 * power < t:
        power *= 4
    return power if power < t else 0
