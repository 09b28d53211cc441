"""The sections of a pipeline's configuration, one for each step, and the whole."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.fitting import FitSettings
from configs.loading import Kind
from configs.names import PIPELINES_FOLDER
from configs.schema import Auto, BatchRows, Count, NetworkConfig, Positive, Real, Section, StepConfig


class SelfplaySettings(Section):
    """Games of a given model, by minimax with widths.

    `model` is a run, RUN@VERSION or a .safetensors file; without one nothing is played. The `minimax_widths` best moves
    are looked at, level by level; those of the first level are drawn at a `temperature`, in each position of a game. A
    game begins with `random_opening_plies` moves at random.
    """

    model: str | None = None
    games: Positive = 100_000
    actors: Positive | Auto = 3
    minimax_widths: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=8)] = (13, 8)
    temperature: Real = 1.5
    random_opening_plies: Count = 0
    batch_rows: BatchRows = 128
    cache_positions: Count = 60_000


class PreprocessSettings(Section):
    """How games as text are cleaned: `chunk_games` of them to a file.

    `repeated_cell` says what it means when the second move takes the cell of the first: nothing ("reject"), or a swap
    of pieces ("swap"), as sites without a word for it write it.
    """

    chunk_games: Positive = 10_000
    repeated_cell: Literal["reject", "swap"] = "reject"


class PositionsSettings(Section):
    """Which rows are cut from a game: those of "all" its positions, the "final" one or the one before, "penultimate".

    With `symmetries` each row comes a second time, turned by 180°. Moves before `policy_from_ply` are not to be learnt:
    for games whose openings were drawn, not chosen.
    """

    selector: Literal["all", "final", "penultimate"] = "all"
    symmetries: bool = False
    policy_from_ply: Count = 0


class ShuffleSettings(Section):
    """How rows are shuffled: through `buckets`, each of which must fit in memory, and becomes a file of the result.

    `validation_share` of the games are kept apart, to be judged by. The files go to the folder or URL `target`, such as
    s3://bucket/rows; without one they stay in the step's own folder.
    """

    buckets: Annotated[int, Field(ge=1, le=10_000)] = 100
    validation_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    target: str | None = None


class PipelineConfig(Section):
    """Everything that determines a pipeline.

    `game` "auto" is what the games are of. `data` are files of games, or folders of them; `selfplay_dir` is a folder
    that `tamen selfplay` filled. `workers` do what can be done side by side. With `cleanup` files between two steps are
    deleted once nobody needs them. `network` and `learner` are sections of a run's configuration.
    """

    game: str = "auto"
    seed: Count = 0
    data: tuple[str, ...] = ()
    selfplay_dir: str | None = None
    workers: Positive | Auto = "auto"
    cleanup: bool = True
    selfplay: SelfplaySettings = SelfplaySettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    positions: PositionsSettings = PositionsSettings()
    shuffle: ShuffleSettings = ShuffleSettings()
    fit: FitSettings = FitSettings()
    network: NetworkConfig = NetworkConfig()
    learner: StepConfig = StepConfig()

    @model_validator(mode="after")
    def _is_hex(self) -> "PipelineConfig":
        if self.game != "auto" and not (self.game.startswith("hex") and self.game[3:].isdecimal()):
            raise ValueError(
                f"game={self.game} is no board of hex, of which the files of games are",
                "leave it at auto, or write for example game=hex11",
            )
        return self

    @model_validator(mode="after")
    def _turns_boards_once(self) -> "PipelineConfig":
        if self.positions.symmetries and self.fit.half_turns == "tied":
            raise ValueError(
                "positions.symmetries=true writes down each position turned too, and with fit.half_turns=tied a row"
                " teaches the turned one as well: all would be learnt twice",
                "set positions.symmetries=false, or fit.half_turns=unused",
            )
        return self


PIPELINES = Kind(PipelineConfig, PIPELINES_FOLDER, whole="a pipeline")
