"""What crosses between those who think and those who evaluate.

`B` is the number of rows of one message. Whoever batches only concatenates, runs and splits along axis 0.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np

Arrays: TypeAlias = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """The name, dtype and shape (without B) of one array that a network takes or gives."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def mismatch(self, array: np.ndarray) -> str | None:
        """Say how `array` [B, ...] differs from this specification; None if it fits."""
        if array.dtype != np.dtype(self.dtype) or array.shape[1:] != self.shape:
            got = f"{array.dtype}{list(array.shape)}"
            return f"array {self.name!r} is {got}, expected {self.dtype}[B, {list(self.shape)}]"
        return None


@dataclass(frozen=True, slots=True)
class Request:
    """Rows to be evaluated by one model.

    Attributes:
        model: name of the model, as published in the weights store.
        arrays: named arrays [B, ...], every one with the same B ≥ 1.
    """

    model: str
    arrays: Arrays

    @property
    def num_rows(self) -> int:
        return next(iter(self.arrays.values())).shape[0]


@dataclass(frozen=True, slots=True)
class Reply:
    """The evaluation of a request, row for row.

    Attributes:
        arrays: named arrays [B, ...].
        weights_version: version of the weights that made them.
    """

    arrays: Arrays
    weights_version: int


T = TypeVar("T")
Steps: TypeAlias = Generator[tuple[Request, ...], tuple[Reply, ...], T]
"""A computation that asks: it yields requests, is sent their replies in the same order, and returns a T.

An evaluation that failed is thrown in as an EvaluationError.
"""


def without_asking(steps: Steps[T]) -> T:
    """Run a computation that asks nothing to its end."""
    try:
        next(steps)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it asks, and there is nobody to answer")


@dataclass(frozen=True, slots=True)
class BoardSpec:
    """What a board network needs to know of a game; the game fills it, the network is built from it.

    The network sees a board in a *view*: the player to move is always "own" (cell value 1), the other is -1,
    an empty cell 0. Rows of `cells` run from the top left.

    Attributes:
        height, width: of the board, in cells.
        policy: "cells" gives one logit a cell, "columns" one a column.
        extra_actions: actions after those of the board, such as hex's swap.
        goal_edges: the own side joins top and bottom, the other left and right (hex).
    """

    height: int
    width: int
    policy: Literal["cells", "columns"] = "cells"
    extra_actions: int = 0
    goal_edges: bool = False

    @property
    def num_actions(self) -> int:
        on_board = self.width if self.policy == "columns" else self.height * self.width
        return on_board + self.extra_actions

    @property
    def inputs(self) -> tuple[ArraySpec, ...]:
        return (ArraySpec("cells", "int8", (self.height * self.width,)),)

    @property
    def outputs(self) -> tuple[ArraySpec, ...]:
        return (ArraySpec("policy", "float16", (self.num_actions,)), ArraySpec("value", "float32", ()))
