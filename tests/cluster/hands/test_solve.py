"""`tamen solve`: known values come out, a turn is worth what its rivers are, and what cannot be solved is told."""

import json
import os
import signal
from typing import Any

import pytest

from cluster.cli.terminal import console
from cluster.hands.solve_display import SolveDisplay
from tests.cluster.commands import Said, assert_three_lines, run_here

RIVER = ("--board", "Td9d6hQc3s", "--stack", 20_000)
ONE_BET = ("--pot-half", 10, "--stack", 20, "--bets", "none")
"""After which there is nothing left, so that a bluffer and a catcher of bluffs play what can be written down."""

Capsys = pytest.CaptureFixture[str]


def solve(capsys: Capsys, *arguments: object) -> Said:
    return run_here(capsys, "solve", *arguments)


def solved(capsys: Capsys, *arguments: object, code: int = 0) -> dict[str, Any]:
    said = solve(capsys, *arguments, "--json")
    assert said.code == code, said
    line, *others = said.out.splitlines()
    assert not others
    return json.loads(line)


@pytest.mark.parametrize(("pot_half", "ev"), [(1000, -68.989), (10_000, -520.440)])
def test_rivers_are_worth_what_other_solvers_say(pot_half: float, ev: float, capsys: Capsys) -> None:
    solution = solved(capsys, *RIVER, "--pot-half", pot_half)

    assert solution["target_reached"]
    assert solution["exploitability_pct"] <= 0.1
    assert solution["iterations"] % 20 == 0
    assert solution["ev_oop"] == pytest.approx(ev, abs=solution["exploitability_pct"] / 100 * 2 * pot_half)
    assert solution["ev_ip"] == -solution["ev_oop"]


@pytest.mark.parametrize("variant", ["dcfr3", "linear"])
def test_one_bet_of_the_pots_half_is_bluffed_with_a_third_and_called_with_two(
    variant: str, capsys: Capsys
) -> None:
    ranges = ("--range1", "AhAs,QhQs", "--range2", "KhKs")
    solution = solved(
        capsys, "--board", "2s3h4d6c7c", *ranges, *ONE_BET, "--target-pct", 0.01, "--variant", variant
    )
    first, *_, last = solution["strategy"]

    assert solution["ev_oop"] == pytest.approx(10 / 3, abs=0.01)
    assert (first["line"], first["player"], first["actions"]) == ([], "oop", ["check", "all-in"])
    assert first["frequencies"] == pytest.approx([1 / 3, 2 / 3], abs=0.01)
    assert set(first["hands"]) == {"AsAh", "QsQh"}
    assert first["hands"]["AsAh"] == pytest.approx([0, 1], abs=0.01)
    assert first["hands"]["QsQh"] == pytest.approx([2 / 3, 1 / 3], abs=0.01)
    assert (last["line"], last["player"], last["actions"]) == (["all-in"], "ip", ["fold", "call"])
    assert last["frequencies"] == pytest.approx([1 / 3, 2 / 3], abs=0.01)
    assert last["reached"] == pytest.approx(2 / 3, abs=0.01)
    assert [decision["line"] for decision in solution["strategy"][1:3]] == [["check"], ["check", "all-in"]]


def test_a_turn_on_which_no_card_changes_anything_is_worth_as_much_as_its_river(capsys: Capsys) -> None:
    # A straight flush wins whatever comes, 4-3 never does, and there is one bet, on either street.
    ranges = ("--range1", "JhTh,4d3s", "--range2", "AhKh")
    solution = solved(capsys, "--board", "9h8h7h2c", *ranges, *ONE_BET, "--target-pct", 0.05)

    assert solution["ev_oop"] == pytest.approx(10 / 3, abs=0.02)
    assert [decision["line"] for decision in solution["strategy"]] == [
        [],
        ["check"],
        ["check", "all-in"],
        ["all-in"],
    ]


def test_lines_are_told_with_amounts_in_chips(capsys: Capsys) -> None:
    solution = solved(capsys, *RIVER, "--pot-half", 300, "--bets", "0.5,1", "--iterations", 3)
    first = solution["strategy"][0]

    assert (solution["iterations"], solution["target_reached"]) == (3, None)
    assert first["actions"] == ["check", "to 600", "to 900", "all-in"]
    assert len(first["hands"]) == 1081
    assert sum(first["frequencies"]) == pytest.approx(1, abs=1e-5)
    reached = {tuple(decision["line"]): decision["reached"] for decision in solution["strategy"]}
    after_checks = dict(zip(first["actions"], first["frequencies"], strict=True))
    for word, share in after_checks.items():
        assert reached[word,] == pytest.approx(share, abs=1e-5)


