"""What a replay holds: which columns the rows of each workload have, and what must be true of them.

Shapes: `R` rows of a chunk, `A` actions, `H*W` cells, `T` steps of an unroll.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from core.environments import EnvironmentSpec
from core.messages import ArraySpec
from games.game import Game
from replay.records import PROVENANCE, Chunk, GameRecord, range_problems, value_problems

# float16 keeps 11 bits: a policy rounded to it is off its sum by at most 2^-11, and a little from underflow.
POLICY_SUM_TOLERANCE = 2e-3
# A log-probability is at most 0 where there are choices; rounding may leave a little more.
_LOG_PROB_LIMIT = 1e-3


class Experience(Protocol):
    """One workload's rows.

    Attributes:
        name: of the game or environment, as its chunks carry it.
        columns: of a row, those of `replay.records.PROVENANCE` apart.
        text_suffix: of the files that its games are written to as text; "" if they have no text form.
    """

    @property
    def name(self) -> str: ...

    @property
    def columns(self) -> tuple[ArraySpec, ...]: ...

    @property
    def text_suffix(self) -> str: ...

    def problems(self, chunk: Chunk) -> list[str]:
        """Return in words what is wrong with a chunk whose form is right."""
        ...

    def line(self, game: GameRecord) -> str:
        """Return a game as a line of text."""
        ...


class BoardExperience:
    """Positions of a board game that were searched in full.

    cells: int8 [R, H*W], the board in a view: own stones 1, the other's -1, empty 0.
    policy: float16 [R, A], the search's policy in the frame of that view; sums to 1.
    policy_weight: float32 [R], of the policy in the loss; 0 where there is none.
    outcome: float32 [R], of the game, from the view of the player to move, in [-1, 1].
    search_value: float32 [R], from the view of the player to move, in [-1, 1].
    """

    def __init__(self, game: Game) -> None:
        self._game = game
        # Boards with goal edges are hex, the one game whose text form has a name of its own.
        self.text_suffix = ".trmph" if game.board.goal_edges else ".txt"
        self.columns = (
            *game.board.inputs,
            ArraySpec("policy", "float16", (game.num_actions,)),
            ArraySpec("policy_weight", "float32", ()),
            ArraySpec("outcome", "float32", ()),
            ArraySpec("search_value", "float32", ()),
        )

    @property
    def name(self) -> str:
        return self._game.name

    def line(self, game: GameRecord) -> str:
        return self._game.game_line(game.actions.tolist(), game.outcome)

    def problems(self, chunk: Chunk) -> list[str]:
        columns = chunk.columns
        problems = [] if chunk.games else ["it holds no game"]
        problems += range_problems("cells", columns["cells"], -1, 1)
        problems += value_problems("outcome", columns["outcome"])
        problems += value_problems("search_value", columns["search_value"])
        problems += range_problems("policy_weight", columns["policy_weight"], 0, None)
        problems += range_problems("policy", columns["policy"], 0, 1) or _sum_problems(columns)
        problems += [
            f"game {record.seq} has moves that {self.name} does not have"
            for record in chunk.games
            if len(record.actions) > self._game.max_plies or (record.actions >= self._game.num_actions).any()
        ]
        return problems


class RolloutExperience:
    """Unrolls of an environment: T steps in a row, whatever episodes end and begin in between.

    observation: [R, T+1, …], raw; the last is what the unroll leads to.
    action: [R, T, …], as `core.environments.ActionSpec.array`.
    log_prob: float32 [R, T], of the action, by the network that acted.
    value: float32 [R, T+1], by the network that acted, in units of reward.
    reward: float32 [R, T], raw.
    terminated: bool [R, T], the episode ended: nothing comes after it.
    truncated: bool [R, T], the episode was cut: what comes after it is worth value[t+1].
    valid: bool [R, T], False where there was no step of an episode: a reset, or an episode that was dropped.
    discounted_return: float32 [R, T], running discounted sum of the episode's rewards.
    """

    text_suffix = ""

    def __init__(self, name: str, spec: EnvironmentSpec, *, unroll_steps: int) -> None:
        self.name = name
        self._spec = spec
        self._actions = spec.actions
        steps, action = unroll_steps, spec.actions.array
        self.columns = (
            ArraySpec("observation", spec.observation_dtype, (steps + 1, *spec.observation_shape)),
            ArraySpec("action", action.dtype, (steps, *action.shape)),
            ArraySpec("log_prob", "float32", (steps,)),
            ArraySpec("value", "float32", (steps + 1,)),
            ArraySpec("reward", "float32", (steps,)),
            ArraySpec("terminated", "bool", (steps,)),
            ArraySpec("truncated", "bool", (steps,)),
            ArraySpec("valid", "bool", (steps,)),
            ArraySpec("discounted_return", "float32", (steps,)),
        )

    def line(self, game: GameRecord) -> str:
        raise NotImplementedError("an environment has no games")

    def problems(self, chunk: Chunk) -> list[str]:
        columns = chunk.columns
        problems = ["it holds games, and its rows are of no game"] if chunk.games else []
        for name in ("observation", "value", "reward", "discounted_return", "action"):
            problems += range_problems(name, columns[name], -np.inf, None)
        if self._actions.kind == "categorical":
            problems += range_problems("log_prob", columns["log_prob"], -np.inf, _LOG_PROB_LIMIT)
            problems += range_problems("action", columns["action"], 0, None)
            if (columns["action"] >= np.array(self._actions.sizes)).any():
                problems.append("an action is none of the environment's")
        else:
            problems += range_problems("log_prob", columns["log_prob"], -np.inf, None)
        if self._spec.masked and not problems and not self._are_allowed(columns):
            problems.append("an action is one that its mask forbids")
        return problems

    def _are_allowed(self, columns: Mapping[str, np.ndarray]) -> bool:
        """Whether the mask of each valid step allows each choice of its action."""
        valid, sizes = columns["valid"], self._actions.sizes
        mask = columns["observation"][:, :-1, -sum(sizes) :][valid]
        first_of_each = np.cumsum([0, *sizes[:-1]])
        return bool(np.take_along_axis(mask, columns["action"][valid] + first_of_each, axis=1).all())


def problems_of(chunk: Chunk, experience: Experience) -> list[str]:
    """Return in words what is wrong with a chunk that should be of this experience; nothing if it is sound."""
    return chunk.check_valid() or _misfits(experience.columns, chunk) or experience.problems(chunk)


def _misfits(columns: tuple[ArraySpec, ...], chunk: Chunk) -> list[str]:
    """Return in words how the form of a chunk's columns differs from what is expected."""
    expected = {spec.name: spec for spec in columns}
    if chunk.columns.keys() != expected.keys() | PROVENANCE.keys():
        return [f"its columns are {', '.join(chunk.columns)[:200]}, expected {', '.join(expected)}"]
    problems = [spec.mismatch(chunk.columns[name]) for name, spec in expected.items()]
    return [problem for problem in problems if problem is not None]


def _sum_problems(columns: Mapping[str, np.ndarray]) -> list[str]:
    sums = columns["policy"].sum(axis=1, dtype=np.float32)
    worst = np.abs(sums - 1)[columns["policy_weight"] > 0].max(initial=0)
    return [f"a policy misses a sum of 1 by {worst:.4f}"] if worst > POLICY_SUM_TOLERANCE else []
