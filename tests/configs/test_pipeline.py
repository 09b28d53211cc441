"""The configuration of a pipeline is typed, checked and told like a run's."""

from pathlib import Path

import pytest

from configs.loading import dump
from configs.names import PIPELINES_FOLDER, preset_names
from configs.pipeline import PIPELINES, PipelineConfig
from configs.schema import Section
from core.errors import UsageError


def refusal(*overrides: str, preset: str = "hex") -> UsageError:
    with pytest.raises(UsageError) as caught:
        PIPELINES.load(preset, overrides)
    return caught.value


def test_the_presets_are_these() -> None:
    assert preset_names(PIPELINES_FOLDER) == ["hex", "debug", "snowflake"]
    assert refusal(preset="snowflakes").fix == "did you mean snowflake?"
    assert "the presets are hex, debug, snowflake" in refusal(preset="hex5").why


@pytest.mark.parametrize("preset", preset_names(PIPELINES_FOLDER))
@pytest.mark.parametrize("size", ["cpu", "gpu"])
def test_a_preset_reads_back_as_it_is_dumped(preset: str, size: str, tmp_path: Path) -> None:
    config = PIPELINES.load(preset, ["data=[a.trmph, b]"], "gpu" if size == "gpu" else "cpu")
    file = tmp_path / "pipeline.yaml"
    file.write_text(dump(config))
    assert PIPELINES.load_file(file) == config
    assert config.learner.microbatch_rows <= config.learner.batch_rows


def test_sections_are_small() -> None:
    sections = [field.annotation for field in PipelineConfig.model_fields.values()]
    inner = [one for one in sections if isinstance(one, type) and issubclass(one, Section)]
    assert len(inner) == 7
    assert max(len(section.model_fields) for section in (*inner, PipelineConfig)) <= 20


@pytest.mark.parametrize(
    ("override", "fix"),
    [
        ("shuffel.buckets=3", "did you mean shuffle?"),
        ("shuffle.bucket=3", "did you mean shuffle.buckets?"),
        ("chunk_games=3", "did you mean preprocess.chunk_games?"),
        ("selfplay.widths=[1]", "did you mean selfplay.minimax_widths?"),
    ],
)
def test_an_unknown_setting_is_answered_with_the_nearest(override: str, fix: str) -> None:
    assert refusal(override).fix == fix


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("positions.selector=some", "it must be all or final or penultimate"),
        ("shuffle.validation_share=1", "it must be a number (at least 0 and less than 1)"),
        ("data=games.trmph", "it must be a list, each of it text"),
        ("fit.sources=[{weight: 2}]", "it must be a list, each of it {path: …"),
        ("game=go9", "game=go9 is no board of hex, of which the files of games are"),
    ],
)
def test_a_wrong_value_is_answered_with_the_allowed_ones(override: str, why: str) -> None:
    assert refusal(override).why.startswith(why)
