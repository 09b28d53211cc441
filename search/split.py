"""Cuts requests into smaller ones, which shows what large ones are worth: the answers stay the same."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from core.errors import EvaluationError
from core.messages import Reply, Request, Steps

T = TypeVar("T")


def split(steps: Steps[T], *, max_rows: int, sequential: bool = False) -> Steps[T]:
    """Run `steps` with every request cut into pieces of at most `max_rows` rows, and return what it returns.

    The pieces of a step are yielded together, or, if `sequential`, each one only after the reply to the one
    before. `steps` sees replies to its own requests, with the oldest weights version of their pieces. When a
    piece fails, its error is thrown into `steps`; what that asks then is cut anew.
    """
    if max_rows < 1:
        raise ValueError(f"pieces of {max_rows} rows")
    try:
        requests = next(steps)
        while True:
            try:
                replies = yield from ask_in_pieces(requests, max_rows, sequential=sequential)
            except EvaluationError as error:
                requests = steps.throw(error)
            else:
                requests = steps.send(replies)
    except StopIteration as stop:
        return stop.value
    finally:
        steps.close()


def ask_in_pieces(
    requests: tuple[Request, ...], max_rows: int, *, sequential: bool
) -> Steps[tuple[Reply, ...]]:
    """Ask `requests` in pieces, together or one after the other, and return the replies to them as they were."""
    pieces = [_cut(request, max_rows) for request in requests]
    together = tuple(piece for of_one in pieces for piece in of_one)
    replies: list[Reply] = []
    for asked in [(piece,) for piece in together] if sequential else [together]:
        replies += yield asked
    remaining = iter(replies)
    return tuple(_join([next(remaining) for _ in of_one]) for of_one in pieces)


def _cut(request: Request, max_rows: int) -> list[Request]:
    return [
        Request(request.model, {name: array[row : row + max_rows] for name, array in request.arrays.items()})
        for row in range(0, request.num_rows, max_rows)
    ]


def _join(replies: Sequence[Reply]) -> Reply:
    if len(replies) == 1:
        return replies[0]
    arrays = {name: np.concatenate([reply.arrays[name] for reply in replies]) for name in replies[0].arrays}
    return Reply(arrays, min(reply.weights_version for reply in replies))
