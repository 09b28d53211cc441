"""How well a network foretells games: the moves that were played, and who won.

A move is foretold when it has the highest logit of all empty cells (`top1`), or one of the three highest (`top3`). Of
equal logits the lower action comes first. The first `FIRST_PLY` plies of a game do not count, for openings are often
drawn, and neither does a final position, which has no move. A value is right when it has the sign of the outcome;
positions of games whose outcome is not known do not count.

Shapes: `R` rows, `C` cells, `A` actions.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

FIRST_PLY = 2
BINS = 10
"""Bins of the reliability table, by the probability of winning that the value stands for, (1 + v) / 2."""


class Accuracy:
    """Adds up what a network says of rows, in any order and any parts."""

    def __init__(self) -> None:
        self._games: set[int] = set()
        self._by_ply = np.zeros((0, len(_COUNTS)))
        self._second_half = np.zeros(2)
        self._bins = np.zeros((BINS, 3))

    def add(
        self, rows: Mapping[str, np.ndarray], cells: np.ndarray, policy: np.ndarray, value: np.ndarray
    ) -> None:
        """Take in rows.

        Args:
            rows: "action", "outcome", "game", "ply" and "plies" [R] of `replay.shards`.
            cells: int8 [R, C], in the frame of the actions; only empty ones can be played.
            policy: logits [R, A].
            value: [R] in [-1, 1].
        """
        self._games.update(np.unique(rows["game"]).tolist())
        value = np.nan_to_num(value.astype(np.float64))  # what is no number tells nothing
        ply, outcome = rows["ply"].astype(np.int64), rows["outcome"].astype(np.float64)
        has_move = (rows["action"] >= 0) & (ply >= FIRST_PLY)
        known = outcome != 0
        ranks = _ranks(policy, cells, np.maximum(rows["action"], 0))
        right = known & (value * outcome > 0)
        error = np.where(known, (value - outcome) ** 2, 0.0)
        counts = (
            np.ones(len(ply)),
            has_move,
            has_move & (ranks < 1),
            has_move & (ranks < 3),
            known,
            right,
            error,
        )
        most = int(ply.max(initial=-1)) + 1
        if most > len(self._by_ply):
            self._by_ply = np.pad(self._by_ply, ((0, most - len(self._by_ply)), (0, 0)))
        for k, count in enumerate(counts):
            self._by_ply[:, k] += np.bincount(ply, weights=count, minlength=len(self._by_ply))
        late = known & (2 * ply >= rows["plies"])
        self._second_half += late.sum(), (late & right).sum()
        self._add_to_bins(value[known], outcome[known])

    def report(self) -> dict[str, Any]:
        """Return the figures as plain JSON; a share of nothing is None.

        Keys: games, positions, policy_top1, policy_top3, value_accuracy, value_accuracy_second_half, value_mse,
        calibration {expected_error, table} and by_ply, a list of the same figures for each ply, with "moves" and
        "known": how many of its positions have a move that counts, and an outcome.
        """
        seen, late, late_right = self._by_ply.sum(0), *self._second_half
        figures = _figures(seen)
        return {
            "games": len(self._games),
            "positions": int(seen[0]),
            **figures,
            "value_accuracy_second_half": _share(late_right, late),
            "calibration": self._calibration(),
            "by_ply": [
                {
                    "ply": ply,
                    "positions": int(line[0]),
                    "moves": int(line[1]),
                    "known": int(line[4]),
                    **_figures(line),
                }
                for ply, line in enumerate(self._by_ply)
                if line[0]
            ],
        }

    def _add_to_bins(self, value: np.ndarray, outcome: np.ndarray) -> None:
        said, came = (1 + value.astype(np.float64)) / 2, (1 + outcome) / 2
        places = np.clip((said * BINS).astype(np.int64), 0, BINS - 1)
        for k, count in enumerate((np.ones(len(said)), said, came)):
            self._bins[:, k] += np.bincount(places, weights=count, minlength=BINS)

    def _calibration(self) -> dict[str, Any]:
        """Return the reliability table, and the mean over positions of how far a bin's forecast was from what came."""
        total = self._bins[:, 0].sum()
        table = [
            {
                "from": k / BINS,
                "to": (k + 1) / BINS,
                "positions": int(count),
                "said": said / count,
                "came": came / count,
            }
            for k, (count, said, came) in enumerate(self._bins)
            if count
        ]
        off = np.abs(self._bins[:, 1] - self._bins[:, 2]).sum()
        return {"expected_error": _share(off, total), "table": table}


_COUNTS = ("positions", "moves", "top1", "top3", "known", "right", "squared_error")


def _figures(counts: np.ndarray) -> dict[str, float | None]:
    _, moves, top1, top3, known, right, squared_error = counts
    return {
        "policy_top1": _share(top1, moves),
        "policy_top3": _share(top3, moves),
        "value_accuracy": _share(right, known),
        "value_mse": _share(squared_error, known),
    }


def _ranks(policy: np.ndarray, cells: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Return how many legal actions come before each one that was played."""
    logits = policy.astype(np.float32)
    logits[:, : cells.shape[1]][cells != 0] = -np.inf
    played = np.take_along_axis(logits, action[:, None].astype(np.int64), axis=1)
    before = np.arange(logits.shape[1]) < action[:, None]
    return (~(logits <= played) | ((logits == played) & before)).sum(1)  # not-a-number comes before all else


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
