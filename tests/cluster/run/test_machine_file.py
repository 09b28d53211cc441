"""What was measured on a machine is kept, found again by those whom it fits, and never stops a run."""

import os
from pathlib import Path
from typing import Any

import pytest

from cluster.run import machine_file
from cluster.run.machine_file import (
    CPU_BATCH_ROWS,
    GPU_BATCH_ROWS,
    KEPT_TUNINGS,
    Tuning,
    batches_of,
    read_tunings,
    write_tuning,
)
from cluster.run.program import Machine
from configs.schema import NetworkConfig, RunConfig
from core.errors import DataError


def a_tuning(**changed: Any) -> Tuning:
    given = {
        "device": "Abacus 1",
        "game": "hex5",
        "blocks": 3,
        "channels": 32,
        "asked": "auto",
        "precision": "fp32",
        "batch_rows": 64,
        "latency_ms": 100.0,
        "rates": {32: 900.0, 64: 1000.0},
        "measured_on": "2026-11-21",
        "versions": {"torch": "2.13"},
    }
    return Tuning.model_validate(given | changed)


def a_run(**network: Any) -> RunConfig:
    return RunConfig(game="hex5", network=NetworkConfig(**network))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a machine that is an Abacus 1."""
    monkeypatch.setenv("TAMEN_MACHINE_FILE", str(tmp_path / "cache" / "machine.json"))
    monkeypatch.setattr(machine_file, "device_name", lambda: "Abacus 1")
    monkeypatch.setattr(Machine, "here", staticmethod(lambda: Machine(cpus=2, gpus=0)))
    return machine_file.machine_file()


def test_what_is_written_is_read_again(file: Path) -> None:
    assert read_tunings(file) == ()
    write_tuning(a_tuning(), file)
    write_tuning(a_tuning(game="hex7"), file)

    assert read_tunings(file) == (a_tuning(), a_tuning(game="hex7"))
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_new_measurement_takes_the_place_of_the_old_one(file: Path) -> None:
    for tuning in (a_tuning(), a_tuning(game="hex7"), a_tuning(batch_rows=32)):
        write_tuning(tuning, file)

    assert read_tunings(file) == (a_tuning(game="hex7"), a_tuning(batch_rows=32))


def test_the_file_does_not_grow_for_ever(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_file, "KEPT_TUNINGS", 3)
    for channels in range(1, 6):
        write_tuning(a_tuning(channels=channels), file)

    assert [tuning.channels for tuning in read_tunings(file)] == [3, 4, 5]
    assert KEPT_TUNINGS > 3


def test_a_run_takes_what_was_measured_of_its_network(file: Path) -> None:
    write_tuning(a_tuning(), file)

    batches = batches_of(a_run())
    assert (batches.rows, batches.damaged) == (64, False)
    assert "measured on 2026-11-21" in batches.why


def test_what_auto_stood_for_may_be_asked_for_by_name(file: Path) -> None:
    write_tuning(a_tuning(), file)
    assert batches_of(a_run(precision="fp32")).rows == 64
    assert batches_of(a_run(precision="bf16")).rows == CPU_BATCH_ROWS

    write_tuning(a_tuning(asked="fp32", batch_rows=32), file)
    assert batches_of(a_run(precision="fp32")).rows == 32
    assert batches_of(a_run()).rows == 64


def test_what_the_configuration_says_counts(file: Path) -> None:
    write_tuning(a_tuning(), file)
    config = RunConfig.model_validate({"game": "hex5", "inference": {"max_batch_rows": 7}})

    assert batches_of(config).rows == 7


@pytest.mark.parametrize(
    "foreign", [{"device": "Abacus 2"}, {"game": "hex6"}, {"blocks": 4}, {"channels": 64}, {"asked": "bf16"}]
)
def test_what_was_measured_of_another_is_no_use(file: Path, foreign: dict[str, Any]) -> None:
    write_tuning(a_tuning(**foreign | ({"precision": "bf16"} if "asked" in foreign else {})), file)

    batches = batches_of(a_run())
    assert (batches.rows, batches.damaged) == (CPU_BATCH_ROWS, False)
    assert "--write --game hex5 --blocks 3 --channels 32" in batches.why


GOOD = a_tuning().model_dump_json()
DAMAGED = {
    "nothing": "",
    "no JSON": "{",
    "no object": "[]",
    "cut short": f'{{"format": 1, "tunings": [{GOOD[:40]}',
    "a later format": '{"format": 2, "tunings": []}',
    "another key": f'{{"format": 1, "tunings": [{GOOD}], "more": 1}}',
    "no rows": f'{{"tunings": [{GOOD.replace(":64,", ":0,", 1)}]}}',
    "rows that were not measured": f'{{"tunings": [{GOOD.replace(":64,", ":63,", 1)}]}}',
    "a rate of nothing": f'{{"tunings": [{GOOD.replace("1000.0", "0")}]}}',
    "no text": "\x00\xff",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_told_and_does_no_harm(file: Path, content: str) -> None:
    file.parent.mkdir()
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match="cannot be used"):
        read_tunings(file)

    batches = batches_of(a_run())
    assert (batches.rows, batches.damaged) == (CPU_BATCH_ROWS, True)
    assert str(file) in batches.why
    assert "\n" not in batches.why


def test_a_damaged_file_is_set_aside_by_the_next_measurement(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("{")
    write_tuning(a_tuning(), file)

    assert read_tunings(file) == (a_tuning(),)
    assert file.with_name("machine.json.damaged").read_text() == "{"


def test_a_file_that_cannot_be_read_is_like_a_damaged_one(file: Path) -> None:
    file.mkdir(parents=True)

    assert batches_of(a_run()).damaged


def test_unmeasured_batches_are_larger_on_a_gpu(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "here", staticmethod(lambda: Machine(cpus=2, gpus=1)))

    assert batches_of(a_run()).rows == GPU_BATCH_ROWS > CPU_BATCH_ROWS


def test_a_gpu_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t Abacus G\nIRQ: 17\n")
    monkeypatch.setattr("cluster.run.program.NVIDIA", str(tmp_path))
    monkeypatch.setattr(Machine, "here", staticmethod(lambda: Machine(cpus=2, gpus=1)))

    assert machine_file.device_name() == "Abacus G"


def test_a_processor_has_a_name() -> None:
    assert machine_file.device_name().strip()


def test_without_a_word_the_file_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAMEN_MACHINE_FILE", raising=False)
    monkeypatch.setenv("HOME", os.path.join(os.sep, "home", "somebody"))

    assert machine_file.machine_file() == Path("/home/somebody/.cache/tamen/machine.json")
