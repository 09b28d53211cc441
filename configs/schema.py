"""The sections of a run's configuration, one for each component; a component is given its own and no other.

Names carry their unit. Counts that say "auto" are resolved from the machine when a run starts.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Auto = Literal["auto"]
LARGEST = 2**63 - 1  # what files of settings and databases hold
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveReal = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Real = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
BatchRows = Annotated[int, Field(ge=1, le=65536)]
MOST_A_MACHINE = 1024
PerMachine = (
    Annotated[int, Field(ge=1, le=MOST_A_MACHINE)]
    | Auto
    | Annotated[
        dict[str, Annotated[int, Field(ge=0, le=MOST_A_MACHINE)] | Auto], Field(min_length=1, max_length=32)
    ]
)
"""How many on each machine of a cluster: a number, "auto" from its cores and memory, or either by kind of machine, as
{home: 1, spot: 12}: the first kind that a machine is of counts (`cluster.run.placement`); of none, it is "auto"."""


class Section(BaseModel):
    """A frozen section that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkConfig(Section):
    """Shape and arithmetic of the network. `precision` "auto" takes the fastest that the device has.

    A board's network has `blocks` of `channels`; an environment's has `layers` of so many units, twice: for the policy
    and for the value; that of values of hands has them once. With `soft_policy` a board's has a third head, for the
    learner alone: see docs/learner.md.
    """

    blocks: Positive = 3
    channels: Positive = 32
    soft_policy: bool = False
    layers: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=8)] = (64, 64)
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"


class SearchConfig(Section):
    """How moves are found.

    `full_share` of the moves are searched with `simulations` and recorded, the others with
    `cheap_simulations` and not recorded (playout-cap randomisation, Wu 2019, arXiv 1902.10565 §3.1).
    `minimax_widths` is how many moves minimax looks at in each position, level by level; for it a simulation
    is a position looked at, and `simulations` must cover them all.
    """

    algorithm: Literal["gumbel", "puct", "minimax"] = "gumbel"
    simulations: Positive = 32
    cheap_simulations: Positive = 8
    full_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25
    root_symmetry: bool = True

    gumbel_considered_actions: Positive = 16
    gumbel_visit_offset: Real = 50.0
    gumbel_value_scale: PositiveReal = 1.0

    puct_exploration: PositiveReal = 1.5
    dirichlet_alpha: PositiveReal = 0.3
    dirichlet_share: Share = 0.25
    minimax_widths: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=8)] = (4, 3)

    temperature: Real = 1.0
    temperature_plies: Count = 10

    @model_validator(mode="after")
    def _cheap_is_cheaper(self) -> "SearchConfig":
        if self.cheap_simulations > self.simulations:
            raise ValueError("cheap_simulations must not exceed simulations")
        return self

    @model_validator(mode="after")
    def _widths_fit(self) -> "SearchConfig":
        positions = minimax_positions(self.minimax_widths)
        if self.algorithm == "minimax" and positions > self.simulations:
            widths = list(self.minimax_widths)
            raise ValueError(f"with minimax_widths {widths} simulations must be at least {positions}")
        return self


def minimax_positions(widths: Sequence[int]) -> int:
    """Return how many positions minimax of these widths looks at below the root: w1 + w1·w2 + …"""
    return sum(accumulate(widths, mul))


class ActorsConfig(Section):
    """Who plays. Each actor keeps `groups_per_actor` groups of games: one thinks while another waits.

    `count` is of each machine that takes part. So is `spares`: processes that wait there to take the place of an actor
    that dies, in memory but without games.
    """

    count: PerMachine = "auto"
    spares: Annotated[int, Field(ge=0, le=16)] = 1
    groups_per_actor: Annotated[int, Field(ge=1, le=16)] = 2
    games_per_group: Annotated[int, Field(ge=1, le=8192)] = 64
    random_opening_plies: Count = 0
    chunk_rows: Annotated[int, Field(ge=1, le=65536)] = 2048
    flush_seconds: PositiveReal = 2.0


