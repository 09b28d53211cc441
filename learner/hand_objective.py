"""What solved situations of hold'em teach, and how well a network has learnt it.

Shapes: `R` samples of a batch or a part of it, `H` hands that the board does not block.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from core.hands import NUM_HANDS, HandValueSpec
from learner.objective import Columns, Lesson
from learner.regression import masked_huber_losses
from networks.build import Net
from networks.hand_values import all_hands, live_hands
from networks.precision import Precision


class HandObjective:
    """Masked Huber loss of values; see `learner.objective.Objective`.

    Batches have "board" uint8 [R, cards], "pot" float32 [R] in parts of the stack, "ranges" float16 [R, 2, H] in units
    of their mean, "values" float16 [R, 2, H], hands in the order of their numbers, and for the order "strength"
    "weakest_first" int16 [R, H] and "showdown" float16 [R, 2, H], like values.

    Hands of which a player holds nothing do not count: a solver averages strategies by mass, so such a hand's strategy,
    and with it the value, is none that it found.

    Args:
        spec: of the network.
        delta: where squares turn into distances.
    """

    def __init__(self, spec: HandValueSpec, *, delta: float) -> None:
        self._spec = spec
        self._delta = delta
        self._cards_of_hands = all_hands()
        shown = ("weakest_first", "showdown") if spec.order == "strength" else ()
        self.columns = ("board", "pot", "ranges", "values", *shown)

    def lesson(self, drawn: Columns) -> Lesson:
        yield drawn
        return False

    def network_inputs(self, part: Mapping[str, Tensor]) -> dict[str, Tensor]:
        live = self._live(part)
        inputs = {spec.name: part[spec.name] for spec in self._spec.inputs}
        inputs["ranges"] = _spread(part["ranges"].float() / self._spec.hands, live)
        if "showdown" in inputs:
            inputs["showdown"] = _spread(part["showdown"].float(), live)
        return inputs

    def totals(self, batch: Columns) -> dict[str, float]:
        return {"entries": max(1, int(np.count_nonzero(batch["ranges"])))}

    def losses(
        self, outputs: Mapping[str, Tensor], part: Mapping[str, Tensor], totals: Mapping[str, float]
    ) -> dict[str, Tensor]:
        live = self._live(part)
        targets = {
            "values": _spread(part["values"].float(), live).flatten(1),
            "mask": _spread(part["ranges"].float(), live).flatten(1) > 0,
            "weight": torch.ones_like(part["pot"]),
        }
        values = {"values": outputs["values"].flatten(1)}
        return masked_huber_losses(values, targets, delta=self._delta, batch_entries=int(totals["entries"]))

    def live_values(self, outputs: Mapping[str, Tensor], part: Mapping[str, Tensor]) -> Tensor:
        """Return float32 [R, 2, H], what a network said of hands that are not blocked, as samples have them."""
        values = outputs["values"].float()
        return values[self._live(part).expand_as(values)].view(len(values), 2, self._spec.hands)

    def before_publishing(self, net: Net) -> bool:
        return False

    def facts(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass

    def _live(self, part: Mapping[str, Tensor]) -> Tensor:
        """Return bool [R, 1, 1326]."""
        if self._cards_of_hands.device != part["board"].device:
            self._cards_of_hands = self._cards_of_hands.to(part["board"].device)
        return live_hands(part["board"], self._cards_of_hands)[:, None]


class HandErrors:
    """Adds up what a network says of samples, in any parts; all in units of what each player has put in.

    Args:
        delta: of the Huber loss.
    """

    def __init__(self, *, delta: float) -> None:
        self._delta = delta
        self._samples = 0
        self._exploitability = 0.0
        self._sums = np.zeros((2, _SUMS))

    def add(self, said: Tensor, values: Tensor, ranges: Tensor, exploitability: Tensor) -> None:
        """Take in samples.

        Args:
            said: float32 [R, 2, H].
            values: [R, 2, H], the labels.
            ranges: [R, 2, H]; what is 0 does not count.
            exploitability: [R], in parts of the whole pot.
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
        self._exploitability += float(exploitability.double().sum())

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
            "exploitability": 2 * self._exploitability / max(1, self._samples),
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
            said = objective.live_values(outputs, part)
            errors.add(said, part["values"], part["ranges"], part["exploitability"])
    return errors.report()


_SUMS = 8


def _means(sums: np.ndarray) -> dict[str, float | None]:
    """Return means of sums [8]: of what counts, the Huber loss, the error, x, y, x², y² and xy."""
    huber, error, x, y, xx, yy, xy = (sums[1:] / max(1.0, sums[0])).tolist()
    spread = (xx - x * x) * (yy - y * y)
    correlation = (xy - x * y) / spread**0.5 if spread > 0 else None
    return {"huber": huber, "error": error, "correlation": correlation}


def _spread(rows: Tensor, live: Tensor) -> Tensor:
    """Return [R, 2, 1326] of rows [R, 2, H]: they stand where `live` [R, 1, 1326] says, zeros elsewhere."""
    out = torch.zeros(len(rows), 2, NUM_HANDS, device=rows.device)
    return out.masked_scatter_(live.expand_as(out), rows)
