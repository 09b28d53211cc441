"""What is done, what is left, and what is said about it."""

import json
from pathlib import Path

import pytest

from core.errors import DataError, TamenError, UsageError
from pipeline.contract import Stopped
from pipeline.orchestrator import Pipeline, Stage
from tests.pipeline.steps import DAMAGED, Around, SmallStep, chain


@pytest.fixture
def around() -> Around:
    return Around()


def begun(stages: list[Stage]) -> list[int]:
    return [stage.step.begun for stage in stages]  # pyright: ignore[reportAttributeAccessIssue]


def actions(stages: list[Stage], folder: Path, **options: object) -> dict[str, str]:
    return {one.name: one.action for one in Pipeline(stages, folder, **options).plan()}  # pyright: ignore


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.txt")}


def test_each_step_reads_the_one_before_and_counts(tmp_path: Path, around: Around) -> None:
    counts = around.run(Pipeline(chain(), tmp_path))
    assert (tmp_path / "fit" / "2.txt").read_text() == "cutmixfit"
    assert list(counts) == ["cut", "mix", "fit"]
    assert counts["fit"] == {"files": 3, "note": "all"}
    assert around.said[0] == "cut: finished (files 3)"
    assert around.logged[:2] == ["cut: begins", "cut: at work"]


def test_what_is_finished_is_not_done_again(tmp_path: Path, around: Around) -> None:
    around.run(Pipeline(chain(), tmp_path))
    stages = chain()
    around.run(Pipeline(stages, tmp_path))
    assert begun(stages) == [0, 0, 0]
    assert around.said == [f"{name}: finished before (files 3)" for name in ("cut", "mix", "fit")]
    assert set(actions(stages, tmp_path).values()) == {"finished"}


def test_a_changed_setting_begins_its_step_anew_and_all_that_read_it(tmp_path: Path, around: Around) -> None:
    around.run(Pipeline(chain(), tmp_path), cleanup=False)
    stages = chain(mix=SmallStep("mix", "cut", text="stir"))
    assert actions(stages, tmp_path) == {"cut": "finished", "mix": "run", "fit": "run"}
    around.run(Pipeline(stages, tmp_path), cleanup=False)
    assert begun(stages) == [0, 1, 1]
    assert (tmp_path / "fit" / "0.txt").read_text() == "cutstirfit"
    assert (tmp_path / "fit.old" / "0.txt").read_text() == "cutmixfit"
    assert 'mix: begins anew, text: "mix" -> "stir"; what was there is now mix.old' in around.said


def test_a_folder_of_settings_that_it_can_go_on_from_stays(tmp_path: Path, around: Around) -> None:
    around.run(Pipeline([Stage(SmallStep("play", files=2))], tmp_path))
    more = SmallStep("play", files=5)
    stage = Stage(more, goes_on_from=lambda settings: settings["files"] < 5)
    assert Pipeline([stage], tmp_path).plan()[0].why == "files: 2 -> 5"
    around.run(Pipeline([stage], tmp_path))
    assert around.said == ["play: finished (files 5)"]
    tasks = [json.loads(line)["what"] for line in (tmp_path / "tasks.jsonl").read_text().splitlines()]
    assert len(tasks) == len(set(tasks)) == 5


def test_a_step_of_which_each_result_is_another_lets_those_behind_run_again(
    tmp_path: Path, around: Around
) -> None:
    class Play(SmallStep):
        games = "a"

        def run(self, inputs, folder, context):  # pyright: ignore
            return super().run(inputs, folder, context) | {"digest": self.games}

    def stages(games: str) -> list[Stage]:
        play = Play("play")
        play.games = games
        return [Stage(play), Stage(SmallStep("cut", "play"))]

    around.run(Pipeline(stages("a"), tmp_path))
    (tmp_path / "play" / "step.json").unlink()
    again = stages("b")
    around.run(Pipeline(again, tmp_path))
    assert begun(again) == [1, 1]
    assert "cut: begins anew, what it reads has changed; what was there is now cut.old" in around.said


def test_files_that_nobody_needs_are_deleted_and_the_step_counts_as_finished(
    tmp_path: Path, around: Around
) -> None:
    around.run(Pipeline(chain(), tmp_path))
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["step.json"]
    assert "cut: 3 files of 0 MB deleted, nobody needs them any more" in around.said
    assert set(actions(chain(), tmp_path).values()) == {"finished"}


def test_files_are_kept_while_somebody_may_need_them_or_a_person_wants_them(
    tmp_path: Path, around: Around
) -> None:
    around.run(Pipeline(chain(), tmp_path, last="cut"))
    assert (tmp_path / "cut" / "0.txt").exists()
    around.run(Pipeline(chain(), tmp_path), cleanup=False)
    assert (tmp_path / "cut" / "0.txt").exists()
    around.run(Pipeline(chain(), tmp_path))
    assert not (tmp_path / "cut" / "0.txt").exists()


def test_what_was_cleaned_away_is_made_again_when_it_is_needed(tmp_path: Path, around: Around) -> None:
    around.run(Pipeline(chain(), tmp_path))
    stages = chain(mix=SmallStep("mix", "cut", text="stir"))
    plan = Pipeline(stages, tmp_path).plan()
    assert [one.action for one in plan] == ["run", "run", "run"]
    assert plan[0].why == "mix needs files of it that were cleaned away"
    around.run(Pipeline(stages, tmp_path))
    assert (tmp_path / "fit" / "0.txt").read_text() == "cutstirfit"
    assert not (tmp_path / "cut.old").exists()