class RolloutConfig(Section):
    """How environments are stepped: `game` "gym:ID" names one that `gymnasium.make_vec` knows.

    A row of the replay is an unroll: `unroll_steps` steps of one environment, whatever ends in between.
    `vectorization` "auto" takes the environment's own vector form where it has one. `env_options` are keyword
    arguments of the environment. Rewards are scaled by the deviation of their discounted sum, observations to
    mean 0 and deviation 1; images need neither. Where environments have processes of their own ("async"), one that does
    not answer within `step_timeout_seconds` has failed.
    """

    envs_per_group: Annotated[int, Field(ge=1, le=8192)] = 64
    unroll_steps: Annotated[int, Field(ge=1, le=4096)] = 32
    vectorization: Literal["auto", "sync", "async"] = "auto"
    step_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    env_options: dict[str, bool | int | float | str | None] = {}
    discount: Share = 0.99
    normalise_observations: bool = True
    normalise_rewards: bool = True


class _Serving(Section):
    idle_wait_ms: Real = 1.0
    max_queued_rows: Positive = 65536
    cache_positions: Count = 0
    models_in_memory: Positive = 4


class InferenceConfig(_Serving):
    """What a server is given: nothing is left to be resolved."""

    max_batch_rows: BatchRows = 1024


class InferenceSettings(_Serving):
    """How positions are evaluated. The cache holds evaluations of the current weights; 0 turns it off.

    `servers` is of each machine that takes part. `max_batch_rows` "auto" is what `tamen bench inference --write` found
    best on a server's machine; see cluster.run.machine_file.
    """

    servers: PerMachine = "auto"
    max_batch_rows: BatchRows | Auto = "auto"

    def given(self, max_batch_rows: int) -> InferenceConfig:
        """Return what a server is given; `max_batch_rows` is what "auto" stands for."""
        serving = self.model_dump(exclude={"servers"})
        if self.max_batch_rows == "auto":
            serving["max_batch_rows"] = max_batch_rows
        return InferenceConfig.model_validate(serving)


class ReplayConfig(Section):
    """What is kept and how often it is used.

    Nothing is drawn before `min_rows` rows are there. From then on the window of the newest rows grows with
    all rows ever made as a power law, by `window_growth` rows a row at first, until `capacity_rows`
    (window_exponent 1 and window_growth 1 keep everything); see replay.window. `samples_per_insert` is how
    often the learner may draw each inserted row on average; it may be ahead or behind by
    `samples_per_insert_slack_rows` drawn rows, see replay.rate_limiter.

    `sampler` says which rows are drawn: "uniform" any of the window, "prioritised" those rather from which much was to
    be learnt (to the power of `priority_exponent`), "fifo" the oldest, each at most `max_uses` times and never again.
    `capacity_bytes` bounds the window too, as long as `min_rows` are left. What is not `persisted` is lost with the
    process that holds it: right for rows that are used up at once.
    """

    capacity_rows: Positive = 500_000
    min_rows: Positive = 5_000
    window_exponent: Annotated[float, Field(gt=0.0, le=1.0)] = 0.75
    window_growth: PositiveReal = 0.5
    samples_per_insert: PositiveReal = 4.0
    samples_per_insert_slack_rows: Positive = 20_000
    sampler: Literal["uniform", "fifo", "prioritised"] = "uniform"
    max_uses: Positive = 1
    priority_exponent: Real = 0.6
    importance_exponent: Share = 0.4
    capacity_bytes: Positive | None = None
    persisted: bool = True

    @model_validator(mode="after")
    def _enough_rows_fit(self) -> "ReplayConfig":
        if self.min_rows > self.capacity_rows:
            raise ValueError(
                f"min_rows={self.min_rows} is more than capacity_rows={self.capacity_rows}: so many rows could never"
                " be there, and nothing would be drawn",
                f"set replay.min_rows to at most {self.capacity_rows},"
                f" or replay.capacity_rows to at least {self.min_rows}",
            )
        return self

    @model_validator(mode="after")
    def _rows_allow_the_draws(self) -> "ReplayConfig":
        asked, allowed = self.samples_per_insert, self.max_uses
        if self.sampler == "fifo" and asked > allowed:
            raise ValueError(
                f"samples_per_insert={asked:g} asks for more draws of each row than max_uses={allowed} allows:"
                " the learner would be behind for ever, and actors would pause for it",
                f"set replay.max_uses to at least {math.ceil(asked)},"
                f" or replay.samples_per_insert to at most {allowed}",
            )
        return self


