"""Stand-ins for a network of hand values, and those who ask them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import pytest

from core.messages import Reply, Request, Steps
from inference_server.client import InlineClient
from poker import holdem

T = TypeVar("T")
Answer = Callable[[Request], Reply]


def shows(request: Request) -> Reply:
    """Say that hands are worth what they win when they are shown at once."""
    return Reply({"values": request.arrays["showdown"]}, weights_version=0)


def always(one: float, other: float) -> Answer:
    """Return a network to which every hand of a player is worth as much."""

    def answer(request: Request) -> Reply:
        values = np.empty_like(request.arrays["ranges"])
        values[:, 0], values[:, 1] = one, other
        return Reply({"values": values}, weights_version=0)

    return answer


def answered(steps: Steps[T], answer: Answer, asked: list[Request] | None = None) -> T:
    """Run a computation to its end, and keep what it asks."""
    try:
        requests = next(steps)
        while True:
            if asked is not None:
                asked += requests
            requests = steps.send(tuple(answer(request) for request in requests))
    except StopIteration as stop:
        return stop.value


class Connect:
    """Reaches a network, as a worker does who was sent how."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __call__(self) -> InlineClient:
        return InlineClient(self._answer)


@contextmanager
def few_rivers(patch: pytest.MonkeyPatch, number: int) -> Iterator[None]:
    """Let equities, and with them the order of hands, come of a few rivers, which is quick and not exact."""
    every = holdem._rivers
    with patch.context() as here:
        here.setattr(holdem, "_RIVERS_BEFORE_THE_FLOP", number)
        here.setattr(holdem, "_rivers", lambda board: every(board)[:: max(1, len(every(board)) // number)])
        holdem.board_hands.cache_clear()
        yield
    holdem.board_hands.cache_clear()
