"""The learner's loop: draw, learn a lesson step by step, publish, checkpoint, until it is told to stop."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from configs.schema import LearnerConfig, NetworkConfig
from core.environments import NetSpec
from core.errors import TamenError, UsageError
from learner.checkpoint import Checkpoint, CheckpointStore
from learner.feed import Batch, Feed, Source, Waited
from learner.objective import Columns, Lesson, Objective, StepReport
from learner.progress import Progress
from learner.step import new_trainer
from learner.team import ALONE, Team
from networks.build import to_weights
from networks.weights import Weights

_PATIENCE_SECONDS = 0.25
"""How long the loop waits for data before it looks whether it should stop."""


class Publisher(Protocol):
    """Where finished weights go; from there they reach whoever plays."""

    def publish(self, weights: Weights) -> None:
        """Make `weights` the newest of their model. A version names one set of weights for ever."""
        ...

    def newest_version(self) -> int | None:
        """Return the newest version that was published; None when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Resumed:
    """From where the learner goes on.

    Attributes:
        checkpoint: its number; None when there was none.
        learner_steps: taken so far.
        version: of the weights that play now.
        skipped: a sentence for each newer checkpoint that was damaged.
    """

    checkpoint: int | None
    learner_steps: int
    version: int
    skipped: tuple[str, ...]