def test_a_stopped_pipeline_goes_on_where_it_was_and_does_nothing_twice(
    tmp_path: Path, around: Around
) -> None:
    around.run(Pipeline(chain(), tmp_path / "whole"), cleanup=False)
    folder, rounds = tmp_path / "halting", 0
    while True:
        rounds += 1
        halting = Around()
        halting.stop_after = 1
        try:
            halting.run(Pipeline(chain(), folder), cleanup=False)
        except Stopped:
            continue
        break
    assert rounds == 9
    assert files(folder) == files(tmp_path / "whole")
    tasks = [json.loads(line)["task"] for line in (folder / "tasks.jsonl").read_text().splitlines()]
    assert len(tasks) == len(set(tasks)) == 9


def test_an_interrupted_step_is_planned_as_one_that_goes_on(tmp_path: Path, around: Around) -> None:
    around.stop_after = 1
    with pytest.raises(Stopped):
        around.run(Pipeline(chain(), tmp_path))
    assert actions(chain(), tmp_path) == {"cut": "go on", "mix": "run", "fit": "run"}
    assert around.logged[-1] == "cut: stopped between two tasks"


def test_steps_are_chosen_and_what_others_made_is_used_as_it_is(tmp_path: Path, around: Around) -> None:
    around.run(Pipeline(chain(), tmp_path, last="mix"), cleanup=False)
    stages = chain(mix=SmallStep("mix", "cut", text="stir"))
    around.run(Pipeline(stages, tmp_path, first="fit"), cleanup=False)
    assert begun(stages) == [0, 0, 1]
    assert (tmp_path / "fit" / "0.txt").read_text() == "cutmixfit"
    assert actions(stages, tmp_path, skip=["mix"]) == {"cut": "finished", "mix": "skipped", "fit": "finished"}


def test_what_a_skipped_step_was_made_from_may_be_gone(tmp_path: Path, around: Around) -> None:
    class Gone(SmallStep):
        @property
        def settings(self) -> dict[str, object]:
            raise UsageError("there is no file games.trmph", why="a test", fix="none")

        @settings.setter
        def settings(self, settings: dict[str, object]) -> None:
            pass

    around.run(Pipeline(chain(), tmp_path, last="cut"))
    stages = chain(cut=Gone("cut"))
    around.run(Pipeline(stages, tmp_path, first="mix"))
    assert begun(stages) == [0, 1, 1]
    assert not (tmp_path / "cut" / "0.txt").exists()


@pytest.mark.parametrize(
    ("options", "state"),
    [
        ({"first": "mix"}, "has not been run"),
        ({"first": "fit"}, "has not been run"),
        ({"skip": ["cut"]}, "has not"),
    ],
)
def test_a_skipped_step_must_have_been_finished(
    options: dict[str, object], state: str, tmp_path: Path, around: Around
) -> None:
    pipeline = Pipeline(chain(), tmp_path, **options)  # pyright: ignore
    with pytest.raises(UsageError, match="cannot run without") as caught:
        around.run(pipeline)
    assert state in caught.value.why
    assert not list(tmp_path.iterdir())


def test_a_skipped_step_that_was_interrupted_or_cleaned_is_named(tmp_path: Path, around: Around) -> None:
    around.run(Pipeline(chain(), tmp_path))
    changed = chain(mix=SmallStep("mix", "cut", text="stir"))
    with pytest.raises(UsageError) as caught:
        Pipeline(changed, tmp_path, skip=["cut"]).plan()
    assert "cleaned away" in caught.value.why
    around.stop_after = 0
    with pytest.raises(Stopped):
        around.run(Pipeline(chain(fit=SmallStep("fit", "mix", text="x")), tmp_path / "other"))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"first": "shuffel"}, "there is no step 'shuffel'"),
        ({"skip": ["cut", "x"]}, "there is no step 'x'"),
        ({"first": "fit", "last": "cut"}, "from fit to cut there is nothing"),
    ],
)
def test_steps_that_there_are_not_are_refused(options: dict[str, object], what: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Pipeline(chain(), tmp_path, **options)  # pyright: ignore
    assert caught.value.what == what


def test_an_error_names_its_step_and_the_next_run_goes_on(tmp_path: Path, around: Around) -> None:
    stages = chain()
    stages[1].step.problem = DAMAGED  # pyright: ignore
    with pytest.raises(DataError) as caught:
        around.run(Pipeline(stages, tmp_path))
    assert caught.value.what == "mix: a shard is damaged"
    assert "failed: DataError" in around.logged[-1]
    stages[1].step.problem = OSError(28, "No space left on device", "/data/x")  # pyright: ignore
    with pytest.raises(TamenError) as full:
        around.run(Pipeline(stages, tmp_path))
    assert full.value.what == "mix: /data/x could not be read or written"
    assert full.value.why == "No space left on device"
    assert around.run(Pipeline(chain(), tmp_path))["fit"]["files"] == 3


def test_a_damaged_state_is_told_and_never_guessed(tmp_path: Path, around: Around) -> None:
    around.run(Pipeline(chain(), tmp_path))
    (tmp_path / "mix" / "step.json").write_text("{")
    with pytest.raises(DataError, match=r"step\.json is damaged"):
        Pipeline(chain(), tmp_path).plan()


def test_a_folder_of_unknown_origin_is_set_aside(tmp_path: Path, around: Around) -> None:
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "0.txt").write_text("mine")
    around.run(Pipeline(chain(), tmp_path))
    assert (tmp_path / "cut.old" / "0.txt").read_text() == "mine"
    assert "cut: begins anew, it says nowhere what made it; what was there is now cut.old" in around.said


def test_a_plan_changes_nothing(tmp_path: Path) -> None:
    plan = Pipeline(chain(), tmp_path).plan()
    assert [(one.action, one.why) for one in plan] == [("run", "not done before")] * 3
    assert list(tmp_path.iterdir()) == []