class StepConfig(Section):
    """What one optimiser step is, wherever its rows come from.

    `batch_rows` is the rows of one draw: of a board game those of one optimiser step, of an environment unrolls.
    Microbatches have at most `microbatch_rows` rows (of PPO steps). `soft_policy_weight` is that of the head which
    `network.soft_policy` adds.
    """

    batch_rows: Positive = 512
    microbatch_rows: Positive = 512
    learning_rate: PositiveReal = 2e-3
    weight_decay: Real = 1e-4
    clip_norm: PositiveReal = 5.0
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    policy_weight: Real = 1.0
    value_weight: Real = 1.0
    soft_policy_weight: Real = 8.0
    checkpoint_every_seconds: PositiveReal = 60.0
    checkpoints_kept: Annotated[int, Field(ge=2)] = 4


class LearnerConfig(StepConfig):
    """How the network is fitted to rows that come while it is.

    `value_mix` blends the search's own value into the target (0: the game's outcome alone). `num_learners` share each
    batch, a process (and GPU) each.
    """

    warmup_steps: Count = 50
    schedule: Literal["constant", "cosine", "step"] = "constant"
    schedule_steps: Positive = 10_000
    final_learning_rate_share: Share = 0.1
    value_mix: Share = 0.0
    publish_every_steps: Positive = 50
    max_lag_versions: Positive = 1_000_000
    num_learners: Annotated[int, Field(ge=1, le=64)] = 1


class PolicyGradientConfig(Section):
    """How a policy is improved from rollouts.

    PPO goes `epochs` times over what was drawn, in minibatches of `minibatch_steps` steps, and leaves off once the
    policy has moved by more than `target_kl`. V-trace takes one step for each draw. `value_clip` bounds how far one
    draw may move a value, in standard deviations of the return.
    """

    algorithm: Literal["ppo", "vtrace"] = "ppo"
    epochs: Positive = 10
    minibatch_steps: Positive = 256
    gae_lambda: Share = 0.95
    ratio_clip: PositiveReal = 0.2
    value_clip: PositiveReal | None = None
    target_kl: PositiveReal | None = None
    normalise_advantages: bool = True
    entropy_weight: Real = 0.0
    value_weight: Real = 0.5
    vtrace_rho_clip: PositiveReal = 1.0
    vtrace_c_clip: PositiveReal = 1.0


class EvaluationConfig(Section):
    """Matches against a fixed ladder while the run goes on; 0 games: none. Each opening is played from both sides.

    Of an environment `episodes` are played with the likeliest actions, from seeds that training does not use, at most
    `rollout.envs_per_group` side by side. `env_options` stand in the place of those of the rollouts.
    """

    every_seconds: PositiveReal = 60.0
    games: Annotated[int, Field(ge=0, multiple_of=2)] = 40
    simulations: Positive = 32
    opponents: tuple[str, ...] = ("random", "mcts:64")
    episodes: Count = 20
    env_options: dict[str, bool | int | float | str | None] = {}