class Learner:
    """Fits a network to what the replay holds and publishes it.

    Version 0 is the net that it begins with; each publication is one version more. What is published is the average of
    the weights over the last steps. On the CPU in fp32 without prefetching, two learners with the same seed
    and the same source make the same weights bit for bit, also when one of them was resumed on the way.

    Args:
        spec: what the network has to know of the game or environment.
        game: its name.
        model: name to publish under.
        network: shape and precision.
        config: of the learner.
        objective: what is minimised.
        source: the replay.
        publisher: where weights go.
        checkpoints: where the learner is saved.
        seed: of the run.
        device: torch device name.
        team: other learners that work on each batch; they go on from this one's weights.
        first: weights to begin with, while there is no checkpoint; None: untrained ones.
        prefetch: batches made ahead on a thread; 0 for a deterministic run.
        draws_at_once: see `learner.feed.Feed`.
        clock: monotonic seconds.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        spec: NetSpec,
        game: str,
        *,
        model: str,
        network: NetworkConfig,
        config: LearnerConfig,
        objective: Objective,
        source: Source,
        publisher: Publisher,
        checkpoints: CheckpointStore,
        seed: int,
        device: str = "cpu",
        team: Team = ALONE,
        first: Weights | None = None,
        prefetch: int = 0,
        draws_at_once: int = 1,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._game = game
        self._model = model
        self._config = config
        self._objective = objective
        self._publisher = publisher
        self._checkpoints = checkpoints
        self._clock = clock
        self._sleep = sleep
        self._trainer = new_trainer(
            spec, network, config, objective, seed=seed, device=device, team=team, first=first
        )
        self._feed = Feed(
            source,
            batch_rows=config.batch_rows,
            prefetch=prefetch,
            draws_at_once=draws_at_once,
            clock=clock,
        )
        self._lesson: Lesson | None = None
        self._batch: Columns = {}
        self._lag_versions = 0.0
        self._progress = Progress()
        self._counters = _Counters()
        self._slept_seconds = 0.0
        self._saved_at = clock()
        self._weights = self._packed(version=0)
        precision = self._trainer.precision
        self._progress.tell(precision=f"{precision.name}: {precision.why}")

    def resume(self) -> Resumed:
        """Go on from the newest sound checkpoint, if there is one, and see to it that its weights play.

        Has to be called before the first step, and again before one that follows a failure.

        Raises:
            DataError: when every checkpoint is damaged.
            UsageError: when they are of another game or network.
        """
        self._lesson = None
        checkpoint = self._checkpoints.load_newest()
        if checkpoint is not None:
            self._restore(checkpoint)
            self._progress.tell(skipped_checkpoints="; ".join(checkpoint.skipped))
        self._trainer.lead()
        self._offer()
        self._saved_at = self._clock()
        self._tell()
        return Resumed(
            checkpoint=checkpoint.number if checkpoint else None,
            learner_steps=self._trainer.steps,
            version=self._weights.version,
            skipped=checkpoint.skipped if checkpoint else (),
        )

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Learn until `should_stop`, then publish and save.

        Raises:
            TamenError: when nothing can be learnt, published, or at the end saved.
        """
        try:
            while not should_stop():
                done = self.step_once()
                if isinstance(done, Waited):
                    self._rest(done)
            self.finish()
        finally:
            self._feed.close()

    def step_once(self) -> StepReport | Waited:
        """Take one step if there are rows for it; publish and save when that is due."""
        waited = self._open_lesson() if self._lesson is None else None
        if waited is not None:
            self._progress.tell(waiting_for=waited.reason)
            self._tell()
            return waited
        report = self._trainer.step(self._batch)
        self._account(report)
        try:
            self._go_on(report)
        finally:
            if (
                self._lesson is None
                and self._clock() - self._saved_at >= self._config.checkpoint_every_seconds
            ):
                self._try_to_save()
            self._tell()
        return report

    def finish(self) -> None:
        """Publish what was learnt since the last version, and save, also when publishing fails."""
        try:
            if self._trainer.steps > self._counters.published_steps:
                self.publish()
        finally:
            self._tell()
            self.save()

    def publish(self) -> None:
        """Publish the averaged weights as the next version."""
        weights = self._packed(version=self._weights.version + 1)
        self._publisher.publish(weights)
        self._weights = weights
        self._counters.published_steps = self._trainer.steps

    def save(self) -> None:
        """Write a checkpoint. Raises TamenError when it cannot be written."""
        self._saved_at = self._clock()
        state = {
            "game": self._game,
            "model": self._model,
            "learner_steps": self._trainer.steps,
            "version": self._weights.version,
            "counters": dataclasses.asdict(self._counters),
        }
        number = self._checkpoints.save(
            weights=self._weights, trainer_state=self._trainer.state_dict(), state=state
        )
        self._progress.tell(checkpoint=number, checkpoint_trouble="")

    def stats(self) -> dict[str, float | str]:
        """Return counts and recent means by name; safe to call from any thread."""
        return self._progress.stats()

    def _open_lesson(self) -> Waited | None:
        """Draw, and have the first batch of a lesson ready; else say what there is to wait for."""
        drawn = self._feed.next(_PATIENCE_SECONDS)
        if isinstance(drawn, Waited):
            return drawn
        rows = self._fresh_rows(drawn)
        versions = rows["weights_version"]
        if not len(versions):
            return Waited(0.0, "all rows drawn were older than learner.max_lag_versions")
        self._lag_versions = float(np.mean(self._weights.version - versions))
        self._lesson = self._objective.lesson(rows)
        try:
            self._batch = next(self._lesson)
        except StopIteration as end:
            self._close_lesson(publish=end.value)
            return Waited(0.0, "what was drawn held nothing to take a step on")
        return None

    def _go_on(self, report: StepReport) -> None:
        """Let the lesson have the report, and go on to its next batch or its end."""
        assert self._lesson is not None
        if report.row_errors is not None:
            self._feed.update_priorities(self._batch["chunk"], self._batch["row"], report.row_errors)
        try:
            self._batch = self._lesson.send(report)
        except StopIteration as end:
            self._close_lesson(publish=end.value)

    def _close_lesson(self, *, publish: bool) -> None:
        self._lesson, self._batch = None, {}
        self._progress.tell(**self._objective.facts())
        unpublished = self._trainer.steps - self._counters.published_steps
        if publish or unpublished >= self._config.publish_every_steps:
            self.publish()

    def _fresh_rows(self, batch: Batch) -> Columns:
        """Return the rows that are not too old, and note that the batch was taken."""
        self._counters.draws, self._counters.sampled_rows = batch.draws, batch.sampled_rows
        columns, sample = batch.columns, batch.sample
        if sample.importance is not None:
            places = {"importance": sample.importance, "chunk": sample.chunk_ids, "row": sample.rows}
            columns = columns | places
        fresh = self._weights.version - columns["weights_version"] <= self._config.max_lag_versions
        if fresh.all():
            return columns
        self._counters.rows_too_old += int(np.count_nonzero(~fresh))
        return {name: column[fresh] for name, column in columns.items()}

    def _account(self, report: StepReport) -> None:
        self._progress.tell(waiting_for="")
        if report.applied:
            self._counters.rows_trained += report.rows
        else:
            self._progress.tell(last_refusal=report.reason + _whose(report.set_aside))
        self._progress.add(
            report,
            lag_versions=self._lag_versions,
            seconds=self._clock(),
            waited_seconds=self._feed.waited_seconds + self._slept_seconds,
        )

    def _tell(self) -> None:
        self._progress.tell(
            learner_steps=self._trainer.steps,
            version=self._weights.version,
            rows_trained=self._counters.rows_trained,
            rows_too_old=self._counters.rows_too_old,
            batches_set_aside=self._trainer.batches_set_aside,
            rows_set_aside=self._trainer.rows_set_aside,
        )

    def _rest(self, waited: Waited) -> None:
        seconds = min(waited.seconds, _PATIENCE_SECONDS)
        self._sleep(seconds)
        self._slept_seconds += seconds

    def _try_to_save(self) -> None:
        try:
            self.save()
        except TamenError as error:  # a full disk: the older ones are safe, and the next interval tries again
            self._progress.tell(checkpoint_trouble=str(error))

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        found = (state["game"], checkpoint.weights.network)
        if found != (self._game, self._weights.network):
            raise UsageError(
                f"checkpoint {checkpoint.number} cannot be resumed",
                why=f"it is of {found[0]} with network {dict(found[1])}, the configuration asks for"
                f" {self._game} with {dict(self._weights.network)}",
                fix="give the game and network of the run, or a new name to begin a new run",
            )
        self._trainer.load_state_dict(checkpoint.trainer_state)
        self._counters = _Counters(**state["counters"])
        self._feed.restore(self._counters.draws, self._counters.sampled_rows)
        self._weights = checkpoint.weights

    def _offer(self) -> None:
        """See to it that the weights held here are the newest that were published.

        A learner that died may have published after its last checkpoint. Those versions stay what they are,
        and what goes on from here is published above them.
        """
        newest = self._publisher.newest_version()
        if newest == self._weights.version:
            return
        if newest is not None and newest > self._weights.version:
            self._weights = dataclasses.replace(self._weights, version=newest + 1)
        self._publisher.publish(self._weights)

    def _packed(self, *, version: int) -> Weights:
        return to_weights(self._trainer.published_net(), model=self._model, version=version, game=self._game)


def _whose(rows: np.ndarray | None) -> str:
    """Return which games the rows that are to blame were cut from, as far as a person can use it."""
    if rows is None:
        return ""
    games = np.unique(rows[:, :3], axis=0)
    actor, epoch, seq = games[0]
    return f" (rows of {len(games)} games, the first of them game {seq} of actor {actor} in its life {epoch})"


@dataclass(slots=True)
class _Counters:
    """What a checkpoint remembers beside the trainer.

    Attributes:
        rows_trained: rows of the batches of applied steps; of PPO steps, each as often as it was gone over.
        rows_too_old: rows drawn that were older than max_lag_versions.
        draws, sampled_rows: the source's counters after the last batch taken.
        published_steps: learner steps at the last publication.
    """

    rows_trained: int = 0
    rows_too_old: int = 0
    draws: int = 0
    sampled_rows: int = 0
    published_steps: int = 0
