"""Files of games become cleaned games, each once, whoever does it and however often it is interrupted."""

import errno
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import files
from core.errors import UsageError
from core.files import digest
from pipeline.cleaning import CleaningTask, clean_piece, load_rejections
from pipeline.contract import Stopped
from pipeline.preprocess import PreprocessStep
from pipeline.reading import Piece
from tests.pipeline.running_here import Here, Killed, context

SLICE = Path(__file__).resolve().parents[1] / "data" / "wolve_slice.trmph.gz"
BLUE_WINS = "#3,b1a1b2a2b3"


def run(folder: Path, *sources: Path, here: Here | None = None, **settings: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    step = PreprocessStep([str(source) for source in sources], **settings)
    return step.run({}, folder, context(here))


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def games_in(folder: Path) -> dict[str, list[str]]:
    return {file.name: file.read_text().splitlines() for file in sorted(folder.glob("*.trmph"))}


def rejected_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_slice_of_real_games_is_counted(tmp_path: Path) -> None:
    counts = run(tmp_path / "out", SLICE)
    names = ("lines", "games", "duplicates", "rejected", "unfinished", "by_size")
    assert {name: counts[name] for name in names} == {
        "lines": 1998,
        "games": 1691,
        "duplicates": 304,
        "rejected": 3,
        "unfinished": 17,
        "by_size": {"10": 1691},
    }
    assert counts["rejected_reasons"] == {"not a game": 3}
    assert counts["won"] == {"blue": 1232, "red": 459, "unknown": 0}
    assert (counts["lengths"]["min"], counts["lengths"]["max"]) == (21, 71)
    assert sum(counts["lengths"]["histogram"].values()) == 1691
    text = gzip.decompress(SLICE.read_bytes()).decode()
    original = [line for line in text.splitlines() if line.startswith("#10,")]
    assert games_in(tmp_path / "out") == {"hex10_000.trmph": list(dict.fromkeys(original))}
    assert [rejection["text"][:7] for rejection in rejected_in(tmp_path / "out")] == [
        "<<<<<<<",
        "=======",
        ">>>>>>>",
    ]


def test_a_game_is_one_game_whatever_its_form(tmp_path: Path) -> None:
    source = write(
        tmp_path / "a.trmph",
        f"{BLUE_WINS} b",
        f"http://www.trmph.com/hex/board{BLUE_WINS} 1",
        f"https://hexworld.org/board/{BLUE_WINS}",
        "(;GM[11]SZ[3];B[b1];W[a1];B[b2];W[a2];B[b3])",
        "(;SZ[3];W[ba];B[aa];W[bb];B[ab];W[bc])",
        "#4,b1a1b2a2b3",
        "#4,a2swapc1 b",
        "#4,a2:sc1:rw",
        "#4,a2a2 r",
    )
    counts = run(tmp_path / "out", source)
    assert (counts["games"], counts["duplicates"], counts["rejected"], counts["swapped"]) == (3, 5, 1, 1)
    assert games_in(tmp_path / "out") == {
        "hex3_000.trmph": [f"{BLUE_WINS} b"],
        "hex4_000.trmph": ["#4,b1a1b2a2b3", "#4,a2a3 r"],
    }


def test_a_repeated_first_cell_may_be_a_swap(tmp_path: Path) -> None:
    source = write(tmp_path / "a.trmph", "#4,b1b1c3 b")
    assert run(tmp_path / "rejected", source)["rejected_reasons"] == {"repeated cell": 1}
    assert run(tmp_path / "swapped", source, repeated_cell="swap")["swapped"] == 1
    assert games_in(tmp_path / "swapped") == {"hex4_000.trmph": ["#4,b1c3 r"]}


def test_folders_are_combined_with_the_steps_before(tmp_path: Path) -> None:
    played = write(tmp_path / "played" / "worker_0" / "a.trmph", BLUE_WINS).parents[1]
    write(tmp_path / "played" / "worker_1" / "a.trmph", "#3,a1")
    old = write(tmp_path / "old.trmph", "#3,a2", "#3,a1 b")
    out = tmp_path / "out"
    out.mkdir()
    step = PreprocessStep([str(old)], needs=("selfplay",))
    counts = step.run({"selfplay": played}, out, context())
    assert (counts["games"], counts["duplicates"], counts["files"]) == (3, 1, 3)
    assert games_in(out)["hex3_000.trmph"] == [f"{BLUE_WINS} b", "#3,a1 b", "#3,a2"]


def test_what_two_lines_disagree_about_is_set_aside(tmp_path: Path) -> None:
    first = write(tmp_path / "a.trmph", "#5,a1b2 b", "#5,c3 b", "#5,a1b2", "#5,d4")
    second = write(tmp_path / "b.trmph", "", "#5,a1b2 r", "#5,c3 b", "#5,d4 r")
    counts = run(tmp_path / "out", first, second)
    assert (counts["lines"], counts["games"], counts["duplicates"]) == (7, 2, 2)
    assert counts["rejected_reasons"] == {"winners disagree": 3}
    assert games_in(tmp_path / "out") == {"hex5_000.trmph": ["#5,c3 b", "#5,d4 r"]}
    rejected = rejected_in(tmp_path / "out")
    assert [(Path(each["file"]).name, each["line"]) for each in rejected] == [
        ("a.trmph", 1),
        ("a.trmph", 3),
        ("b.trmph", 2),
    ]
    for each in rejected:
        assert each["detail"] == (
            f"the same moves are won by blue in {first}:1 and by red in {second}:2, and by no chain"
        )
        assert each["text"] == "#5,a1b2"


def test_games_go_into_files_by_size_and_number(tmp_path: Path) -> None:
    lines = [f"#{size},a{row}b{column}" for row in (1, 2, 3) for column in (1, 2, 3) for size in (11, 3)]
    run(tmp_path / "out", write(tmp_path / "a.trmph", *lines), chunk_games=4)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [(file["name"], file["game"], file["games"]) for file in manifest["files"]] == [
        (f"hex{size}_{number:03d}.trmph", f"hex{size}", games)
        for size in (3, 11)
        for number, games in enumerate((4, 4, 1))
    ]
    for file in manifest["files"]:
        assert file["digest"] == digest((tmp_path / "out" / file["name"]).read_bytes())
    assert manifest["schema"] == 1
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(
        [file["name"] for file in manifest["files"]] + ["manifest.json", "rejected.jsonl"]
    )


def test_bad_files_are_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "empty.trmph").touch()
    (tmp_path / "garbage.trmph").write_bytes(bytes(range(256)) * 4)
    packed = gzip.compress(b"".join(b"#9,a1b%d # %d\n" % (row, row**9) for row in range(1, 10)) * 99)
    (tmp_path / "short.trmph.gz").write_bytes(packed[:-4])
    (tmp_path / "long.trmph").write_bytes(b"#9,c3\n" + b"x" * 10_000_000 + b"\n#99,a1\n#9,a1 w\n#9,c4\n")
    counts = run(tmp_path / "out", tmp_path)
    assert counts["games"] == 11
    reasons = counts["rejected_reasons"]
    assert (reasons["line too long"], reasons["board size not played"], reasons["unknown winner"]) == (
        1,
        1,
        1,
    )
    assert reasons["not text"] >= 1
    assert counts["lines"] == counts["games"] + counts["duplicates"] + counts["rejected"]
    assert [(Path(each["file"]).name, each["reason"]) for each in counts["files_set_aside"]] == [
        ("empty.trmph", "empty file"),
        ("short.trmph.gz", "file cut short"),
    ]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.sampled_from(["#3,a1 b", "#3,a1 r", "#3,a1", "", "# x", "?", f"{BLUE_WINS} b", "#4,b2c3"]),
        min_size=1,
    ),
    st.integers(1, 60),
    st.permutations(range(6)),
)
def test_neither_pieces_nor_their_order_change_anything(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], piece_bytes: int, order: list[int]
) -> None:
    tmp_path = tmp_path_factory.mktemp("pieces")
    source = write(tmp_path / "a.trmph", *lines)
    run(tmp_path / "whole", source)

    def shuffled(numbers: list[int]) -> list[int]:
        return sorted(numbers, key=lambda number: (order[number % len(order)], -number))

    run(tmp_path / "pieces", source, here=Here(order=shuffled), piece_bytes=piece_bytes)
    assert all_bytes(tmp_path / "pieces") == all_bytes(tmp_path / "whole")


