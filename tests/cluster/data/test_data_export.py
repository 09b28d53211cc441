"""`tamen data export --form rows`: self-play becomes rows once, as many as were foretold, and every refusal is told."""

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from cluster.data import export as data_export
from cluster.data.export import Held, Keep, Made, export_once, held_in, open_cache, rows_settings
from configs.control import ExportConfig
from control.export_cache import Source, Verdict
from control.export_settings import Selection, override_export
from replay.archive import StoredChunk
from replay.searched_shards import read_searched_set
from tests.cluster.commands import Said, assert_three_lines, run_here
from tests.replay.experience import a_chunk, open_buffer

CHUNKS, GAMES = 4, 25
"""Of a folder: chunks, and games in each. A game has three rows."""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def play(folder: Path, *, actor: int = 0, first: int = 0, chunks: int = CHUNKS) -> None:
    buffer = open_buffer(folder)
    for chunk in range(first, first + chunks):
        buffer.add(a_chunk(range(GAMES * chunk, GAMES * (chunk + 1)), actor=actor).encode())


@pytest.fixture
def played(tmp_path: Path) -> list[str]:
    """Names of two folders of self-play, of 100 games each."""
    for actor, name in enumerate(("cycle_9", "cycle_10")):
        play(tmp_path / name, actor=actor)
    return ["cycle_9", "cycle_10"]


def export(capsys: pytest.CaptureFixture[str], *arguments: str, out: str = "rows") -> Said:
    return run_here(capsys, "data", "export", *arguments, "--form", "rows", "--out", out)


def told(said: Said) -> dict[str, Any]:
    assert said.code == 0, said
    return json.loads(said.out.splitlines()[-1])


def times(folder: str) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in Path(folder).rglob("*") if file.is_file()}


