"""The step `train` of a pipeline: a network fitted to shuffled rows, published as the newest weights of its run."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.program import Machine
from cluster.run_folder import RunFolder, configure_run
from configs.pipeline import PipelineConfig
from configs.schema import RunConfig
from core.errors import UsageError
from pipeline.contract import Context, Stopped
from pipeline.shuffle import data_sets
from pipeline.storage import is_url

if TYPE_CHECKING:
    from inference_server.weights_store import WeightsStore
    from learner.mixing import DataSet
    from networks.weights import Weights

_NOT_OF_THE_RESULT = {"sources", "sweep", "sweep_method", "sweep_trials", "accept_changes"}


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
        """Return what `learner.offline.fit` does, but whether it finished. Raises what the contract says."""
        import torch

        from cluster.parts import MODEL, device, make_store
        from games.catalog import make_game
        from learner.offline import Around, Fitting, fit

        config = self._config
        name, sets = self._sets(inputs)
        game = make_game(name)
        configure_run(
            self._folder,
            RunConfig(game=name, seed=config.seed, network=config.network, learner=config.learner),
        )
        torch.set_num_threads(Machine.here().cpus if config.workers == "auto" else config.workers)
        store = make_store(self._folder)
        fitting = Fitting(
            game=game,
            sets=sets,
            settings=config.fit,
            network=config.network,
            learner=config.learner,
            seed=config.seed,
            model=MODEL,
        )
        around = Around(
            publisher=StorePublisher(store),
            progress=context.progress,
            should_stop=context.should_stop,
            log=context.log,
            device=device(),
        )
        counts = fit(fitting, folder, around)
        if not counts.pop("finished"):
            raise Stopped
        self._write_card(store.get(MODEL), counts)
        return counts

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


class StorePublisher:
    """The weights store as a learner in the same process sees it."""

    def __init__(self, store: "WeightsStore") -> None:
        self._store = store

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
