"""How a run stands at one moment, summed over all its parts; what was not measured yet is None.

Shares and ratios are 0 to 1 over the last interval, counts are since the run began, earlier lives included.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TypeAlias

Measured: TypeAlias = float | None
Counted: TypeAlias = int | None


@dataclass(frozen=True, slots=True)
class GamesPart:
    """What was played: games, or episodes of environments, whose plies are steps.

    `last_board` is the final position of a game that has just ended, as text.
    """

    played: Counted = None
    per_hour: Measured = None
    mean_plies: Measured = None
    last_board: str | None = None


@dataclass(frozen=True, slots=True)
class RolloutPart:
    """What environments returned, in units of their reward.

    Attributes:
        steps_per_second: steps of all environments.
        training_return: mean over the last episodes of training, at most 100, with the noise of exploration.
        evaluated_return: mean over the episodes of the newest evaluation, without it; `low` and `high` are the ends of
            its confidence interval.
        policy_entropy, kl, clip_share: means over the last steps of the learner, see docs/learner.md.
        ratio_error: of PPO, at the first step of the last lesson: how far the network that learns is from the one that
            acted.
    """

    steps_per_second: Measured = None
    training_return: Measured = None
    evaluated_return: Measured = None
    low: Measured = None
    high: Measured = None
    policy_entropy: Measured = None
    kl: Measured = None
    clip_share: Measured = None
    ratio_error: Measured = None


@dataclass(frozen=True, slots=True)
class ActorsPart:
    """Where the actors' time went, mean over actors: the four shares add up to at most 1.

    Attributes:
        search_share: playing and searching.
        wait_share: waiting for evaluations with nothing else to do.
        deliver_share: handing games to the replay.
        held_back_share: waiting until the learner has caught up.
    """

    search_share: Measured = None
    wait_share: Measured = None
    deliver_share: Measured = None
    held_back_share: Measured = None


@dataclass(frozen=True, slots=True)
class InferencePart:
    """What the servers did; `busy_ratio` and `mean_batch_rows` are means over servers and batches.

    `failure_ratio` is the share of requests that could not be answered.
    """

    positions_per_second: Measured = None
    mean_batch_rows: Measured = None
    busy_ratio: Measured = None
    cache_hit_ratio: Measured = None
    failure_ratio: Measured = None


@dataclass(frozen=True, slots=True)
class FaultsPart:
    """What went wrong since the driver began, summed over all lives of all parts.

    Attributes:
        games_set_aside: given up because their evaluation failed twice.
        failed_requests: that a server could not answer.
        resent_requests: sent again because their answer was lost.
        refused_chunks: of games, for the values in them.
    """

    games_set_aside: Counted = None
    failed_requests: Counted = None
    resent_requests: Counted = None
    refused_chunks: Counted = None


@dataclass(frozen=True, slots=True)
class LearnerPart:
    """How the network is fitted. `policy_loss` is in nats; `lag_versions` is the mean age of the sampled rows.

    `rows_too_old` were drawn and dropped.
    """

    steps: Counted = None
    steps_per_second: Measured = None
    data_wait_ratio: Measured = None
    policy_loss: Measured = None
    value_loss: Measured = None
    lag_versions: Measured = None
    newest_version: Counted = None
    rows_too_old: Counted = None


@dataclass(frozen=True, slots=True)
class ReplayPart:
    """What is kept: `rows`, all of which are drawn from; whole chunks, so a little more than `window_rows`."""

    rows: Counted = None
    window_rows: Counted = None
    capacity_rows: Counted = None
    samples_per_insert: Measured = None


@dataclass(frozen=True, slots=True)
class Score:
    """Points per game against one opponent, in [0, 1], with the ends of its confidence interval."""

    score: float
    low: float
    high: float

    @property
    def reach(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class Event:
    """Something a person should know of: a restart, a warning. `at_seconds` is since the run began."""

    at_seconds: float
    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a run.

    Attributes:
        elapsed_seconds: since the run began, in this life.
        remaining_seconds: until the nearest stop bound, as far as can be told.
        stop: that bound in words ("20 min", "5,000 steps"); empty when there is none.
        rollout: None where the run is of a board game.
        strength: the newest match against each opponent of the ladder, weakest first.
        ends: of episodes since the driver began, counted by how; see `actors.rollout.EnvironmentGroup.ends`.
        perfect_share: share of solved positions in which the network alone picks a best move; needs a solver.
        events: the newest few, oldest first.
    """

    run: str
    game: str
    elapsed_seconds: float
    remaining_seconds: Measured = None
    stop: str = ""
    games: GamesPart = GamesPart()
    rollout: RolloutPart | None = None
    actors: ActorsPart = ActorsPart()
    inference: InferencePart = InferencePart()
    learner: LearnerPart = LearnerPart()
    replay: ReplayPart = ReplayPart()
    faults: FaultsPart = FaultsPart()
    ends: Mapping[str, int] | None = None
    strength: Mapping[str, Score] | None = None
    perfect_share: Measured = None
    events: tuple[Event, ...] = ()

    @property
    def loss(self) -> Measured:
        """The sum of both losses, unweighted; of rollouts that of the value, for the policy's hovers about 0."""
        policy, value = self.learner.policy_loss, self.learner.value_loss
        if self.rollout is not None:
            return value
        return None if policy is None or value is None else policy + value

    def flat(self) -> dict[str, Measured]:
        """Return every number as "group/name", as the run's log keeps them."""
        groups = {
            "games": self.games,
            "actors": self.actors,
            "inference": self.inference,
            "learner": self.learner,
            "replay": self.replay,
            "faults": self.faults,
        }
        flat = {
            f"{group}/{name}": value for group, part in groups.items() for name, value in asdict(part).items()
        }
        del flat["games/last_board"]
        if self.rollout is not None:
            flat |= {f"rollout/{name}": value for name, value in asdict(self.rollout).items()}
        flat |= {f"ends/{how}": count for how, count in (self.ends or {}).items()}
        for opponent, score in (self.strength or {}).items():
            flat |= {
                f"strength/{opponent}": score.score,
                f"strength/{opponent}/low": score.low,
                f"strength/{opponent}/high": score.high,
            }
        return flat | {
            "strength/perfect_share": self.perfect_share,
            "run/elapsed_seconds": self.elapsed_seconds,
        }
