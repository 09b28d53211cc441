"""The step `train` of a pipeline: a network fitted to shuffled rows, published as the newest weights of its run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.program import Machine
from cluster.run_folder import RunFolder, configure_run
from configs.pipeline import PIPELINES, PipelineConfig
from configs.schema import RunConfig
from core.errors import UsageError
from core.files import write_atomic
from pipeline.contract import Context, Stopped
from pipeline.shuffle import data_sets
from pipeline.storage import is_url

if TYPE_CHECKING:
    from inference_server.weights_store import WeightsStore
    from learner.loop import Publisher
    from learner.mixing import DataSet
    from networks.weights import Weights

_NOT_OF_THE_RESULT = {"sources", "accept_changes"}


class FitStep:
    """Fits a network to the rows that `shuffle` made, and to those of `fit.sources`; see `pipeline.contract.Step`.

    Its run becomes one that `play`, `match` and `status` find.

    Args:
        config: of the pipeline.
        folder: of the run.
        needs: ("shuffle",), or nothing where only `fit.sources` are fitted to.
    """

    name = "train"

    def __init__(self, config: PipelineConfig, folder: RunFolder, *, needs: tuple[str, ...]) -> None:
        self._config = config
        self._folder = folder
        self.needs = needs

    @property
    def settings(self) -> dict[str, Any]:
        config = self._config
        return {
            "game": config.game,
            "seed": config.seed,
            **_dotted("fit", config.fit.model_dump(mode="json", exclude=_NOT_OF_THE_RESULT)),
            "fit.sources": [source.model_dump(mode="json") for source in config.fit.sources],
            **_dotted(
                "network", config.network.model_dump(mode="json", include={"blocks", "channels", "precision"})
            ),
            **_dotted("learner", config.learner.model_dump(mode="json")),
        }

    def goes_on_from(self, settings: Mapping[str, Any]) -> bool:
        """Whether the learner is to judge if it can go on from what was begun with other `settings`.

        Its answer names what has changed, and how to have it so. Equal settings, and yet another fingerprint, are those
        of a data set that is another now: a new network is fitted to that.
        """
        return settings != self.settings or self._config.fit.accept_changes

    def run(self, inputs: dict[str, Path], folder: Path, context: Context) -> dict[str, Any]:
        """Return what `learner.offline.fit` does, but whether it finished. Raises what the contract says.

        Of a sweep the best network is published, and "sweep" has a line for each experiment.
        """
        import torch

        from cluster.parts import MODEL, make_store

        config = self._config
        game, sets = self._sets(inputs)
        torch.set_num_threads(Machine.here().cpus if config.workers == "auto" else config.workers)
        store = StorePublisher(make_store(self._folder))
        fitter = _Fitter(game, sets, context)
        swept: dict[str, Any] = {}
        if config.fit.sweep:
            config, folder, swept = _sweep(config, fitter, folder, _Unpublished(store.newest_version()))
        configure_run(
            self._folder,
            RunConfig(game=game, seed=config.seed, network=config.network, learner=config.learner),
        )
        # Of the best experiment only its publication is left.
        counts = fitter.fit(config, folder, store)
        if not counts.pop("finished"):
            raise Stopped
        self._write_card(store.get(MODEL), counts)
        return counts | swept

    def _sets(self, inputs: Mapping[str, Path]) -> "tuple[str, list[DataSet]]":
        """Return the name of the game, and all data sets of it.

        Raises:
            UsageError: when there is none, or one of another game is named.
        """
        from learner.mixing import DataSet, read_manifest

        config = self._config
        others = [DataSet(Path(one.path), one.weight, _skipped(one.skip_files)) for one in config.fit.sources]
        if "shuffle" not in inputs:
            return read_manifest(others[0].folder).game, others
        made = data_sets(_where_rows_are(config, inputs["shuffle"]))
        rows = {
            game: sum(size for _, size in read_manifest(path).files["train"]) for game, path in made.items()
        }
        name = max(rows, key=lambda game: rows[game], default="") if config.game == "auto" else config.game
        if name not in made:
            raise UsageError(
                f"there are no rows of {config.game}",
                why=f"the games are of {', '.join(made) or 'no board'}",
                fix="set game=auto, or to one of these",
            )
        return name, [DataSet(made[name]), *others]

    def _write_card(self, weights: "Weights", counts: Mapping[str, Any]) -> None:
        """Put the weights with a card of how they were made into `model/`."""
        from networks.model_folder import save_model

        facts = {"fitted to rows": f"{counts['rows']:,}", "learner steps": f"{counts['steps']:,}"}
        for name, value in (counts["validation"] or {}).items():
            if isinstance(value, float):
                facts[f"{name.replace('_', ' ')} on games kept apart"] = f"{value:.4f}"
        save_model(self._folder.root / "model", weights, facts=facts)


@dataclass(frozen=True, slots=True)
class _Fitter:
    """Fits networks to the same rows under the configurations of pipelines."""

    game: str
    sets: "Sequence[DataSet]"
    context: Context

    def fit(
        self, config: PipelineConfig, folder: Path, publisher: "Publisher", *, name: str = ""
    ) -> dict[str, Any]:
        """Return what `learner.offline.fit` does; progress tells the `name` of an experiment."""
        from cluster.parts import MODEL, device
        from games.catalog import make_game
        from learner.offline import Around, Fitting, fit

        def progress(done: float, total: float, unit: str) -> None:
            self.context.progress(done, total, f"{unit} of {name}" if name else unit)

        fitting = Fitting(
            game=make_game(self.game),
            sets=self.sets,
            settings=config.fit,
            network=config.network,
            learner=config.learner,
            seed=config.seed,
            model=MODEL,
        )
        around = Around(
            publisher=publisher,
            progress=progress,
            should_stop=self.context.should_stop,
            log=lambda line: self.context.log(f"{name}: {line}" if name else line),
            device=device(),
        )
        return fit(fitting, folder, around)


def _sweep(
    config: PipelineConfig, fitter: _Fitter, folder: Path, publisher: "Publisher"
) -> tuple[PipelineConfig, Path, dict[str, Any]]:
    """Fit a network for each experiment, in folders of their own.

    Returns:
        Configuration and folder of the best, and {"experiments", "best", "sweep": see `learner.sweep.table`}.

    Raises:
        Stopped: when it was asked to stop.
        UsageError: when a setting cannot be swept over.
    """
    from learner.sweep import check_settings, run_grid, run_optuna, table

    settings = config.fit
    known = [
        name for name in PIPELINES.setting_names() if name.partition(".")[0] in ("fit", "network", "learner")
    ]
    check_settings(settings.sweep, known)
    plain = config.model_copy(update={"fit": settings.model_copy(update={"sweep": {}})})

    def with_values(values: Mapping[str, Any]) -> PipelineConfig:
        return PIPELINES.override(plain, [f"{name}={json.dumps(value)}" for name, value in values.items()])

    def run(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        (folder / name).mkdir(parents=True, exist_ok=True)
        counts = fitter.fit(with_values(values), folder / name, publisher, name=name)
        if not counts["finished"]:
            raise Stopped
        return counts

    if settings.sweep_method == "optuna":
        outcomes = run_optuna(settings.sweep, run, trials=settings.sweep_trials, seed=config.seed)
    else:
        outcomes = run_grid(settings.sweep, run)
    rows = table(outcomes)
    write_atomic(folder / "sweep.json", (json.dumps(rows, indent=1) + "\n").encode())
    best = outcomes[0]
    swept = {"experiments": len(outcomes), "best": best.name, "sweep": rows}
    return with_values(best.values), folder / best.name, swept


class _Unpublished:
    """Keeps the weights of experiments to themselves, and their versions above `newest`."""

    def __init__(self, newest: int | None) -> None:
        self._newest = newest

    def publish(self, weights: "Weights") -> None:
        pass

    def newest_version(self) -> int | None:
        return self._newest


class StorePublisher:
    """The weights store as a learner in the same process sees it."""

    def __init__(self, store: "WeightsStore") -> None:
        self._store = store

    def get(self, model: str) -> "Weights":
        return self._store.get(model)

    def publish(self, weights: "Weights") -> None:
        self._store.publish(weights)

    def newest_version(self) -> int | None:
        from cluster.parts import MODEL

        return self._store.highest_version(MODEL)


def _dotted(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{section}.{name}": value for name, value in settings.items()}


def _skipped(skip_files: int | tuple[int, int]) -> tuple[int, int] | None:
    """Return the first and the last file that are not used."""
    if isinstance(skip_files, int):
        return (0, skip_files - 1) if skip_files else None
    return skip_files


def _where_rows_are(config: PipelineConfig, folder: Path) -> Path:
    target = config.shuffle.target
    if target is not None and is_url(target):
        raise UsageError(
            f"a network cannot be fitted to rows at {target}",
            why="the learner reads rows from files of its own machine",
            fix="end with --to shuffle, copy them, and name the copy in fit.sources; or leave shuffle.target away",
        )
    return folder if target is None else Path(target)
