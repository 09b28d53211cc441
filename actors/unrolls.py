"""Unrolls: T steps of an environment in a row, recorded as they happen and gathered into chunks.

Shapes: `G` environments of a group, `T` steps of an unroll, `R` rows, `E` episodes.
`replay.experience.RolloutExperience` says what the columns of a row are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from core.environments import EnvironmentSpec
from core.metrics import Metrics
from replay.records import Chunk, Episodes


class Ended(NamedTuple):
    """An episode that ended: in which environment, its sum of rewards, its steps, and how long it took."""

    slot: int
    total_reward: float
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Unrolls:
    """Rows that were made side by side, and the episodes that ended in them.

    Attributes:
        columns: of R rows, `seq` apart, which they are given when they leave.
        ended: `slot` is the row.
    """

    columns: Mapping[str, np.ndarray]
    ended: tuple[Ended, ...]

    @property
    def num_rows(self) -> int:
        return len(self.columns["weights_version"])


class Recording:
    """The unrolls of G environments while they happen, time first: each step is written at `t`, in one piece.

    Observations are written once: what was sent for evaluation stays as it was, however long that takes.

    Attributes:
        t: steps made.
        weights_version: oldest that took part.
        ended: episodes.
    """

    def __init__(
        self, spec: EnvironmentSpec, *, num_steps: int, num_envs: int, first: np.ndarray, steps_before: int
    ) -> None:
        T, G = num_steps, num_envs
        action = spec.actions.array
        self.observation = np.empty((T + 1, G, *spec.observation_shape), spec.observation_dtype)
        self.action = np.empty((T, G, *action.shape), action.dtype)
        self.log_prob = np.empty((T, G), np.float32)
        self.value = np.empty((T + 1, G), np.float32)
        self.reward = np.empty((T, G), np.float32)
        self.terminated = np.empty((T, G), bool)
        self.truncated = np.empty((T, G), bool)
        self.valid = np.empty((T, G), bool)
        self.discounted_return = np.empty((T, G), np.float32)
        self.observation[0] = first
        self.steps_before = steps_before
        self.t = 0
        self.weights_version = np.iinfo(np.int32).max
        self.ended: list[Ended] = []

    @property
    def present(self) -> np.ndarray:
        """The observations [G, …] that the next actions depend on."""
        return self.observation[self.t]

    @property
    def full(self) -> bool:
        """Whether all steps are made; the value of what they lead to may be missing yet."""
        return self.t == len(self.reward)

    @property
    def steps_after(self) -> int:
        """Steps of each environment before the unroll that follows."""
        return self.steps_before + self.t

    def evaluated(self, value: np.ndarray, weights_version: int) -> None:
        """Take in what the network says of the present observations."""
        self.value[self.t] = value
        self.weights_version = min(self.weights_version, weights_version)

    def rows(self) -> Unrolls:
        """Return all unrolls, an environment a row."""
        G = self.value.shape[1]
        over_time = {
            "observation": self.observation,
            "action": self.action,
            "log_prob": self.log_prob,
            "value": self.value,
            "reward": self.reward,
            "terminated": self.terminated & self.valid,
            "truncated": self.truncated & self.valid,
            "valid": self.valid,
            "discounted_return": self.discounted_return,
        }
        columns = {name: np.ascontiguousarray(array.swapaxes(0, 1)) for name, array in over_time.items()}
        columns["step"] = np.full(G, self.steps_before, np.int32)
        columns["weights_version"] = np.full(G, self.weights_version, np.int32)
        return Unrolls(columns, tuple(self.ended))


class UnrollHarvest:
    """Turns unrolls into chunks, the rows numbered in the order in which they leave the actor.

    Args:
        run, game, actor, epoch: provenance of every chunk; (run, actor, epoch, seq) names a row.

    Attributes:
        rows_waiting: for the next chunk.
        games: episodes that ended.
        plies: steps of those episodes.
    """

    def __init__(self, *, run: str, game: str, actor: int, epoch: int, metrics: Metrics) -> None:
        self._run = run
        self._game = game
        self._actor = actor
        self._epoch = epoch
        self._metrics = metrics
        self._next_seq = 0
        self._waiting: list[Unrolls] = []
        self.rows_waiting = 0
        self.games = 0
        self.plies = 0

    def add(self, unrolls: Unrolls) -> None:
        self._waiting.append(unrolls)
        self.rows_waiting += unrolls.num_rows
        self.games += len(unrolls.ended)
        for episode in unrolls.ended:
            self.plies += episode.steps
            self._metrics.observe("tamen_game_duration_seconds", episode.seconds)
            self._metrics.observe("tamen_game_plies", episode.steps)

    @property
    def games_waiting(self) -> int:
        """Rows, for there are no games."""
        return self.rows_waiting

    def take_chunk(self) -> Chunk | None:
        """Return everything that waits as one chunk; None when nothing does."""
        if not self._waiting:
            return None
        waiting, self._waiting, self.rows_waiting = self._waiting, [], 0
        columns = {
            name: np.concatenate([unrolls.columns[name] for unrolls in waiting])
            for name in waiting[0].columns
        }
        first_seq = self._next_seq
        self._next_seq += len(columns["step"])
        columns["seq"] = np.arange(first_seq, self._next_seq, dtype=np.int64)
        return Chunk(
            run=self._run,
            game=self._game,
            actor=self._actor,
            epoch=self._epoch,
            columns=columns,
            episodes=_episodes(waiting, first_seq),
        )


def _episodes(waiting: list[Unrolls], first_seq: int) -> Episodes:
    ended: list[Ended] = []
    for unrolls in waiting:
        ended += [episode._replace(slot=first_seq + episode.slot) for episode in unrolls.ended]
        first_seq += unrolls.num_rows
    return Episodes(
        seq=np.array([episode.slot for episode in ended], np.int64),
        total_reward=np.array([episode.total_reward for episode in ended], np.float32),
        steps=np.array([episode.steps for episode in ended], np.int32),
        seconds=np.array([episode.seconds for episode in ended], np.float32),
    )
