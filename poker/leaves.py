"""What hands are worth where a street ends: a network is asked, but where both are all-in cards are just dealt."""

import numpy as np
from numba import njit

from core.errors import EvaluationError
from core.messages import Reply, Request, Steps
from poker.holdem import BoardHands
from poker.rows import LANES, fma, load, same, store
from poker.sampling import quantised

ALL_IN = 1 - 1e-9
"""In parts of the stack."""
_TINY = np.finfo(np.float32).tiny


class NetworkLeaves:
    """Asks a network for the leaves of `poker.solver`, of all lanes together.

    Args:
        hands: of a flop or a turn.
        model: name of a network of the street's end, see `core.hands.HandValueSpec`.
    """

    def __init__(self, hands: BoardHands, model: str) -> None:
        assert hands.equities is not None
        self._equities = hands.equities
        self._model = model

    def values(self, masses: np.ndarray, stakes: np.ndarray, stacks: np.ndarray) -> Steps[np.ndarray]:
        """Return counterfactual values float32 [2, leaves, H, lanes].

        Args:
            masses: float32 [2, leaves, H, lanes], with which players come to each leaf.
            stakes: [leaves, lanes], what each has put in there.
            stacks: [lanes], in the same unit; 0 for lanes of which nobody wants to know.
        """
        totals = masses.sum(2)
        # Who never gets there with any hand might get there with each: what hands would be worth then is asked.
        shares = np.where(
            totals[:, :, None] > 0, masses / np.maximum(totals, _TINY)[:, :, None], 1 / masses.shape[2]
        ).astype(np.float32)
        values = shown(self._equities, shares)
        with np.errstate(divide="ignore", invalid="ignore"):
            pots = stakes / stacks
        leaf, lane = np.nonzero((pots < ALL_IN) & (stacks > 0) & (totals > 0).any(0))
        if len(leaf):
            at_once = values[:, leaf, :, lane]  # [rows, 2, H]
            (reply,) = yield (ask(self._model, pots[leaf, lane], shares[:, leaf, :, lane], at_once),)
            values[:, leaf, :, lane] = answered(reply, pots[leaf, lane])
        values *= totals[::-1, :, None]
        values *= stakes.astype(np.float32)[:, None]
        return values


def shown(equities: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Return values of showdowns at once, all cards to come being dealt, for stakes of 1.

    Values of a leaf in a lane are the same bytes whatever the others are, and on every machine. How a library's product
    of matrices rounds depends on its shape, the processor and the number of threads.

    Args:
        equities: float32 [H, H], see `poker.holdem.BoardHands`; H is a multiple of 4, as on flops and turns.
        masses: float32 [2, leaves, H, lanes], as the values are.
    """
    hands = len(equities)
    columns = masses[::-1].transpose(2, 0, 1, 3)  # against the other's hands
    number = columns[0].size
    rows = np.zeros((hands, -(-number // LANES), LANES), np.float32)
    rows.reshape(hands, -1)[:, :number] = columns.reshape(hands, -1)
    rows = np.ascontiguousarray(rows.transpose(1, 0, 2))
    values = np.empty_like(rows)
    _multiply(equities, rows.reshape(-1, LANES), values.reshape(-1, LANES))
    in_columns = values.transpose(1, 0, 2).reshape(hands, -1)[:, :number].reshape(columns.shape)
    return np.ascontiguousarray(in_columns.transpose(1, 2, 0, 3))


def ask(model: str, pots: np.ndarray, masses: np.ndarray, showdown: np.ndarray) -> Request:
    """Return the request for rows [R] of pots in parts of the stack, masses [R, 2, H] of sum 1, values of showdowns."""
    arrays = {
        "pot": pots.astype(np.float32),
        "ranges": quantised(masses),
        "showdown": showdown.astype(np.float16),
    }
    return Request(model, arrays)


def answered(reply: Reply, pots: np.ndarray) -> np.ndarray:
    """Return the values float32 [R, 2, H] of a reply; no hand wins or loses more than a stack, whatever is said."""
    most = (1 / pots.astype(np.float32))[:, None, None]
    values = reply.arrays["values"].astype(np.float32)
    if bad := np.count_nonzero(~np.isfinite(values)):
        raise EvaluationError(
            "a network says that hands are worth what is no number",
            why=f"{bad} of {values.size} values of version {reply.weights_version} are not finite",
            fix="fit another one, in fp32 if this one computes in 16 bits",
        )
    return np.clip(values, -most, most)


@njit(cache=True, nogil=True)
def _multiply(matrix, rows, out):
    """Multiply a matrix [H, H] by each H of the rows [blocks * H, LANES]."""
    hands = len(matrix)
    for block in range(0, len(rows), hands):
        for h in range(0, hands, 4):  # so many that what is summed stays in registers
            one = two = three = four = same(rows, 0.0)
            for k in range(hands):
                row = load(rows, block + k)
                one = fma(same(rows, matrix[h, k]), row, one)
                two = fma(same(rows, matrix[h + 1, k]), row, two)
                three = fma(same(rows, matrix[h + 2, k]), row, three)
                four = fma(same(rows, matrix[h + 3, k]), row, four)
            store(out, block + h, one)
            store(out, block + h + 1, two)
            store(out, block + h + 2, three)
            store(out, block + h + 3, four)
