"""What a run on Ray finds out before it starts anything."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.run.placement import Node
from cluster.training.ray_engine import RayEngine
from core.errors import UsageError
from tests.cluster.tiny import tiny_config, tiny_run


def engine(folder: Path, said: list[str], **settings: Any) -> RayEngine:
    config = tiny_config(**settings)
    return RayEngine(config, tiny_run(folder, config), address=None, report=said.append)


def test_a_metadata_service_that_cannot_be_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAMEN_METADATA_URL", "169.254.169.254")
    with pytest.raises(UsageError, match="TAMEN_METADATA_URL"):
        engine(tmp_path / "run", [])


def test_a_kind_of_machine_that_has_not_come_yet_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    of_spto = engine(tmp_path / "run", said, actors__count={"spto": 12})
    of_spto._tell_of_kinds([Node("a", "a", 4, labels={"tamen": "spto"})])
    assert said == []
    of_spto._tell_of_kinds([Node("a", "a", 4)])

    (told,) = said
    assert told.startswith("actors.count names 'spto', which no machine is (yet): kinds of machine are ")


def test_the_code_of_a_run_is_what_its_driver_had_when_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = SimpleNamespace(digest="as it was")
    monkeypatch.setattr("cluster.training.ray_engine.code_here", lambda: code)
    made = engine(tmp_path / "run", [])
    monkeypatch.setattr("cluster.training.ray_engine.code_here", lambda: SimpleNamespace(digest="changed"))

    assert made._planned({"tamen": "head"}).code is code
