"""The steps of a pipeline, each given its section of the configuration and what of the cluster it needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cluster.run.run_folder import RunFolder
from cluster.training.fit_step import FitStep
from configs.pipeline import PipelineConfig
from configs.words import did_you_mean
from core.errors import UsageError
from pipeline.orchestrator import Stage
from pipeline.positions import PositionsStep, Selection
from pipeline.preprocess import PreprocessStep
from pipeline.shuffle import ShuffleStep, Shuffling

STEPS = ("selfplay", "preprocess", "positions", "shuffle", "train")


def sources_of(config: PipelineConfig) -> list[str]:
    """Return the files and folders of games that are there before the pipeline begins."""
    return [*config.data, *([config.selfplay_dir] if config.selfplay_dir is not None else [])]


def first_and_last(
    config: PipelineConfig, first: str | None, last: str | None, skip: Sequence[str]
) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Return which steps to run, without self-play where no model is given that could play.

    Raises:
        UsageError: for a step that there is not, or that nothing is given for.
    """
    for name in (first, last, *skip):
        if name is not None and name not in STEPS:
            raise UsageError(
                f"there is no step {name!r}",
                why=f"the steps are {', '.join(STEPS)}",
                fix=did_you_mean(name, STEPS),
            )
    if config.selfplay.model is not None:
        return first, last, tuple(skip)
    if last == "selfplay":
        raise UsageError(
            "nothing can be played", why="no model is given that could play", fix="add --model RUN"
        )
    return None if first == "selfplay" else first, last, tuple(name for name in skip if name != "selfplay")


def build_stages(
    config: PipelineConfig,
    folder: RunFolder,
    *,
    runs: Path,
    chosen: Sequence[str],
    engine: Literal["ray", "local"] | None,
    address: str | None,
    plain: bool,
) -> list[Stage]:
    """Return the stages of a pipeline in `folder`, of which those called `chosen` are to run.

    Raises:
        UsageError: when there is nothing that it could be made from, or no such model.
    """
    stages, sources, steps = [], sources_of(config), folder.root / "pipeline"
    playing = config.selfplay.model is not None and ("selfplay" in chosen or (steps / "selfplay").exists())
    if playing:
        stages.append(_selfplay(config, folder, runs=runs, engine=engine, address=address, plain=plain))
    if "preprocess" in chosen and not playing and not sources:
        raise UsageError(
            "there is nothing to make a model from",
            why="neither files of games are named, nor a model that could play some",
            fix="add --data FILES, --selfplay-dir FOLDER or --model RUN",
        )
    preprocess = PreprocessStep(
        sources,
        needs=("selfplay",) if playing else (),
        chunk_games=config.preprocess.chunk_games,
        repeated_cell=config.preprocess.repeated_cell,
    )
    positions = PositionsStep(Selection(**config.positions.model_dump()))
    shuffling = Shuffling(
        buckets=config.shuffle.buckets, validation_share=config.shuffle.validation_share, seed=config.seed
    )
    shuffle = ShuffleStep(shuffling, target=config.shuffle.target, keep_pieces=not config.cleanup)
    # Nothing of this run's own is needed by who names rows that are there, and leaves out what would make others.
    own = "shuffle" in chosen or (steps / "shuffle").exists() or not config.fit.sources
    train = FitStep(config, folder, needs=("shuffle",) if own else ())
    return [
        *stages,
        Stage(preprocess),
        Stage(positions, passing=("*.npz", "*.npz.json")),
        Stage(shuffle),
        Stage(train, goes_on_from=train.goes_on_from),
    ]


def _selfplay(
    config: PipelineConfig,
    folder: RunFolder,
    *,
    runs: Path,
    engine: Literal["ray", "local"] | None,
    address: str | None,
    plain: bool,
) -> Stage:
    from cluster.data.selfplay_step import SelfplayStep
    from cluster.run.models import find_model

    assert config.selfplay.model is not None
    found = find_model(config.selfplay.model, runs=runs)
    step = SelfplayStep(
        config.selfplay,
        found,
        seed=config.seed,
        run=folder.typed,
        engine=engine or "ray",
        address=address,
        plain=plain,
    )
    return Stage(step, goes_on_from=step.goes_on_from)
