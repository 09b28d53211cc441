"""What differs from workload to workload: who plays, in which rows it is kept, and what is learnt from it.

A configuration's `game` tells which: "gym:ID" is an environment, any other name a board game. Each method imports what
it builds: on Ray every part is a process of its own and should load nothing else.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from actors.worker import Group, Harvest
from configs.schema import RunConfig
from core.environments import EnvironmentSpec
from core.messages import Arrays, BoardSpec
from core.metrics import Metrics
from core.seeds import derive_seed

if TYPE_CHECKING:
    from pathlib import Path

    from actors.game_log import GameLog
    from actors.selfplay import GameGroup
    from games.game import Game
    from inference_server.client import Client
    from learner.objective import Objective
    from replay.experience import Experience

MODEL = "main"
"""Name of the model that a run trains."""


class Playing(Protocol):
    """A group of games or environments.

    Attributes:
        moves: moves played, or steps of environments.
        set_aside: games or episodes that were given up.
        set_aside_cause: why, of the last of them.
    """

    moves: int
    set_aside: int
    set_aside_cause: str

    @property
    def in_play(self) -> int:
        """Games, or unrolls of environments, that have begun and would be lost."""
        ...

    def play(self) -> Group: ...

    def wind_up(self) -> None:
        """Begin no more games; `play` ends with the last of those in play. Any thread may call."""
        ...


class Gathering(Harvest, Protocol):
    """Where an actor's groups put what they finish.

    Attributes:
        games: finished games or episodes.
        plies: their moves or steps.
    """

    games: int
    plies: int


@dataclasses.dataclass(frozen=True, slots=True)
class Cast:
    """The groups of an actor, and where they put what they finish.

    Attributes:
        ends: returns how episodes ended, counted in words; nothing of games.
        close: frees what the groups hold outside of this process, once they play no more. Told whether their games are
            over, or whoever comes may go on with them.
        carry_on: lets games outlive this process by what is written into the folder that it is told how to find, and
            goes on with those there whose process has ended; returns how many. To be called before they play. Does
            nothing for environments.
        trouble: returns why games would not outlive it, "" if they would.
    """

    groups: tuple[Playing, ...]
    harvest: Gathering
    ends: Callable[[], Counter[str]] = Counter
    close: Callable[[bool], None] = lambda over: None
    carry_on: Callable[["Callable[[], Path]"], int] = lambda folder: 0
    trouble: Callable[[], str] = lambda: ""


class EvaluatorPart(Protocol):
    """What measures the strength of the newest weights while a run goes on."""

    def run(self, should_stop: Callable[[], bool]) -> None: ...

    def stats(self) -> dict[str, Any]: ...


class Workload(Protocol):
    """One kind of experience and what is learnt from it."""

    @property
    def spec(self) -> BoardSpec | EnvironmentSpec: ...

    def experience(self) -> "Experience": ...

    def objective(self) -> "Objective": ...

    def cast(self, *, run: str, actor: int, epoch: int, metrics: Metrics) -> Cast: ...

    def evaluator(
        self, client: "Client", newest_version: Callable[[], int | None], results_file: "Path"
    ) -> EvaluatorPart: ...

    def any_inputs(self, rows: int, rng: np.random.Generator) -> Arrays:
        """Return inputs of the network for so many rows, which need not make sense."""
        ...


class BoardWorkload:
    """Self-play of a board game with search."""

    def __init__(self, config: RunConfig) -> None:
        from games.catalog import make_game

        self._config = config
        self.game = make_game(config.game)
        self.spec = self.game.board

    def experience(self) -> "Experience":
        from replay.experience import BoardExperience

        return BoardExperience(self.game)

    def objective(self) -> "Objective":
        from learner.board_objective import BoardObjective

        prioritised = self._config.replay.sampler == "prioritised"
        config = self._config.learner
        return BoardObjective(config, value_mix=config.value_mix, prioritised=prioritised)

    def cast(self, *, run: str, actor: int, epoch: int, metrics: Metrics) -> Cast:
        from actors.harvest import GameHarvest
        from actors.rehearsal import rehearse
        from actors.selfplay import GameGroup
        from search.factory import make_search

        config, game = self._config, self.game
        # A spare, too, is built like this: when it takes a place, nothing is left to load.
        rehearse(game, config.search)
        harvest = GameHarvest(game.board, run=run, game=game.name, actor=actor, epoch=epoch, metrics=metrics)
        groups = tuple(
            GameGroup(
                game,
                make_search(config.search, game, config.actors.games_per_group),
                config.search,
                num_games=config.actors.games_per_group,
                random_opening_plies=config.actors.random_opening_plies,
                model=MODEL,
                seed=derive_seed(config.seed, "self-play", actor, epoch, group),
                finish=harvest.add,
            )
            for group in range(config.actors.groups_per_actor)
        )
        logs = _Logs(game, groups)
        return Cast(groups, harvest, close=logs.close, carry_on=logs.carry_on, trouble=lambda: logs.trouble)

    def evaluator(
        self, client: "Client", newest_version: Callable[[], int | None], results_file: "Path"
    ) -> EvaluatorPart:
        from actors.evaluator import Evaluator

        return Evaluator(
            self.game,
            self._config.evaluation,
            self._config.search,
            client=client,
            newest_version=newest_version,
            model=MODEL,
            results_file=results_file,
            seed=self._config.seed,
        )

    def any_inputs(self, rows: int, rng: np.random.Generator) -> Arrays:
        # The boards are no game's; a network does not mind, and a cache will not meet them again.
        return {
            spec.name: rng.integers(-1, 2, (rows, *spec.shape)).astype(spec.dtype)
            for spec in self.spec.inputs
        }


class _Logs:
    """What keeps the games of an actor's groups for whoever goes on with them; see `actors.game_log`."""

    def __init__(self, game: "Game", groups: "Sequence[GameGroup]") -> None:
        self._game = game
        self._groups = groups
        self._logs: list[GameLog] = []
        self._refused = ""

    @property
    def trouble(self) -> str:
        return next((log.trouble for log in self._logs if log.trouble), self._refused)

    def carry_on(self, folder: "Callable[[], Path]") -> int:
        from actors.game_log import claim

        taken_over = 0
        for group in self._groups:
            try:
                log = claim(folder(), num_actions=self._game.num_actions, max_plies=self._game.max_plies)
            except OSError as error:
                self._refused = f"games in play are not written down: {error.strerror or error}"
            else:
                self._logs.append(log)
                taken_over += group.carry_on(log)
        return taken_over

    def close(self, over: bool) -> None:
        while self._logs:
            log = self._logs.pop()
            log.remove() if over else log.close()


