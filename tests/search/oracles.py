"""Gumbel AlphaZero and PUCT for one game at a time, as the papers write them: recursive, and over all moves.

They share with the real searches nothing but the rules, the model and the random numbers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from configs.schema import SearchConfig
from core.messages import Reply, Request
from games.game import Game, States
from search.randomness import DIRICHLET, GUMBEL, SYMMETRY, dirichlet, gumbel, random_bits


@dataclass
class Node:
    number: int
    player: int
    ended: bool
    value: float
    priors: dict[int, float]
    children: dict[int, "Node"] = field(default_factory=dict)
    visits: int = 0
    total: float = 0.0

    def q(self, action: int) -> float:
        child = self.children[action]
        mean = child.total / child.visits
        return mean if child.player == self.player else -mean

    def count(self, action: int) -> int:
        return self.children[action].visits if action in self.children else 0

    def counts(self) -> list[int]:
        return [self.count(action) for action in self.priors]


@dataclass
class Answer:
    action: int
    policy: dict[int, float]
    value: float
    visits: dict[int, int]


class Oracle:
    """Grows the tree of the position in row 0 of `states`; node n stands in row n.

    Attributes:
        closest: the least by which any move was better than a worse one. Where that is the rounding of float32, the
            search may rightly take the other.
    """

    def __init__(
        self,
        config: SearchConfig,
        game: Game,
        states: States,
        evaluate: Callable[[Request], Reply],
        *,
        key: int,
        noise: bool,
    ) -> None:
        self.config, self.game, self.states, self.evaluate = config, game, states, evaluate
        self.key, self.noise = np.uint64(key), noise
        self.size = 0
        self.closest = math.inf
        self.root = self.make_node()
        self.visit(self.root)

    def best(self, scores: dict[int, float]) -> int:
        action = max(scores, key=lambda action: (scores[action], -action))
        less = [score for score in scores.values() if score < scores[action]]
        self.closest = min(self.closest, scores[action] - max(less, default=-math.inf))
        return action

    def make_node(self) -> Node:
        number, game = self.size, self.game
        self.size += 1
        rows = np.array([number], np.int32)
        (player,) = game.to_play(self.states, rows)
        (ended,), (value,) = game.outcome(self.states, rows)
        priors = {}
        if not ended:
            priors, value = self.ask_model(rows)
        return Node(number, player, ended, float(value), priors)

    def ask_model(self, rows: np.ndarray) -> tuple[dict[int, float], float]:
        symmetry = 0
        if self.config.root_symmetry:
            symmetry = int(random_bits(self.key, SYMMETRY, rows[0])) % self.game.num_symmetries
        arrays, views = self.game.encode(self.states, rows, np.array([symmetry], np.int8))
        reply = self.evaluate(Request("oracle", arrays))
        logits = reply.arrays["policy"][0][self.game.views[views[0]]].astype(np.float32)
        legal = np.flatnonzero(self.game.legal(self.states, rows)[0])
        weights = np.exp(logits[legal] - logits[legal].max()).tolist()
        priors = {int(a): float(np.float32(w / sum(weights))) for a, w in zip(legal, weights, strict=True)}
        return priors, float(reply.arrays["value"][0])

    def visit(self, node: Node) -> float:
        """Send one simulation through `node`; return what it was worth to its player."""
        value = node.value
        if node.visits > 0 and not node.ended:
            action = self.choose_at_root() if node is self.root else self.choose(node)
            if action not in node.children:
                place = np.array([self.size], np.int32)
                self.game.play(
                    self.states, np.array([node.number], np.int32), np.array([action], np.int16), place
                )
                node.children[action] = self.make_node()
            child = node.children[action]
            value = self.visit(child)
            if child.player != node.player:
                value = -value
        node.visits += 1
        node.total += value
        return value

    def search(self, budget: int) -> Answer:
        self.budget = budget
        for _ in range(budget):
            self.visit(self.root)
        return self.conclude()

    def choose_at_root(self) -> int:
        raise NotImplementedError

    def choose(self, node: Node) -> int:
        raise NotImplementedError

    def conclude(self) -> Answer:
        raise NotImplementedError


class PuctOracle(Oracle):
    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        if self.noise:
            share, priors = self.config.dirichlet_share, self.root.priors
            spice = dirichlet(self.key, DIRICHLET, self.config.dirichlet_alpha, len(priors))
            for i, action in enumerate(sorted(priors)):
                priors[action] = float(np.float32((1.0 - share) * priors[action] + share * spice[i]))

    def choose_at_root(self) -> int:
        return self.choose_with(self.root, 0.0 if self.noise else 0.2)

    def choose(self, node: Node) -> int:
        return self.choose_with(node, 0.2)

    def choose_with(self, node: Node, reduction: float) -> int:
        visited_mass = sum(node.priors[action] for action in node.children)
        first_play = node.total / node.visits - reduction * math.sqrt(visited_mass)
        bonus = self.config.puct_exploration * math.sqrt(node.visits)
        return self.best(
            {
                action: (node.q(action) if action in node.children else first_play)
                + bonus * prior / (1 + node.count(action))
                for action, prior in node.priors.items()
            }
        )

    def conclude(self) -> Answer:
        root = self.root
        visits = {action: child.visits for action, child in root.children.items()}
        most = max(visits.values())
        action = self.best({action: root.q(action) for action, count in visits.items() if count == most})
        policy = {action: count / sum(visits.values()) for action, count in visits.items()}
        return Answer(action, policy, root.total / root.visits, visits)


class GumbelOracle(Oracle):
    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.g = {a: gumbel(self.key, GUMBEL, a) if self.noise else 0.0 for a in self.root.priors}

    def sigma(self, node: Node, q: float) -> float:
        scale = (self.config.gumbel_visit_offset + max(node.counts())) * self.config.gumbel_value_scale
        return scale * (q + 1) / 2

    def completed_q(self, node: Node) -> dict[int, float]:
        visited = sorted(node.children)
        mixed = node.value
        if visited:
            mass = sum(node.priors[action] for action in visited)
            mean_q = sum(node.priors[action] * node.q(action) for action in visited) / mass
            num_visits = sum(node.counts())
            mixed = (node.value + num_visits * mean_q) / (1 + num_visits)
        return {action: node.q(action) if action in visited else mixed for action in node.priors}

    def improved_policy(self, node: Node) -> dict[int, float]:
        completed = self.completed_q(node)
        logits = {a: math.log(prior) + self.sigma(node, completed[a]) for a, prior in node.priors.items()}
        top = max(logits.values())
        weights = {action: math.exp(logit - top) for action, logit in logits.items()}
        return {action: weight / sum(weights.values()) for action, weight in weights.items()}

    def choose(self, node: Node) -> int:
        policy = self.improved_policy(node)
        return self.best({a: policy[a] - node.count(a) / (1 + sum(node.counts())) for a in policy})

    def root_scores(self, visits: int) -> dict[int, float]:
        """Return g + log prior + sigma(q) of the root's moves that had this many visits."""
        root, completed = self.root, self.completed_q(self.root)
        return {
            action: self.g[action] + math.log(prior) + self.sigma(root, completed[action])
            for action, prior in root.priors.items()
            if root.count(action) == visits
        }

    def choose_at_root(self) -> int:
        considered = min(self.config.gumbel_considered_actions, len(self.root.priors))
        sequence = considered_visits(considered, self.budget)
        return self.best(self.root_scores(sequence[sum(self.root.counts())]))

    def conclude(self) -> Answer:
        root, policy, completed = self.root, self.improved_policy(self.root), self.completed_q(self.root)
        value = sum(policy[action] * completed[action] for action in policy)
        visits = {action: child.visits for action, child in root.children.items()}
        return Answer(self.best(self.root_scores(max(root.counts()))), policy, value, visits)


def considered_visits(considered: int, simulations: int) -> list[int]:
    """Return the visits a move must have had to be selected by each simulation, halving played through."""
    visits = [0] * considered
    phases = max(1, math.ceil(math.log2(considered)))
    sequence: list[int] = []
    left = considered
    while len(sequence) < simulations:
        for _ in range(max(1, simulations // (phases * left))):
            for move in range(left):
                sequence.append(visits[move])
                visits[move] += 1
        left = min(left, max(2, left // 2))
    return sequence[:simulations]