class MirrorConfig(Section):
    """Where the run's folder is mirrored while the run goes on: a path, or a URL such as s3://bucket/runs/hex5.

    That happens every so many seconds and after each checkpoint, `max_uploads` pieces of files at a time; one that gets
    no answer within `timeout_seconds` is tried again. At the end the run waits for it up to `finish_seconds`. `take`
    puts this run there in place of one of the same name that went on elsewhere.
    """

    url: Annotated[str, Field(min_length=1)] | None = None
    every_seconds: PositiveReal = 30.0
    max_uploads: Annotated[int, Field(ge=1, le=64)] = 4
    timeout_seconds: PositiveReal = 30.0
    finish_seconds: PositiveReal = 60.0
    take: bool = False


class StopConfig(Section):
    """When a run is finished: at the first bound reached. None of them: it runs until it is interrupted."""

    minutes: PositiveReal | None = None
    games: Positive | None = None
    learner_steps: Positive | None = None


class RunConfig(Section):
    """Everything that determines a run. Only `cluster` sees the whole.

    `game` is a board game, learnt by self-play with search, or "gym:ID", an environment, learnt from rollouts. What the
    other kind needs is not looked at: `search` and the size of groups of games for an environment, `rollout` and
    `policy_gradient` for a game.
    """

    game: str
    seed: Count = 0
    network: NetworkConfig = NetworkConfig()
    search: SearchConfig = SearchConfig()
    actors: ActorsConfig = ActorsConfig()
    rollout: RolloutConfig = RolloutConfig()
    inference: InferenceSettings = InferenceSettings()
    replay: ReplayConfig = ReplayConfig()
    learner: LearnerConfig = LearnerConfig()
    policy_gradient: PolicyGradientConfig = PolicyGradientConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    mirror: MirrorConfig = MirrorConfig()
    stop: StopConfig = StopConfig()

    @property
    def environment(self) -> str | None:
        """The gymnasium environment that `game` names, None when it names a board game."""
        return self.game.removeprefix("gym:") if self.game.startswith("gym:") else None

    @model_validator(mode="after")
    def _rows_are_drawn_as_the_algorithm_wants(self) -> "RunConfig":
        on_policy = self.environment is not None and self.policy_gradient.algorithm == "ppo"
        sampler, learner = self.replay.sampler, self.learner
        if on_policy and sampler != "fifo":
            raise ValueError(
                f"PPO cannot learn from rows that are drawn by replay.sampler={sampler}: it needs those of the present"
                " policy",
                "set replay.sampler=fifo, or policy_gradient.algorithm=vtrace",
            )
        if sampler == "prioritised" and (self.environment is not None or learner.num_learners > 1):
            raise ValueError(
                "replay.sampler=prioritised is for board games and one learner",
                "set replay.sampler=uniform",
            )
        return self

    @model_validator(mode="after")
    def _batches_can_be_drawn(self) -> "RunConfig":
        batch, slack = self.learner.batch_rows, self.replay.samples_per_insert_slack_rows
        if batch > 2 * slack:  # see replay.rate_limiter
            raise ValueError(
                f"learner.batch_rows={batch} is more than twice replay.samples_per_insert_slack_rows={slack}:"
                " actors and learner could wait for each other for ever",
                f"set replay.samples_per_insert_slack_rows to at least {(batch + 1) // 2},"
                f" or learner.batch_rows to at most {2 * slack}",
            )
        if batch < self.learner.num_learners:
            raise ValueError(
                f"learner.batch_rows={batch} leaves nothing for some of learner.num_learners="
                f"{self.learner.num_learners}",
                f"set learner.batch_rows to at least {self.learner.num_learners}",
            )
        least = self.replay.min_rows
        if self.replay.sampler == "fifo" and batch > least:
            raise ValueError(
                f"learner.batch_rows={batch} is more than replay.min_rows={least}: actors could pause while fewer"
                " different rows than a batch are left, and the learner would wait for ever",
                f"set replay.min_rows to at least {batch}, or learner.batch_rows to at most {least}",
            )
        return self
