"""What a learner's step costs is told of any game, in the form that `tamen plan cluster` takes."""

import sys
from pathlib import Path

import pytest

from benchmarks import learner_step
from cluster.plan.costs import read_costs


def test_a_plan_takes_what_it_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"CPU_SECONDS": 0.02, "CPU_ROUNDS": 1, "BATCH_ROWS": 32, "MICROBATCH_ROWS": 8}.items():
        monkeypatch.setattr(learner_step, name, value)
    # Which takes two processes more.
    monkeypatch.setattr(learner_step, "memory", lambda setting: {"one_microbatch_megabytes": 1.0})
    monkeypatch.setattr(sys, "argv", ["learner_step.py", "cpu", "1", "8", "tic_tac_toe"])

    learner_step.main()

    file = tmp_path / "learner.json"
    file.write_text(capsys.readouterr().out)
    figure = read_costs([file])["learner_rows_per_s"]
    assert (figure.game, figure.network, figure.source) == ("tic_tac_toe", (1, 8), str(file))
