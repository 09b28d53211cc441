"""Fits the network of an environment to decisions that an engine's own player made, before any rollout.

What was chosen is the policy, among what could be chosen; who won is the value. The net is the one that plays the
environment of `engines.forge_environment`: its observations are the rows' vectors with their masks behind them.
Whether it has learnt anything is told against a baseline that sees nothing (`Majority`), on games kept apart.

Shapes: `R` rows, `n` rows of a batch, `F` numbers to see, `S` slots.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.imitation import ImitationFitSettings
from configs.schema import NetworkConfig, StepConfig
from core.environments import ActionSpec, EnvironmentSpec
from core.errors import UsageError
from core.seeds import derive_seed
from learner.moments import Moments
from learner.objective import Columns, Lesson, Stateless
from learner.offline import Around, OfflineLearner, Plan, dotted
from learner.searched_fitting import SearchedBatches
from learner.step import Trainer
from networks.actor_critic import ActorCritic
from networks.build import Net
from networks.precision import Precision, resolve
from replay.decision_shards import DecisionAbout, read_decisions
from replay.splitting import is_validation

EVALUATED_TOGETHER = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Imitation:
    """What is fitted to what.

    Attributes:
        folder: of decisions, see `replay.decision_shards`.
        game: name that the weights carry.
        network: its layers and precision.
        learner: what a step is, and the weights of policy and value.
        settings: how.
        seed: of the first weights and of the order of rows.
        model: name to publish under.
    """

    folder: Path
    game: str
    network: NetworkConfig
    learner: StepConfig
    settings: ImitationFitSettings
    seed: int = 0
    model: str = "main"


def imitate(imitation: Imitation, folder: Path, around: Around) -> dict[str, Any]:
    """Fit until the end or until asked to stop; what an interrupted call left in `folder` is gone on with.

    Returns:
        What `OfflineLearner.run` does, and "best": the line of `fitting.jsonl` whose weights are published; None where
        they are the last ones, or before the first. "lost": what did not become rows, by name.

    Raises:
        UsageError: when the folder was begun with other settings, or there is nothing to learn from.
        DataError: when a shard is damaged, or batch after batch cannot be learnt from.
        TamenError: when weights or a checkpoint cannot be written.
    """
    task = ImitationTask(imitation)
    learner = OfflineLearner(task, folder, around)
    learner.resume()
    counts = learner.run()
    return {**counts, "best": learner.best_entry(), "lost": task.lost}


def environment_of(about: DecisionAbout) -> EnvironmentSpec:
    """Return the environment whose network sees such rows."""
    actions = ActionSpec("categorical", (about.slots,), scalar=True)
    return EnvironmentSpec((about.features + about.slots,), "float32", actions, masked=True)


class ImitationTask:
    """See `learner.offline.Task`; all rows lie in memory, as many bytes as their files have.

    Attributes:
        lost: what did not become rows when they were recorded, by name.

    Raises:
        UsageError: when there is nothing to learn from.
        DataError: when a shard is damaged.
    """

    def __init__(self, imitation: Imitation) -> None:
        self._imitation = imitation
        settings = imitation.settings
        decisions = read_decisions(imitation.folder)
        self.lost = dict(decisions.counts)
        self._spec = environment_of(decisions.about)
        apart = is_validation(decisions.columns["game"], settings.validation_share)
        train = {name: column[~apart] for name, column in decisions.columns.items()}
        self._kept_apart = {name: column[apart] for name, column in decisions.columns.items()}
        rows = len(train["game"])
        if not rows:
            raise UsageError(
                f"{imitation.folder} has no rows to learn from",
                why=f"all {len(apart):,} are of games kept apart"
                if len(apart)
                else "in its games nothing was chosen",
                fix="record more games, or keep a smaller share apart"
                if len(apart)
                else "record games in which it is",
            )
        self._moments = Moments((decisions.about.features,))
        for start in range(0, rows, EVALUATED_TOGETHER):
            self._moments.add(train["vector"][start : start + EVALUATED_TOGETHER].astype(np.float32))
        self._majority = Majority(train)
        self._rows = SearchedBatches(train, None, seed=imitation.seed)
        self._objective = ImitationObjective(imitation.learner)
        self.plan = Plan(
            model=imitation.model,
            game=imitation.game,
            learner=imitation.learner,
            total_rows=max(1, round(rows * settings.epochs)),
            mini_epoch_rows=settings.mini_epoch_rows or rows,
            best_by="loss" if apart.any() else None,
            compared=_compared(imitation, decisions.digest),
            origin="games",
        )

    def new_trainer(self, device: str, schedule: Callable[[int], float]) -> Trainer:
        precision = resolve(self._imitation.network.precision, device)
        net = ActorCritic(
            self._spec, self._imitation.network, seed=derive_seed(self._imitation.seed, "network")
        )
        slots = self._spec.actions.num_policy
        net.set_observation_moments(
            np.append(self._moments.mean, np.zeros(slots)), np.append(self._moments.deviation, np.ones(slots))
        )
        return Trainer(
            precision.place(net), self._objective, self._imitation.learner, precision, schedule=schedule
        )

    def rate(self, steps: int, share: float) -> float:
        """See `Task.rate`: it rises over `warmup_share`, and falls along half a cosine to `final_rate_share`."""
        settings = self._imitation.settings
        return self.plan.rate(share, warmup=settings.warmup_share, final=settings.final_rate_share)

    def batch(self, drawn: int, rows: int) -> Columns:
        return with_observation(self._rows.batch(drawn, rows))

    def judge(self, net: Net, precision: Precision) -> dict[str, Any] | None:
        if not len(self._kept_apart["game"]):
            return None
        return judge_imitation(net, self._kept_apart, self._objective, precision, self._majority)

    def in_words(self, entry: Mapping[str, Any]) -> str:
        losses, report = entry["losses"], entry["validation"]
        text = f"{entry['rows']:,} rows in {entry['seconds']:.0f} s"
        if losses:
            text += f", policy loss {losses['policy_loss']:.3f}, value loss {losses['value_loss']:.3f}"
        if report is None:
            return text
        text += (
            f"; games kept apart: {100 * report['accuracy']:.1f} % of choices foretold, the usual one is right"
            f" in {100 * report['majority_accuracy']:.1f} %, values {report['value_loss']:.3f} off squared"
        )
        return f"{text}; the best so far" if entry["best"] else text

    def remedy(self, changes: Mapping[str, tuple[Any, Any]]) -> str:
        return "set them as they were, or give another name"


class ImitationObjective(Stateless):
    """Cross-entropy with what was chosen, and squares of the value's error; see `learner.objective.Objective`.

    With weights u of `value_weight`, masked policies q and values v:

        policy_loss = mean -log q(choice)
        value_loss  = Σ u (v - outcome)² / Σ u
        loss        = config.policy_weight · policy_loss + config.value_weight · value_loss
    """

    columns = ("observation", "choice", "outcome", "value_weight")

    def __init__(self, config: StepConfig) -> None:
        self._config = config

    def lesson(self, drawn: Columns) -> Lesson:
        yield drawn
        return False

    def network_inputs(self, part: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"observation": part["observation"]}

    def totals(self, batch: Columns) -> dict[str, float]:
        known = float(batch["value_weight"].sum(dtype=np.float64))
        return {"rows": len(batch["choice"]), "value_weight": known or 1.0}

    def losses(
        self, outputs: Mapping[str, Tensor], part: Mapping[str, Tensor], totals: Mapping[str, float]
    ) -> dict[str, Tensor]:
        log_q = torch.log_softmax(outputs["policy"].float(), dim=1)
        policy_loss = -log_q.gather(1, part["choice"][:, None]).sum() / totals["rows"]
        error = outputs["value"].float() - part["outcome"]
        value_loss = (part["value_weight"] * error.square()).sum() / totals["value_weight"]
        loss = self._config.policy_weight * policy_loss + self._config.value_weight * value_loss
        return {"loss": loss, "policy_loss": policy_loss, "value_loss": value_loss}


class Majority:
    """Foretells what was chosen most often: of each kind of decision, of the slots that can be chosen.

    Args:
        rows: the columns of `replay.decision_shards`, to count in.
    """

    def __init__(self, rows: Columns) -> None:
        kinds = int(rows["kind"].max(initial=0)) + 1
        self._counts = np.zeros((kinds, rows["mask"].shape[1]), np.int64)
        np.add.at(self._counts, (rows["kind"], rows["choice"]), 1)

    def foretold(self, rows: Columns) -> np.ndarray:
        """Return the slot of each row, int64 [R]; of equal ones, and of kinds never seen, the first."""
        kind = rows["kind"]
        known = kind < len(self._counts)
        counts = np.where(known[:, None], self._counts[np.where(known, kind, 0)], 0)
        return np.where(rows["mask"], counts, -1).argmax(axis=1)


def with_observation(rows: Columns) -> dict[str, np.ndarray]:
    """Return rows with what the network sees of each, "observation" float32 [R, F+S], instead of its two parts."""
    observation = np.concatenate([rows["vector"], rows["mask"]], axis=1, dtype=np.float32)
    left = {name: column for name, column in rows.items() if name not in ("vector", "mask")}
    return {**left, "observation": observation}


def judge_imitation(
    net: Net, rows: Columns, objective: ImitationObjective, precision: Precision, majority: Majority
) -> dict[str, Any]:
    """Return how well a net foretells choices, and who won.

    Args:
        net: on its device, in float32; it is not changed.
        rows: at least one, the columns of `replay.decision_shards`.
        objective: whose losses are told.
        precision: arithmetic of the forward.
        majority: the baseline.

    Returns:
        {"rows", "games"}, the losses of `objective` by name, "accuracy" and "majority_accuracy": shares of the choices
        that the net and the baseline foretell; "kinds": by the number of each kind {"rows", and these two}.
    """
    prepared = precision.prepare(copy.deepcopy(net))
    totals, count = objective.totals(rows), len(rows["choice"])
    sums: dict[str, float] = {}
    right = np.empty(count, bool)
    with torch.inference_mode():
        for start in range(0, count, EVALUATED_TOGETHER):
            here = slice(start, start + EVALUATED_TOGETHER)
            some = with_observation({name: column[here] for name, column in rows.items()})
            part = {name: torch.from_numpy(some[name]).to(precision.device) for name in objective.columns}
            outputs = prepared(objective.network_inputs(part))
            for name, share in objective.losses(outputs, part, totals).items():
                sums[name] = sums.get(name, 0.0) + float(share)
            right[here] = outputs["policy"].argmax(1).cpu().numpy() == some["choice"]
    usual = majority.foretold(rows) == rows["choice"]
    kinds = {
        str(kind): {"rows": int(of_kind.sum()), **_accuracies(right[of_kind], usual[of_kind])}
        for kind in np.unique(rows["kind"])
        for of_kind in (rows["kind"] == kind,)
    }
    games = len(np.unique(rows["game"]))
    return {"rows": count, "games": games, **sums, **_accuracies(right, usual), "kinds": kinds}


def _accuracies(right: np.ndarray, usual: np.ndarray) -> dict[str, float]:
    return {"accuracy": float(right.mean()), "majority_accuracy": float(usual.mean())}


def _compared(imitation: Imitation, data: str) -> dict[str, Any]:
    return {
        "game": imitation.game,
        "seed": imitation.seed,
        **dotted("fit", imitation.settings.model_dump(mode="json")),
        **dotted("network", imitation.network.model_dump(mode="json", include={"layers", "precision"})),
        "data": data,
    }
