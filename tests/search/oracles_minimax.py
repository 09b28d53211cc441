"""Minimax with widths for one game at a time, as one would explain it: recursive, a position after the other."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from configs.schema import SearchConfig
from core.messages import Reply, Request
from games.game import Game, States
from search.randomness import GUMBEL, SYMMETRY, gumbel, random_bits
from tests.search.oracles import Answer


def narrowed(widths: Sequence[int], budget: int) -> list[int]:
    """Return the widths that a budget allows: the widest, of equals the deepest, gives way first."""
    widths = list(widths)
    while sum(math.prod(widths[: level + 1]) for level in range(len(widths))) > budget:
        widest = max(widths)
        level = max(level for level, width in enumerate(widths) if width == widest)
        widths[level] -= 1
    return widths


class MinimaxOracle:
    """Decides on the position in row 0 of `states`; the line being looked at stands in the rows behind it."""

    def __init__(
        self,
        config: SearchConfig,
        game: Game,
        states: States,
        evaluate: Callable[[Request], Reply],
        *,
        key: int,
        drawing: bool,
    ) -> None:
        self.config, self.game, self.states, self.evaluate = config, game, states, evaluate
        self.key, self.drawing = np.uint64(key), drawing and config.temperature > 0.02
        self.symmetry = 0
        if config.root_symmetry:
            self.symmetry = int(random_bits(self.key, SYMMETRY, 0)) % game.num_symmetries

    def search(self, budget: int) -> Answer:
        self.widths = narrowed([min(w, self.game.num_actions) for w in self.config.minimax_widths], budget)
        value, logits = self.ask_model(0)
        order = {action: logits[action] for action in logits}
        if self.drawing:
            for action in order:
                luck = gumbel(self.key, GUMBEL, action)
                order[action] = np.float32(float(logits[action]) / self.config.temperature + luck)
        looked_at = self.look_behind(0, order)
        q = {action: worth for action, (worth, _) in looked_at.items()}
        visits = {action: count for action, (_, count) in looked_at.items()}
        best = max(q, key=lambda action: q[action])  # of equals the first
        priors = {action: math.exp(logit) for action, logit in logits.items()}
        return Answer(best, self.improved_policy(priors, value, q, visits), q[best], visits)

    def worth(self, depth: int) -> tuple[float, int]:
        """Return the minimax value of the position in row `depth`, and how many positions were looked at for it."""
        row = np.array([depth], np.int32)
        (ended,), (value,) = self.game.outcome(self.states, row)
        if ended:
            return float(value), 1
        value, logits = self.ask_model(depth)
        if depth == len(self.widths) or self.widths[depth] == 0:
            return value, 1
        looked_at = self.look_behind(depth, logits).values()
        return max(worth for worth, _ in looked_at), 1 + sum(count for _, count in looked_at)

    def look_behind(self, depth: int, order: dict[int, np.float32]) -> dict[int, tuple[float, int]]:
        """Return for each move that is looked at what it comes to for its player, and the positions it took."""
        chosen = sorted(order, key=lambda action: (-order[action], action))[: self.widths[depth]]
        at_once = {action: self.play(depth, action) for action in chosen}
        if 1.0 in at_once.values():
            return {action: (value, 1) for action, value in at_once.items() if value is not None}
        looked_at = {}
        for action in chosen:
            self.play(depth, action)
            worth, count = self.worth(depth + 1)
            looked_at[action] = (worth * self.sign(depth), count)
        return looked_at

    def play(self, depth: int, action: int) -> float | None:
        """Play a move of the position in row `depth`; return its value for its player if it ends the game."""
        child = np.array([depth + 1], np.int32)
        self.game.play(self.states, child - 1, np.array([action], np.int16), child)
        (ended,), (value,) = self.game.outcome(self.states, child)
        return float(value) * self.sign(depth) if ended else None

    def sign(self, depth: int) -> int:
        before, after = self.game.to_play(self.states, np.array([depth, depth + 1], np.int32))
        return 1 if before == after else -1

    def ask_model(self, depth: int) -> tuple[float, dict[int, np.float32]]:
        """Return the model's value, and how far the logit of each legal move is below the best."""
        row = np.array([depth], np.int32)
        arrays, views = self.game.encode(self.states, row, np.array([self.symmetry], np.int8))
        reply = self.evaluate(Request("oracle", arrays))
        logits = reply.arrays["policy"][0][self.game.views[views[0]]].astype(np.float32)
        legal = np.flatnonzero(self.game.legal(self.states, row)[0])
        return float(reply.arrays["value"][0]), {int(a): logits[a] - logits[legal].max() for a in legal}

    def improved_policy(
        self, priors: dict[int, float], value: float, q: dict[int, float], visits: dict[int, int]
    ) -> dict[int, float]:
        mass = sum(priors[action] for action in q)
        mean_q = sum(priors[action] * q[action] for action in q) / mass
        num_visits = sum(visits.values())
        mixed = (value + num_visits * mean_q) / (1 + num_visits)
        scale = (self.config.gumbel_visit_offset + max(visits.values())) * self.config.gumbel_value_scale
        completed = {action: (q.get(action, mixed) + 1) / 2 for action in priors}
        top = max(completed.values())
        weights = {a: prior * math.exp(scale * (completed[a] - top)) for a, prior in priors.items()}
        return {action: weight / sum(weights.values()) for action, weight in weights.items()}
