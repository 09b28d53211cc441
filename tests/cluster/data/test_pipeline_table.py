"""What docs/pipeline.md says of settings and options is so."""

import re
from pathlib import Path

import pytest
import typer.main
import yaml

from cluster.main import app
from configs.names import PIPELINES_FOLDER, preset_names
from configs.pipeline import PIPELINES

GUIDE = (Path(__file__).parents[3] / "docs" / "pipeline.md").read_text()
SECTION = GUIDE.partition("## Coming from Snowflake")[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in SECTION.splitlines()
    if line.startswith("| `--")
]
OPTIONS = {
    option
    for each in typer.main.get_command(app).commands["pipeline"].params
    for option in each.opts  # pyright: ignore
}


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_option_of_the_guide_has_its_line() -> None:
    assert len(ROWS) == 25
    assert len({row[0] for row in ROWS}) == 25


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("`-"))
def test_what_stands_for_an_option_exists_and_its_default_is_that_of_the_preset(row: list[str]) -> None:
    _, default, here = row
    known = PIPELINES.setting_names()
    words = [word.split()[0] for word in quoted(here)]
    assert words
    for word in words:
        assert word in known or word in OPTIONS or word in ("@", "path", "skip_files")
    setting = words[0]
    if setting in known and setting not in ("selfplay.model", "selfplay_dir", "fit.sources", "cleanup"):
        value = PIPELINES.load("snowflake").model_dump(mode="json")
        for part in setting.split("."):
            value = value[part]
        assert value == yaml.safe_load(default)


def test_steps_that_are_skipped_exist() -> None:
    skipped = [word.split()[1] for row in ROWS for word in quoted(row[2]) if word.startswith("--skip")]
    assert skipped == ["selfplay", "preprocess", "positions", "shuffle", "train"]


def test_the_debug_preset_is_the_guides() -> None:
    config = PIPELINES.load("debug")
    assert (config.selfplay.games, config.selfplay.actors) == (100, 1)
    assert (config.preprocess.chunk_games, config.workers) == (1000, 1)


def test_every_preset_is_told_of() -> None:
    assert all(f"| `{name}` | " in GUIDE for name in preset_names(PIPELINES_FOLDER))
