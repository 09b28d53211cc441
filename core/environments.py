"""What a network and a learner need to know of an environment that is no board: what is seen, what can be done."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from core.hands import HandValueSpec
from core.messages import ArraySpec, BoardSpec


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """What can be done at each step, and how a policy over it is written as one array of P numbers a row.

    Attributes:
        kind: "categorical": one choice out of each of `sizes`, the policy being their logits side by side;
            "gaussian": `sizes` is (D,), the policy D means, then D logarithms of standard deviations.
        sizes: number of choices of each part; of a gaussian its dimensions.
        low, high: bounds of each dimension of a gaussian's action, ±inf where there is none; empty otherwise.
        scalar: a single choice that the environment takes as a number, not as an array of one.
    """

    kind: Literal["categorical", "gaussian"]
    sizes: tuple[int, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    scalar: bool = False

    @property
    def num_policy(self) -> int:
        """P, the numbers of a policy."""
        return sum(self.sizes) if self.kind == "categorical" else 2 * self.sizes[0]

    @property
    def array(self) -> ArraySpec:
        """Actions as they are stored: int64 choices, or float32 in the policy's own unit, before any bound."""
        if self.kind == "categorical":
            return ArraySpec("action", "int64", (len(self.sizes),))
        return ArraySpec("action", "float32", self.sizes)


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """What an actor-critic network needs to know of an environment.

    Attributes:
        observation_shape: of one observation; three axes [channels, height, width] are an image.
        observation_dtype: as it is stored and sent: "float32", or "uint8" of images.
        actions: what can be done.
        masked: whether not everything can be done at every step. The last P numbers of an observation, a row of
            float32, then tell of each number of the policy whether it may be chosen, 1 or 0; a network sees only
            those before them.
    """

    observation_shape: tuple[int, ...]
    observation_dtype: str
    actions: ActionSpec
    masked: bool = False

    @property
    def seen_shape(self) -> tuple[int, ...]:
        """Of what there is to see in an observation: all of it, but for a mask."""
        if not self.masked:
            return self.observation_shape
        return (self.observation_shape[0] - self.actions.num_policy,)

    @property
    def inputs(self) -> tuple[ArraySpec, ...]:
        return (ArraySpec("observation", self.observation_dtype, self.observation_shape),)

    @property
    def outputs(self) -> tuple[ArraySpec, ...]:
        """The policy in float32: the log-probability that is stored has to be the acting network's own."""
        return (
            ArraySpec("policy", "float32", (self.actions.num_policy,)),
            ArraySpec("value", "float32", ()),
        )


NetSpec: TypeAlias = BoardSpec | EnvironmentSpec | HandValueSpec
"""What a network is built from."""
