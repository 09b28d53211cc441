"""What fleets take and cost: by arithmetic where games are all alike, and beside what was published."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.plan import games as planner
from cluster.plan.fleet import MOST_DAEMONS, Machine, Spot
from cluster.plan.games import Prices, parse_fleets, parse_games, plan_games, show_games
from core.errors import UsageError
from engines.book import GameBook, Plan
from engines.tickets import Played
from engines.timings import Durations, example_durations
from tests.cluster.commands import assert_three_lines, run_here

Capture = pytest.CaptureFixture[str]

NEVER = Spot(interruptions_per_hour=0.0, notice_seconds=0.0, replacement_seconds=0.0)
SELDOM = Spot(interruptions_per_hour=0.05, notice_seconds=120.0, replacement_seconds=180.0)
PRICES = Prices(on_demand=0.68 / 16, spot=0.27 / 16)


def alike(seconds: float, **others: Any) -> Durations:
    return Durations(np.array([seconds]), "a test", **others)


@pytest.mark.parametrize(
    ("text", "games"),
    [("1", 1), ("500", 500), ("2.5k", 2_500), ("10M", 10**7), ("0.25M", 250_000), ("1000G", 10**12)],
)
def test_numbers_of_games_are_read_as_people_write_them(text: str, games: int) -> None:
    assert parse_games(text) == games


@given(st.integers(1, 10**12))
def test_every_whole_number_is_read(games: int) -> None:
    assert parse_games(str(games)) == games
    assert parse_games(f"{games // 1000}.{games % 1000:03}k") == games


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0M",
        "-1",
        "+1",
        "1.5",
        "2.0005k",
        "10m",
        "10 M",
        "1e6",
        "1_000",
        "1001G",
        ".5k",
        "١",
        "9" * 99,
    ],
)
def test_what_is_no_number_of_games_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no number of games"):
        parse_games(text)


def test_commas_part_choices_and_plus_joins_kinds() -> None:
    one, mixed = parse_fleets("2x16, 1x1+2x64")

    assert (one.typed, one.machines) == ("2x16", (Machine(16, 14),) * 2)
    assert (mixed.typed, mixed.machines) == ("1x1+2x64", (Machine(1, 1), *(Machine(64, 62),) * 2))
    assert mixed.daemons == 125
    assert parse_fleets("2x16", daemons="20")[0].machines == (Machine(16, 20),) * 2


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "'' are no machines"),
        ("16", "'16' are no machines"),
        ("4x", "'4x' are no machines"),
        ("0x16", "'0x16' are no machines"),
        ("4x16,", "'' are no machines"),
        ("4x16++2x8", "are no machines"),
        ("4X16", "are no machines"),
        ("-4x16", "are no machines"),
        ("99999x1", "is too much"),
        (f"1x{MOST_DAEMONS}", "are no machines"),
        ("100x999", "is too much"),
        (",".join(["1x1"] * 17), "17 fleets are too many"),
    ],
)
def test_what_is_no_fleet_is_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_fleets(text)
    assert what in refused.value.what


@pytest.mark.parametrize("daemons", ["0", "many", "-2", "1.5", "10000", ""])
def test_what_is_no_number_of_daemons_is_refused(daemons: str) -> None:
    with pytest.raises(UsageError, match="daemons"):
        parse_fleets("4x16", daemons=daemons)


def test_a_plan_of_games_that_are_all_alike_is_arithmetic() -> None:
    result = plan_games(
        140, parse_fleets("2x16,1x16+1x9"), alike(100.0, startup_seconds=10.0), prices=PRICES, spot=NEVER
    )

    (two, mixed) = result["plans"]
    assert (two["daemons"], mixed["daemons"]) == (28, 21)
    assert two["on_demand"]["seconds"] == pytest.approx(510.0)  # 140 games in five rounds of 28
    assert two["on_demand"]["cost"] == pytest.approx(510 / 3600 * 2 * 0.68)
    assert two["on_demand"]["games_per_s"] == pytest.approx(140 / 510)
    assert two["spot"]["cost"] == pytest.approx(510 / 3600 * 2 * 0.27)
    assert mixed["on_demand"]["seconds"] == pytest.approx(710.0)
    assert mixed["on_demand"]["cost"] == pytest.approx(710 / 3600 * (1 + 9 / 16) * 0.68)


@pytest.mark.parametrize(
    ("measured", "given_", "used"), [(3.0, None, 3.0), (None, None, 8.0), (3.0, 0.0, 0.0)]
)
def test_a_daemon_starts_as_given_or_measured_or_published(
    measured: float | None, given_: float | None, used: float
) -> None:
    result = plan_games(
        14,
        parse_fleets("1x16"),
        alike(1.0, startup_seconds=measured),
        prices=PRICES,
        spot=NEVER,
        startup_seconds=given_,
    )

    assert result["plans"][0]["on_demand"]["seconds"] == pytest.approx(1 + used)
    assert result["durations"]["startup_s"] == used


def test_at_a_game_a_second_the_published_plan_is_right() -> None:
    published = plan_games(
        10_000_000, parse_fleets("1x16"), alike(1.0, startup_seconds=0.0), prices=PRICES, spot=NEVER
    )["published"]

    assert [row["ratio"] for row in published["machine"]] == [1, 1, 1, pytest.approx(60 / 62)]
    assert [row["ratio"] for row in published["machines"]] == [pytest.approx(1, rel=1e-3)] * 4
    days = [row["published_seconds"] / 86_400 for row in published["machines"]]
    assert days == pytest.approx([8.3, 2.1, 20 / 24, 10 / 24], rel=0.02)
    costed = published["machines"][1]
    assert costed["cost"] == pytest.approx(costed["published_cost"], rel=0.02)
    assert costed["spot_cost"] == pytest.approx(costed["published_spot_cost"], rel=0.04)
    assert (costed["published_cost"], costed["published_spot_cost"]) == (136, 55)


def test_at_the_published_durations_the_published_plan_is_far_too_fast(capsys: Capture) -> None:
    result = plan_games(10_000_000, parse_fleets("4x16"), example_durations(), prices=PRICES, spot=SELDOM)

    assert [row["ratio"] for row in result["published"]["machines"]] == pytest.approx([7.84] * 4, rel=0.002)
    plan = result["plans"][0]
    assert plan["on_demand"]["seconds"] == result["published"]["machines"][1]["seconds"]
    assert plan["spot"]["seconds"] > plan["on_demand"]["seconds"]
    assert plan["spot"]["lost"] == 0  # the notice is longer than any game
    show_games(result)
    shown = capsys.readouterr().out
    for words in (
        "16.2 days",
        "8.3 days",
        "19.8 h",
        "9.9 h",
        "7.84",
        "published $136",
        "engines bench --json",
    ):
        assert words in shown


def test_a_slow_coordinator_is_what_a_large_fleet_waits_for() -> None:
    result = plan_games(
        1_000_000,
        parse_fleets("1x16,20x16"),
        example_durations(),
        prices=PRICES,
        spot=NEVER,
        handouts_per_second=5.0,
    )

    small, large = (plan["on_demand"]["seconds"] for plan in result["plans"])
    assert small == pytest.approx(1_000_000 * 7.838 / 14, rel=0.01)
    assert large == pytest.approx(1_000_000 / 5, rel=0.01)


def test_a_daemon_that_plays_several_at_a_time_is_as_good_as_several(capsys: Capture) -> None:
    plans = {
        at_once: plan_games(
            28_000,
            parse_fleets("2x16", daemons=daemons, at_once=at_once),
            alike(3.0, startup_seconds=0.0),
            prices=PRICES,
            spot=NEVER,
        )
        for at_once, daemons in ((1, "140"), (10, "auto"))
    }

    assert plans[10]["plans"][0]["daemons"] == 28
    assert plans[10]["plans"][0]["on_demand"] == plans[1]["plans"][0]["on_demand"]
    assert [row["games_per_s"] for row in plans[10]["published"]["machine"]] == pytest.approx(
        [10 * row["games_per_s"] for row in plans[1]["published"]["machine"]]
    )
    assert plans[10]["published"]["machines"][3]["daemons"] == 280
    show_games(plans[10])
    assert "each daemon plays 10 at a time" in capsys.readouterr().out


def test_few_durations_and_games_that_fail_are_told(capsys: Capture) -> None:
    show_games(
        plan_games(
            1000,
            parse_fleets("1x4"),
            alike(3.0),
            prices=PRICES,
            spot=SELDOM,
            failed_share=0.5,
            tries=2,
        )
    )

    shown = capsys.readouterr().out
    assert "1 durations are few" in shown
    assert "tries come to nothing" in shown
    assert "measure your own" not in shown


def test_who_waits_for_long_hears_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(planner, "_QUIET_SECONDS", math.inf)
    plan_games(10, parse_fleets("1x4"), alike(1.0), prices=PRICES, spot=NEVER, tell=told.append)
    assert told == []

    monkeypatch.setattr(planner, "_QUIET_SECONDS", -1.0)
    plan_games(10, parse_fleets("1x4"), alike(1.0), prices=PRICES, spot=NEVER, tell=told.append)
    assert told == [f"{done} of 7 simulations are done" for done in range(7)]


def test_the_verb_reckons_with_the_durations_of_a_file(tmp_path: Path, capsys: Capture) -> None:
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps({"durations_s": [2.0], "startup_s": 1.0}))

    said = run_here(
        capsys,
        *("plan", "games", "--games", "1.4k", "--machines", "1x16,2x8", "--durations", bench),
        *("--price", "1.6", "--spot-price", "0.8", "--interruptions", "0", "--json"),
    )

    assert (said.code, said.err) == (0, "")
    result = json.loads(said.out.splitlines()[-1])
    one, two = (plan["on_demand"] for plan in result["plans"])
    assert one["seconds"] == pytest.approx(201)
    assert one["cost"] == pytest.approx(1.6 * 201 / 3600)
    assert two["seconds"] == pytest.approx(1 + 2 * math.ceil(1400 / 12))
    assert two["cost"] == pytest.approx(1.6 * two["seconds"] / 3600)  # two machines of half the cores
    assert result["durations"]["source"] == str(bench)


def test_the_verb_reckons_with_the_games_of_a_folder(tmp_path: Path, capsys: Capture) -> None:
    with GameBook(tmp_path, Plan(games=1, decks=("a",))) as book:
        book.exchange("here", 1, [], want=1, hold_seconds=60)
        book.exchange("here", 2, [Played(0, 1, "draw", 2.0)], want=0, hold_seconds=60)

    said = run_here(
        capsys,
        *(
            "plan",
            "games",
            "--games",
            "1.4k",
            "--machines",
            "1x16",
            "--durations",
            tmp_path,
            "--startup",
            "1",
        ),
    )

    assert (said.code, said.err) == (0, "")
    assert f"durations are 1 games in {tmp_path}" in said.out.replace("\n", "")
    assert "say so with --at-once" in said.out
    assert "without loss of a game" in said.out


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (("--games", "ten"), ("'ten'", "--games 10M")),
        (("--machines", "16"), ("'16'", "--machines 4x16")),
        (("--daemons", "all"), ("'all'", "--daemons 14")),
        (("--machines", "4x16", "--at-once", "1000"), ("games in play", "ask for fewer")),
        (("--durations", "."), ("it is a folder without games.jsonl", "tamen engines bench --json")),
        (("--durations", "nowhere.json"), ("nowhere.json", "tamen engines bench --json")),
        (("--startup", "1000", "--interruptions", "60"), ("taken away", "--interruptions")),
    ],
)
def test_what_cannot_be_planned_is_told_in_three_lines(
    arguments: tuple[str, ...], mentions: tuple[str, ...], capsys: Capture
) -> None:
    assert_three_lines(run_here(capsys, "plan", "games", *arguments), code=2, mentions=mentions)


@pytest.mark.parametrize("option", ["--price", "--spot-price", "--startup", "--interruptions", "--failed"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "much"])
def test_what_is_no_number_within_bounds_is_refused(option: str, value: str, capsys: Capture) -> None:
    said = run_here(capsys, "plan", "games", option, value)

    assert said.code == 2
    assert option in said.err