def test_without_json_figures_and_a_picture_fit_80_columns(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = solve(capsys, *RIVER, "--pot-half", 10_000, "--range1", "uniform,AA:0")
    lines = [line.rstrip() for line in said.out.splitlines()]

    assert (said.code, said.err) == (0, "")
    assert max(map(len, lines)) <= 80
    for name in ("oop wins", "ip wins", "exploitability", "iterations", "seconds", "check", "all-in"):
        assert any(line.startswith(name) for line in lines), name
    assert lines[-14].split() == list("AKQJT98765432")
    rows = [line.split() for line in lines[-13:]]
    assert [row[0] for row in rows] == list("AKQJT98765432")
    assert rows[0][1] == "·"
    assert all(0 <= int(share) <= 100 for row in rows for share in row[1:] if share != "·")


def test_an_aim_that_is_not_reached_ends_with_1_and_tells_what_was(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.hands.solve.MOST_ITERATIONS", 30)
    solution = solved(capsys, *RIVER, "--pot-half", 1000, code=1)
    said = solve(capsys, *RIVER, "--pot-half", 1000)

    assert (solution["iterations"], solution["target_reached"], solution["stopped"]) == (30, False, False)
    assert solution["exploitability_pct"] > 0.1
    assert (said.code, said.err) == (1, "")
    assert "NOT the aim of 0.1 %" in said.out


def test_ctrl_c_tells_what_was_reached(capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SolveDisplay, "show", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    solution = solved(capsys, *RIVER, "--pot-half", 1000, code=130)

    assert solution["stopped"]
    assert solution["iterations"] < 20
    assert solution["exploitability_pct"] > 0.1


def test_progress_is_told_from_two_seconds_on(capsys: Capsys) -> None:
    now = 0.0
    with SolveDisplay(console(stderr=True), 0.001, clock=lambda: now) as display:
        for now, share in ((1.0, None), (2.5, None), (3.0, 0.2), (13.0, None)):
            display.show(int(20 * now), 10_000, share)

    assert capsys.readouterr().err.splitlines() == [
        "solving: 50 iterations, 20/s, exploitability –, aim 0.1 %",
        "solving: 260 iterations, 20/s, exploitability 20 %, aim 0.1 %",
    ]


@pytest.mark.parametrize(
    ("given", "mentions"),
    [
        (["--board", ""], ["0 cards", "a turn 4"]),
        (["--board", "Td"], ["'Td'", "1 card\n", "a flop has 3 cards, a turn 4, a river 5"]),
        (["--board", "Td9d"], ["2 cards"]),
        (["--board", "Td9d6h"], ["flop", "value network", "--values RUN", "--board Td9d6hQc"]),
        (["--board", "Td9d6hQc3s2s"], ["6 cards", "--board Td9d6hQc3s"]),
        (["--board", "Td9d6hTd"], ["Td is twice"]),
        (["--board", "Td9d6hQx"], ["'Qx'", "no card"]),
        (["--pot-half", "0"], ["--pot-half 0", "from 0.02", "20000", "--pot-half 100"]),
        (["--pot-half", "-1"], ["--pot-half -1"]),
        (["--pot-half", "nan"], ["--pot-half nan"]),
        (["--pot-half", "20001"], ["--pot-half 20001"]),
        (["--pot-half", "20000"], ["all-in already", "20000"]),
        (["--stack", "inf"], ["inf", "--stack 20000"]),
        (["--bets", "0"], ["'0'", "at most 50", "--bets 0.5,1"]),
        (["--bets", "1,nan"], ["'nan'"]),
        (["--bets", "51"], ["'51'"]),
        (["--bets", "much"], ["'much'"]),
        (["--bets", "0.05,0.1,0.2"], ["0.05, 0.1, 0.2", "too large"]),
        (["--range1", "AX"], ["'AX'", "ATs+"]),
        (["--range2", "TdTh"], ["ThTd", "Td9d6hQc3s"]),
        (["--range1", "AhAs", "--range2", "AhKd"], ["--range1", "share a card"]),
        (["--variant", "best"], ["'best'", "dcfr3"]),
        (["--target-pct", "0"], ["--target-pct 0", "at most 100"]),
        (["--target-pct", "nan"], ["--target-pct nan"]),
        (["--iterations", "0"], ["--iterations 0", "at least 1"]),
        (["--iterations", "9", "--target-pct", "1"], ["exclude each other"]),
    ],
)
def test_what_cannot_be_solved_is_told_in_three_lines(
    given: list[str], mentions: list[str], capsys: Capsys
) -> None:
    said = solve(capsys, *RIVER, "--pot-half", 100, *given)

    assert_three_lines(said, code=2, mentions=mentions)
    assert said.out == ""