def test_killed_anywhere_and_run_again_it_makes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [write(tmp_path / f"{name}.trmph", f"#5,a{name}", "#5,c3", "?") for name in (1, 2)]
    run(tmp_path / "undisturbed", *sources, chunk_games=2)
    expected = all_bytes(tmp_path / "undisturbed")
    real: dict[str, Callable[..., Any]] = {"fsync": files.os.fsync, "replace": files.os.replace}

    for deadline in range(1, 100):
        calls = 0

        def killing(name: str) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == deadline:  # noqa: B023  used within this turn of the loop
                    raise Killed
                return real[name](*arguments)

            return call

        for name in real:
            monkeypatch.setattr(files.os, name, killing(name))
        folder = tmp_path / f"killed_{deadline}"
        try:
            run(folder, *sources, chunk_games=2)
            break
        except Killed:
            monkeypatch.undo()
        run(folder, *sources, chunk_games=2)
        assert all_bytes(folder) == expected, deadline
    else:
        pytest.fail("it never came to its end")
    assert deadline > 20


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    sources = [write(tmp_path / f"{name}.trmph", f"#5,a{name}") for name in (1, 2, 3)]
    dying = Here(lives=2)
    with pytest.raises(Killed):
        run(tmp_path / "out", *sources, here=dying)
    rest, none = Here(), Here()
    counts = run(tmp_path / "out", *sources, here=rest)
    assert (len(dying.ran), len(rest.ran)) == (2, 1)
    assert run(tmp_path / "out", *sources, here=none) == counts
    assert none.ran == []


