"""What solved situations of hold'em teach, and how well a network has learnt it.

Shapes: `R` samples of a batch or a part of it, `H` hands that the board does not block, the weakest first.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from core.hands import HandValueSpec
from learner.objective import Columns, Lesson, Stateless
from learner.regression import masked_huber_losses
from networks.build import Net
from networks.precision import Precision


class HandObjective(Stateless):
    """Masked Huber loss of values; see `learner.objective.Objective`.

    Batches have what the network sees, and "values" float16 [R, 2, H]; see `core.hands.HandValueSpec`.

    Hands of which a player holds nothing do not count: a solver averages strategies by mass, so such a hand's strategy,
    and with it the value, is none that it found.

    Args:
        spec: of the network.
        delta: where squares turn into distances.
    """

    def __init__(self, spec: HandValueSpec, *, delta: float) -> None:
        self._seen = tuple(one.name for one in spec.inputs)
        self._delta = delta
        self.columns = (*self._seen, "values")

    def lesson(self, drawn: Columns) -> Lesson:
        yield drawn
        return False

    def network_inputs(self, part: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: part[name] for name in self._seen}

    def totals(self, batch: Columns) -> dict[str, float]:
        return {"entries": max(1, int(np.count_nonzero(batch["ranges"])))}

    def losses(
        self, outputs: Mapping[str, Tensor], part: Mapping[str, Tensor], totals: Mapping[str, float]
    ) -> dict[str, Tensor]:
        targets = {
            "values": part["values"].float().flatten(1),
            "mask": part["ranges"].flatten(1) > 0,
            "weight": torch.ones_like(part["pot"]),
        }
        values = {"values": outputs["values"].flatten(1)}
        return masked_huber_losses(values, targets, delta=self._delta, batch_entries=int(totals["entries"]))


class HandErrors:
    """Adds up what a network says of samples, in any parts; all in units of what each player has put in.

    Args:
        delta: of the Huber loss.
    """

    def __init__(self, *, delta: float) -> None:
        self._delta = delta
        self._samples = 0
        self._exploitability, self._solved = 0.0, 0
        self._sums = np.zeros((2, _SUMS))

    def add(self, said: Tensor, values: Tensor, ranges: Tensor, exploitability: Tensor) -> None:
        """Take in samples.

        Args:
            said: float32 [R, 2, H].
            values: [R, 2, H], the labels.
            ranges: [R, 2, H]; what is 0 does not count.
            exploitability: [R], in parts of the whole pot; NaN where nothing was solved.
        """
        counted = (ranges > 0).double()
        found, goal = said.double() * counted, values.double() * counted
        terms = (
            counted,
            huber_loss(found, goal, reduction="none", delta=self._delta),
            (found - goal).abs(),
            found,
            goal,
            found * found,
            goal * goal,
            found * goal,
        )
        self._sums += torch.stack([term.sum((0, 2)) for term in terms], dim=1).cpu().numpy()
        self._samples += len(said)
        solved = exploitability.double().nan_to_num(0.0)  # what was not solved has none
        self._exploitability += float(solved.sum())
        self._solved += int(exploitability.isfinite().sum())

    def report(self) -> dict[str, Any]:
        """Return the means over all entries, of both players and of each, and how exact the labels are.

        Returns:
            {"samples", "huber", "error", "correlation", "by_player": two of the last three, "exploitability"}; "error"
            is absolute. A correlation is None where one side does not vary.
        """
        return {
            "samples": self._samples,
            **_means(self._sums.sum(0)),
            "by_player": [_means(sums) for sums in self._sums],
            "exploitability": 2 * self._exploitability / self._solved if self._solved else None,
        }


def judge_hands(
    net: Net,
    parts: Iterator[Mapping[str, np.ndarray]],
    objective: HandObjective,
    precision: Precision,
    *,
    delta: float,
) -> dict[str, Any]:
    """Return the report of `HandErrors` on samples.

    Args:
        net: on its device, in float32; it is not changed.
        parts: samples, some at a time, with "exploitability" [R] beside what `objective` reads.
        objective: of the network.
        precision: arithmetic of the forward.
        delta: of the Huber loss.
    """
    errors = HandErrors(delta=delta)
    with torch.inference_mode():
        for rows in parts:
            names = (*objective.columns, "exploitability")
            part = {name: torch.from_numpy(rows[name]).to(precision.device) for name in names}
            with precision.autocast():
                outputs = net(objective.network_inputs(part))
            errors.add(outputs["values"], part["values"], part["ranges"], part["exploitability"])
    return errors.report()


_SUMS = 8


def _means(sums: np.ndarray) -> dict[str, float | None]:
    """Return means of sums [8]: of what counts, the Huber loss, the error, x, y, x², y² and xy."""
    huber, error, x, y, xx, yy, xy = (sums[1:] / max(1.0, sums[0])).tolist()
    spread = (xx - x * x) * (yy - y * y)
    correlation = (xy - x * y) / spread**0.5 if spread > 0 else None
    return {"huber": huber, "error": error, "correlation": correlation}