class EnvironmentWorkload:
    """Rollouts of a gymnasium environment."""

    def __init__(self, config: RunConfig, environment: str) -> None:
        self._config = config
        self._environment = environment

    @property
    def spec(self) -> EnvironmentSpec:
        return self._described

    @cached_property
    def _described(self) -> EnvironmentSpec:
        """What the environment says of itself when it is opened."""
        from actors.environments import environment_spec, open_environments

        environments = open_environments(self._environment, self._config.rollout, num_envs=1)
        try:
            return environment_spec(environments)
        finally:
            environments.close()

    def experience(self) -> "Experience":
        from replay.experience import RolloutExperience

        return RolloutExperience(self._config.game, self.spec, unroll_steps=self._config.rollout.unroll_steps)

    def objective(self) -> "Objective":
        from learner.policy_objectives import PPO, VTrace

        config = self._config
        if config.policy_gradient.algorithm == "vtrace":
            return VTrace(self.spec, config.policy_gradient, config.rollout)
        seed = derive_seed(config.seed, "learner")
        return PPO(self.spec, config.policy_gradient, config.rollout, seed=seed)

    def cast(self, *, run: str, actor: int, epoch: int, metrics: Metrics) -> Cast:
        from actors.environments import open_environments
        from actors.rollout import EnvironmentGroup
        from actors.unrolls import UnrollHarvest

        config = self._config
        harvest = UnrollHarvest(run=run, game=config.game, actor=actor, epoch=epoch, metrics=metrics)
        groups = tuple(
            EnvironmentGroup(
                open_environments(self._environment, config.rollout, num_envs=config.rollout.envs_per_group),
                self.spec,
                config.rollout,
                model=MODEL,
                seed=derive_seed(config.seed, "rollout", actor, epoch, group),
                finish=harvest.add,
            )
            for group in range(config.actors.groups_per_actor)
        )

        def close(over: bool) -> None:
            for group in groups:
                group.close()

        return Cast(groups, harvest, lambda: sum((group.ends for group in groups), Counter()), close)

    def evaluator(
        self, client: "Client", newest_version: Callable[[], int | None], results_file: "Path"
    ) -> EvaluatorPart:
        from actors.rollout_evaluator import RolloutEvaluator

        return RolloutEvaluator(
            self._environment,
            self._config.evaluation,
            self._config.rollout,
            client=client,
            newest_version=newest_version,
            model=MODEL,
            results_file=results_file,
            seed=self._config.seed,
        )

    def any_inputs(self, rows: int, rng: np.random.Generator) -> Arrays:
        spec = self.spec
        return {
            "observation": rng.integers(0, 2, (rows, *spec.observation_shape)).astype(spec.observation_dtype)
        }


def workload_of(config: RunConfig) -> Workload:
    """Return the workload that a configuration asks for.

    Raises:
        UsageError: when there is no such game or environment.
    """
    if config.environment is not None:
        return EnvironmentWorkload(config, config.environment)
    return BoardWorkload(config)
