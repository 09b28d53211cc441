"""The step `train` of a pipeline: a network fitted to shuffled rows, published as the newest weights of its run."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.run.program import Machine
from cluster.run.run_folder import RunFolder, configure_run, refuse_foreign
from configs.pipeline import PIPELINES, PipelineConfig
from configs.schema import LearnerConfig, RunConfig
from core.errors import UsageError
from core.files import digest, write_atomic
from pipeline.contract import Context, Stopped
from pipeline.fetching import fetch_data_set, no_rows_at
from pipeline.shuffle import MANIFEST, data_sets
from pipeline.storage import is_url, join, read_bytes

if TYPE_CHECKING:
    from inference_server.weights_store import WeightsStore
    from learner.loop import Publisher
    from learner.mixing import DataSet
    from networks.weights import Weights

_NOT_OF_THE_RESULT = {"sources", "accept_changes"}
_NETWORK_SETTINGS = {"blocks", "channels", "soft_policy", "precision"}


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
            "fit.sources": self._sources,
            **_dotted("network", config.network.model_dump(mode="json", include=_NETWORK_SETTINGS)),
            **_dotted("learner", config.learner.model_dump(mode="json")),
        }

    @cached_property
    def _sources(self) -> list[dict[str, Any]]:
        """Return the settings of `fit.sources`, each with the digest of what its folder says of itself.

        Raises:
            UsageError: when one is no folder of shuffled rows.
        """
        sources = []
        for source in self._config.fit.sources:
            try:
                manifest = read_bytes(join(source.path, MANIFEST))
            except (FileNotFoundError, NotADirectoryError) as error:
                raise no_rows_at(source.path) from error
            sources.append(source.model_dump(mode="json") | {"digest": digest(manifest)})
        return sources

    def goes_on_from(self, settings: Mapping[str, Any]) -> bool:
        """Whether the learner is to judge if it can go on from what was begun with other `settings`.

        Its answer names what has changed, and how to have it so. Equal settings, and yet another fingerprint, are those
        of a data set that is another now: a new network is fitted to that.
        """
        return settings != self.settings or self._config.fit.accept_changes

    def run(self, inputs: dict[str, Path], folder: Path, context: Context) -> dict[str, Any]:
        """Return what `learner.board_fitting.fit` does, but whether it finished. Raises what the contract says.

        Of a sweep the best network is published, and "sweep" has a line for each experiment.
        """
        import torch

        from cluster.run.parts import MODEL, make_store

        config = self._config
        copies = folder / "copies"
        game, sets = self._sets(inputs, copies, context)
        torch.set_num_threads(Machine.here().cpus if config.workers == "auto" else config.workers)
        store = StorePublisher(make_store(self._folder))
        fitter = _Fitter(game, sets, context)
        swept: dict[str, Any] = {}
        if config.fit.sweep:
            for one in _experiments(config):  # before hours have gone into them
                refuse_foreign(self._folder, self._run_config(game, one))
            config, folder, swept = _sweep(config, fitter, folder, _Unpublished(store.newest_version()))
        configure_run(self._folder, self._run_config(game, config))
        # Of the best experiment only its publication is left.
        counts = fitter.fit(config, folder, store)
        if not counts.pop("finished"):
            raise Stopped
        self._write_card(store.get(MODEL), counts)
        shutil.rmtree(copies, ignore_errors=True)
        return counts | swept

    def _sets(
        self, inputs: Mapping[str, Path], copies: Path, context: Context
    ) -> "tuple[str, list[DataSet]]":
        """Return the name of the game, and all data sets of it; of those at URLs `copies` holds copies.

        Raises:
            UsageError: when there is none, or one of another game is named.
            DataError: when one is damaged.
            OSError: when a URL cannot be reached.
            Stopped: when it was asked to stop.
        """
        from learner.mixing import DataSet, read_manifest

        def fetched(location: str, name: str) -> Path:
            return fetch_data_set(location, copies / name, context) if is_url(location) else Path(location)

        config = self._config
        others = [
            DataSet(fetched(one.path, f"source_{number}"), one.weight, _skipped(one.skip_files))
            for number, one in enumerate(config.fit.sources)
        ]
        if "shuffle" not in inputs:
            return read_manifest(others[0].folder).game, others
        target = config.shuffle.target
        made = data_sets(inputs["shuffle"] if target is None or is_url(target) else Path(target))
        rows = {
            game: sum(file.rows for file in read_manifest(path).files["train"]) for game, path in made.items()
        }
        name = max(rows, key=lambda game: rows[game], default="") if config.game == "auto" else config.game
        if name not in made:
            raise UsageError(
                f"there are no rows of {config.game}",
                why=f"the games are of {', '.join(made) or 'no board'}",
                fix="set game=auto, or to one of these",
            )
        if target is None or not is_url(target):
            return name, [DataSet(made[name]), *others]
        return name, [DataSet(fetched(target if len(made) == 1 else join(target, name), "shuffle")), *others]

    def _run_config(self, game: str, config: PipelineConfig) -> RunConfig:
        learner = LearnerConfig(**config.learner.model_dump())
        return RunConfig(game=game, seed=config.seed, network=config.network, learner=learner)

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
        """Return what `learner.board_fitting.fit` does; progress tells the `name` of an experiment."""
        from cluster.run.parts import MODEL, device
        from games.catalog import make_game
        from learner.board_fitting import Fitting, fit
        from learner.offline import Around

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
    """
    from learner.sweep import run_grid, run_optuna, table

    settings = config.fit

    def run(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        (folder / name).mkdir(parents=True, exist_ok=True)
        counts = fitter.fit(_with_values(config, values), folder / name, publisher, name=name)
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
    return _with_values(config, best.values), folder / best.name, swept


def _experiments(config: PipelineConfig) -> list[PipelineConfig]:
    """Return the configurations of a sweep. Raises UsageError when one is none."""
    from learner.sweep import check_settings, grid

    known = [
        name for name in PIPELINES.setting_names() if name.partition(".")[0] in ("fit", "network", "learner")
    ]
    check_settings(config.fit.sweep, known)
    return [_with_values(config, values) for values in grid(config.fit.sweep)]


def _with_values(config: PipelineConfig, values: Mapping[str, Any]) -> PipelineConfig:
    """Return the configuration of one experiment."""
    plain = config.model_copy(update={"fit": config.fit.model_copy(update={"sweep": {}})})
    return PIPELINES.override(plain, [f"{name}={json.dumps(value)}" for name, value in values.items()])


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
        from cluster.run.parts import MODEL

        return self._store.highest_version(MODEL)


def _dotted(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{section}.{name}": value for name, value in settings.items()}


def _skipped(skip_files: int | tuple[int, int]) -> tuple[int, int] | None:
    """Return the first and the last file that are not used."""
    if isinstance(skip_files, int):
        return (0, skip_files - 1) if skip_files else None
    return skip_files