def test_rows_are_made_once_and_told_before_and_after(
    played: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = export(capsys, *played)
    assert said.out.splitlines() == [
        "tic_tac_toe, tier small: every position of 200 games, about 600 rows",
        "600 rows of 200 games in rows, as estimated",
    ]
    assert said.err == ""  # it took no two seconds
    before = times("rows")
    said = export(capsys, *reversed(played))
    assert said.out.splitlines() == [
        "nothing to do: 2 sources, settings and output are as they were",
        "600 rows of 200 games in rows",
    ]
    assert times("rows") == before


def test_json_tells_the_same_of_what_is_made_and_what_is_there(
    played: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    made, kept = (told(export(capsys, *played, "--json")) for _ in range(2))
    about = read_searched_set(Path("rows"))
    assert (made["games"], made["rows"], made["tier"], made["estimated_rows"]) == (200, 600, "small", 600)
    assert (about.games, about.train_rows + about.validation_rows) == (200, 600)
    assert (made["cached"], kept["cached"]) == (False, True)
    only_of_the_making = {"cached", "reason", "damaged_chunks", "vanished_chunks", "duplicates"}
    for name in made.keys() - only_of_the_making:
        assert kept[name] == made[name]
    assert (made["damaged_chunks"], kept["damaged_chunks"]) == (0, None)


CHANGES = {
    "games": ([], "cycle_10/replay has 125 games, had 100"),
    "settings": (["--seed", "1"], "sample_seed is 1, was 0; seed is 1, was 0"),
    "output": ([], "rows is not what was exported"),
    "force": (["--force"], "it was asked for"),
    "source": ([], "cycle_9/replay is no longer among the sources"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_has_changed_is_told_and_the_export_made_again(
    name: str, played: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(capsys, *played).code == 0
    options, reason = CHANGES[name]
    if name == "games":
        play(Path("cycle_10"), actor=1, first=CHUNKS, chunks=1)
    elif name == "output":
        next(Path("rows/train").glob("*.npz")).unlink()
    elif name == "source":
        del played[0]
    said = export(capsys, *played, *options)
    assert said.code == 0
    assert said.out.startswith("made again: ")
    assert said.out.splitlines()[0].endswith(reason)
    assert export(capsys, *played, *[each for each in options if each != "--force"]).out.startswith(
        "nothing to do"
    )


def test_a_persons_own_numbers_go_before_those_of_the_tier(
    played: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = ["--max-games", "120", "--sample-every", "2", "--validation-share", "0.5", "--seed", "7"]
    result = told(export(capsys, *played, *numbers, "--json"))
    assert (result["games"], result["estimated_rows"], result["stride"]) == (120, 180, 2.0)
    assert abs(result["rows"] - 180) <= 6 * 0.5 * np.sqrt(
        120
    )  # half of 120 games' three rows, by a fair coin each
    assert 0 < result["validation_rows"] < result["rows"]
    assert read_searched_set(Path("rows")).seed == 7
    said = export(capsys, *played, *numbers, "--force")
    assert said.out.splitlines()[1].endswith(
        "one position in 2 of the newest 120 of 200 games, about 180 rows"
    )


def test_the_estimate_is_of_the_rows_of_those_games_that_are_taken() -> None:
    held = (Held(Path("new"), "hex5", 10, 30), Held(Path("old"), "hex5", 30, 300))

    def estimate(max_games: int | None) -> int:
        config = override_export(ExportConfig(), "hex5", max_games=max_games, sample_every=None, seed=0)
        return rows_settings("hex5", held, config).estimated_samples

    assert [estimate(most) for most in (None, 1000, 40, 20, 10, 5)] == [330, 330, 330, 130, 30, 15]


def test_what_a_replay_holds_is_told_without_what_it_has_dropped_or_cannot_read(tmp_path: Path) -> None:
    play(tmp_path)
    assert held_in(tmp_path) == Held(tmp_path, "tic_tac_toe", 100, 300)
    oldest, *_, newest = sorted((tmp_path / "replay").glob("*.chunk"))
    oldest.unlink()
    assert held_in(tmp_path) == Held(tmp_path, "tic_tac_toe", 75, 225)
    newest.write_bytes(newest.read_bytes()[:-1])
    assert held_in(tmp_path) == Held(tmp_path, "tic_tac_toe", 50, 150)
    assert held_in(tmp_path / "none") == Held(tmp_path / "none", None, 0, 0)


def test_chunks_that_cannot_be_read_are_told(played: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    chunk = sorted(Path("cycle_9/replay").glob("*.chunk"))[1]
    chunk.write_bytes(b"nothing")
    result = export(capsys, *played, "--json")
    assert (told(result)["damaged_chunks"], told(result)["games"]) == (1, 175)
    assert f"{chunk.resolve()} is left out" in result.err


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    stride=st.fractions(1, 5),
    seed=st.integers(0, 9),
)
def test_rows_are_kept_at_the_positions_of_the_selection(
    lengths: list[int], stride: Fraction, seed: int
) -> None:
    selection = Selection(None, stride, seed)
    games = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
    plies = np.concatenate([np.arange(length) for length in lengths])
    kept = Keep(selection)(games, plies)
    for game, length in enumerate(lengths):
        assert plies[kept & (games == game)].tolist() == selection.positions(str(game), length)


BAD = {
    "no folder": (["none"], "rows", 2, ["none holds no games", "there is no such folder"]),
    "no games": (["cycle_9", "empty"], "rows", 2, ["there are no games in", "empty", "tamen selfplay"]),
    "another game": (["cycle_9", "hex"], "rows", 2, ["several kinds", "games of hex3", "tic_tac_toe"]),
    "inside a source": (["cycle_9"], "cycle_9/replay/rows", 2, ["lies in its own source"]),
    "a run": (["cycle_9"], "cycle_10", 2, ["cycle_10 is not free", "is none of its files"]),
    "a file": (["cycle_9"], "file", 2, ["file is not free"]),
    "rows of another game": (["cycle_9"], "others", 2, ["others is not free", "it holds rows of hex3"]),
    "max games": (["cycle_9", "--max-games", "-1"], "rows", 2, ["max_games=-1", "at least 1"]),
    "sample every": (["cycle_9", "--sample-every", "0"], "rows", 2, ["sample_every=0", "at least 1"]),
    "seed": (["cycle_9", "--seed", "-1"], "rows", 2, ["seed=-1", "at least 0"]),
    "share": (["cycle_9", "--validation-share", "1"], "rows", 2, ["validation_share=1", "less than 1"]),
    "damaged notes": (["cycle_9", "--runs", "bad"], "rows", 1, ["control.sqlite is damaged"]),
    "foreign notes": (["cycle_9", "--runs", "foreign"], "rows", 1, ["control.sqlite is not this program's"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_export_is_told_and_writes_nothing(
    name: str, played: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty/replay").mkdir(parents=True)
    write_chunk_of_another_game(Path("hex"))
    Path("bad").mkdir()
    Path("bad/control.sqlite").write_bytes(b"no database" * 1000)
    Path("foreign").mkdir()
    with closing(sqlite3.connect("foreign/control.sqlite")) as foreign:
        foreign.execute("CREATE TABLE notes (text)")
    Path("file").write_text("something")
    Path("others").mkdir()
    about = {"schema": 1, "game": "hex3", "cells": 9, "actions": 9, "games": 0, "train_rows": 0}
    about |= {"validation_rows": 0, "validation_share": 0.05, "seed": 0, "files": []}
    Path("others/manifest.json").write_text(json.dumps(about))
    before = times(".")
    arguments, out, code, mentions = BAD[name]
    assert_three_lines(export(capsys, *arguments, out=out), code=code, mentions=mentions)
    after = {file: time for file, time in times(".").items() if not file.startswith("runs/")}
    assert after == before


def write_chunk_of_another_game(folder: Path) -> None:
    (folder / "replay").mkdir(parents=True)
    stored = StoredChunk(6, 2, 0, 0, a_chunk([0, 1], game="hex3").encode())
    (folder / "replay" / "00000000.chunk").write_bytes(stored.encode())


def test_two_at_once_do_not_write_to_the_same_place(
    played: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_export, "LOCK_SECONDS", 0.05)
    with FileLock(".rows.lock"):
        said = export(capsys, *played)
        assert_three_lines(said, code=1, mentions=["rows is being written by another export", ".rows.lock"])
        assert export(capsys, *played, out="elsewhere").code == 0
    assert export(capsys, *played).code == 0
    with FileLock(".rows.lock"):  # to see that there is nothing to do needs no lock
        assert export(capsys, *played).out.startswith("nothing to do")


def test_what_another_made_while_this_one_waited_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "games", tmp_path / "rows"
    source.write_bytes(b"games")
    makers: list[str] = []

    def made_by(who: str) -> Any:
        def make(verdict: Verdict) -> Made:
            makers.append(who)
            out.write_bytes(b"rows")
            return Made(2, 3)

        return make

    with open_cache(tmp_path / "runs") as cache:
        claimed = data_export.claimed

        @contextmanager
        def after_another(place: Path) -> Iterator[None]:
            monkeypatch.setattr(data_export, "claimed", claimed)
            export_once(cache, out, [Source(source)], {}, made_by("another"))
            with claimed(place):
                yield

        monkeypatch.setattr(data_export, "claimed", after_another)
        done = export_once(cache, out, [Source(source)], {}, made_by("this one"))
    assert makers == ["another"]
    assert (done.cached, done.games, done.samples) == (True, 2, 3)


def test_an_export_that_fails_is_not_noted_and_frees_its_place(tmp_path: Path) -> None:
    source, out = tmp_path / "games", tmp_path / "rows"
    source.write_bytes(b"games")

    def fail(verdict: Verdict) -> Made:
        out.write_bytes(b"ro")
        raise OSError("no room")

    with open_cache(tmp_path / "runs") as cache:
        with pytest.raises(OSError, match="no room"):
            export_once(cache, out, [Source(source)], {}, fail)
        done = export_once(cache, out, [Source(source)], {}, lambda verdict: Made(1, 1))
    assert (done.cached, done.reason) == (False, f"no export to {out} was noted")


def test_a_long_export_tells_how_far_it_is_and_ends_when_asked(
    played: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_export, "SHOWN_AFTER_SECONDS", 0.0)
    err = export(capsys, *played).err
    assert f"exporting: {2 * CHUNKS} of {2 * CHUNKS} chunks, " in err
    assert "exporting: 600 of 600 rows, " in err

    def interrupt(*said: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(data_export.StepDisplay, "progress", interrupt)
        assert export(capsys, *played, "--force").code == 130
    assert told(export(capsys, *played, "--json"))["rows"] == 600