def test_asked_to_stop_it_stops_between_tasks(tmp_path: Path) -> None:
    sources = [write(tmp_path / f"{name}.trmph", f"#5,a{name}") for name in (1, 2, 3)]
    (tmp_path / "out").mkdir()
    here = Here()
    step = PreprocessStep([str(source) for source in sources])
    with pytest.raises(Stopped):
        step.run({}, tmp_path / "out", context(here, should_stop=lambda: len(here.ran) >= 2))
    assert len(here.ran) == 2
    assert run(tmp_path / "out", *sources)["games"] == 3


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "a.trmph", "#5,a1", "#5,b1", "#5,c1")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / "out", source)
    assert [file.name for file in (tmp_path / "out").rglob("*") if file.is_file()] == []
    monkeypatch.undo()
    assert run(tmp_path / "out", source)["games"] == 3


def test_a_task_reads_with_what_it_was_given(tmp_path: Path) -> None:
    def closed(file: str) -> BinaryIO:
        raise PermissionError(errno.EACCES, "Permission denied", file)

    assert clean_piece(CleaningTask(Piece("secret"), tmp_path / "0", opener=closed)) == 0
    (rejection,) = load_rejections(tmp_path / "0")
    assert (rejection.line, rejection.reason, rejection.detail) == (
        0,
        "file cannot be read",
        "Permission denied",
    )


def test_settings_tell_files_of_one_name_apart(tmp_path: Path) -> None:
    source = write(tmp_path / "a.trmph", "#5,a1")
    step = PreprocessStep([str(source), "s3://bucket/a.trmph"])
    before = json.dumps(step.settings)
    assert json.dumps(step.settings) == before
    write(source, "#5,a1b1")
    assert json.dumps(step.settings) != before
    assert json.dumps(PreprocessStep([str(source)], repeated_cell="swap").settings) != json.dumps(
        PreprocessStep([str(source)]).settings
    )


def test_no_files_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no games to clean"):
        run(tmp_path / "out")


def test_what_is_not_a_number_of_lines_is_not_counted_as_one(tmp_path: Path) -> None:
    counts = run(tmp_path / "out", write(tmp_path / "a.trmph", "# header", "", "?"))
    assert (counts["lines"], counts["games"], counts["rejected"]) == (1, 0, 1)
    assert counts["lengths"] == {"min": 0, "mean": 0.0, "median": 0.0, "max": 0, "histogram": {}}
    assert games_in(tmp_path / "out") == {}
