"""`tamen plan games`: how long fleets of machines play a number of games of engines, and what that costs.

Beside the fleets that were asked about stands a published plan, reckoned anew. It takes one game a second from each
daemon, whose games last 7.8 s in the profile that was published with it.
"""

import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from cluster.cli.terminal import console, short, whole
from cluster.plan.fleet import (
    MOST_DAEMONS,
    MOST_MACHINES,
    Machine,
    Outcome,
    Spot,
    Work,
    daemons_of,
    simulate,
    steady_rates,
)
from core.errors import UsageError
from engines.timings import Durations

MOST_GAMES = 10**12
MOST_FLEETS = 16
FEW_DURATIONS = 100
"""With fewer the slowest games, for which a run waits at its end, are hardly known."""
STARTUP_SECONDS = 8.0
"""Of a daemon, where it was not measured: Forge loads its cards for that long."""

PUBLISHED_CORES = ((8, 6), (16, 14), (32, 30), (64, 60))
"""Cores of a machine, and games a second that were published for it, one for each daemon. 64 - 2 would be 62."""
PUBLISHED_MACHINES = (1, 4, 10, 20)
"""Of 16 cores each."""
PUBLISHED_RATE = 14.0
"""Games a second of each of these."""
PUBLISHED_COSTED = 4
"""How many of them the published cost is for."""
PUBLISHED_GAMES = 10_000_000
PUBLISHED_PRICE, PUBLISHED_COST = 0.68, 136.0
PUBLISHED_SPOT_PRICE, PUBLISHED_SPOT_COST = 0.27, 55.0

_QUIET_SECONDS = 2.0
"""Seconds without an answer, after which a person is told how far it is."""
_TIMES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True, slots=True)
class Fleet:
    """Machines that play together, as they were typed: "4x16+40x8".

    Attributes:
        machines: with as many daemons as they have games in play.
        at_once: games that a daemon plays at a time.
    """

    typed: str
    machines: tuple[Machine, ...]
    at_once: int = 1

    @property
    def daemons(self) -> int:
        return sum(machine.daemons for machine in self.machines) // self.at_once


@dataclass(frozen=True, slots=True)
class Prices:
    """Of an hour of one core, in dollars."""

    on_demand: float
    spot: float


def parse_games(text: str) -> int:
    """Return the number that "500", "2.5k", "10M" or "1G" means.

    Raises:
        UsageError: when it is none, not whole, below 1 or above 10^12.
    """
    found = re.fullmatch(r"([0-9]{1,15})(?:\.([0-9]{1,9}))?([kMG]?)", text)
    if found is not None:
        digits, behind, unit = found[1], found[2] or "", found[3]
        games, rest = divmod(int(digits + behind) * _TIMES[unit], 10 ** len(behind))
        if not rest and 1 <= games <= MOST_GAMES:
            return games
    raise UsageError(
        f"{text!r} is no number of games",
        why="it is a whole number from 1 to 1000G, with k, M or G for thousands, millions, billions",
        fix="write it as in --games 10M or --games 2.5k",
    )


def parse_fleets(text: str, *, daemons: str = "auto", at_once: int = 1) -> list[Fleet]:
    """Return the fleets of "4x16,10x8+2x32": four machines of 16 cores; or ten of 8 and two of 32 together.

    Args:
        daemons: of each machine; "auto" is all its cores but two, at least one.
        at_once: games that each plays at a time.

    Raises:
        UsageError: when it cannot be read, or is too much to be simulated.
    """
    if daemons != "auto" and (re.fullmatch(r"[0-9]{1,4}", daemons) is None or not int(daemons)):
        raise UsageError(
            f"a machine cannot have {daemons!r} daemons",
            why="it is 'auto', all its cores but two, or a number from 1 to 9999",
            fix="write it as in --daemons 14",
        )
    typed = [word.strip() for word in text.split(",")]
    if len(typed) > MOST_FLEETS:
        raise UsageError(
            f"{len(typed)} fleets are too many",
            why=f"at most {MOST_FLEETS} are compared",
            fix="ask for fewer",
        )
    return [_fleet(word, None if daemons == "auto" else int(daemons), at_once) for word in typed]


def _fleet(text: str, daemons: int | None, at_once: int) -> Fleet:
    kinds = [re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,3})", word) for word in text.split("+")]
    if not all(kinds):
        raise UsageError(
            f"{text!r} are no machines",
            why="each kind is a number of machines, an x and the cores of one; + joins kinds that play together",
            fix="write them as in --machines 4x16,10x8+2x32",
        )
    counts = [(int(kind[1]), int(kind[2])) for kind in kinds if kind is not None]
    number = sum(count for count, _ in counts)
    total = sum(count * at_once * (daemons or daemons_of(cores)) for count, cores in counts)
    if number > MOST_MACHINES or total > MOST_DAEMONS:
        raise UsageError(
            f"{text} is too much: {number:,} machines with {total:,} games in play",
            why=f"at most {MOST_MACHINES:,} machines and {MOST_DAEMONS:,} games at a time are simulated",
            fix="ask for fewer; time goes down with the number of machines",
        )
    machines = [
        Machine(cores, at_once * (daemons or daemons_of(cores)))
        for count, cores in counts
        for _ in range(count)
    ]
    return Fleet(text, tuple(machines), at_once)


def plan_games(
    games: int,
    fleets: list[Fleet],
    durations: Durations,
    *,
    prices: Prices,
    spot: Spot,
    startup_seconds: float | None = None,
    failed_share: float = 0.0,
    tries: int = 3,
    handouts_per_second: float = math.inf,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Simulate `games` on each fleet, on demand and on spot machines, and on those of the published plan.

    Args:
        startup_seconds: of a daemon; None: as measured, or else 8 s.
        tell: hears how far it is when it takes long.

    Returns:
        durations: what games take, and what is between them.
        plans: for each fleet `on_demand` and `spot`: games_per_s, cost, and what `Outcome` has.
        published: the published tables beside the same from these durations; `ratio` is how many times too fast, or
            too cheap, they are.

    Raises:
        UsageError: when spot machines are taken away too often.
    """
    startup = durations.startup_seconds if startup_seconds is None else startup_seconds
    work = Work(
        games=games,
        seconds=durations.seconds,
        startup_seconds=STARTUP_SECONDS if startup is None else startup,
        between_games=durations.between_games,
        failed_share=failed_share,
        tries=tries,
        handouts_per_second=handouts_per_second,
    )
    at_once = fleets[0].at_once
    progress = _progress(2 * len(fleets) + len(PUBLISHED_MACHINES) + 1, tell)

    def run(machines: tuple[Machine, ...], price: float, taken: Spot | None) -> dict[str, float]:
        next(progress)
        return _costed(simulate(list(machines), work, taken, seed=seed), price)

    plans = [
        {
            "machines": fleet.typed,
            "daemons": fleet.daemons,
            "on_demand": run(fleet.machines, prices.on_demand, None),
            "spot": run(fleet.machines, prices.spot, spot),
        }
        for fleet in fleets
    ]
    return {
        "games": games,
        "durations": _told(durations, work) | {"at_once": at_once},
        "spot": asdict(spot),
        "plans": plans,
        "published": {
            "machine": [_published_machine(cores, rate, work, at_once) for cores, rate in PUBLISHED_CORES],
            "machines": _published_machines(games, run, spot, at_once),
        },
    }


def _told(durations: Durations, work: Work) -> dict[str, Any]:
    return {
        "source": durations.source,
        "is_example": durations.is_example,
        "games": len(durations.seconds),
        "mean_s": durations.mean,
        **{f"p{percent}_s": durations.quantile(percent / 100) for percent in (50, 90, 95, 99)},
        "longest_s": durations.quantile(1.0),
        "startup_s": work.startup_seconds,
        "between_games_s": work.between_games,
    }


def _costed(outcome: Outcome, price: float) -> dict[str, float]:
    """Return an outcome, games a second and dollars; `price` is that of an hour of a core."""
    done = outcome.finished + outcome.set_aside
    cost = outcome.core_seconds / 3600 * price
    return {"games_per_s": done / outcome.seconds, "cost": cost, **asdict(outcome)}


def _published_machine(cores: int, published: float, work: Work, at_once: int) -> dict[str, float]:
    daemons = daemons_of(cores)
    rate = min(steady_rates([Machine(cores, at_once * daemons)], work).games, work.handouts_per_second)
    return {
        "cores": cores,
        "daemons": daemons,
        "games_per_s": rate,
        "published_games_per_s": published,
        "ratio": published / rate,
    }


def _published_machines(
    games: int, run: Callable[..., dict[str, float]], spot: Spot, at_once: int
) -> list[dict[str, Any]]:
    rows = []
    for number in PUBLISHED_MACHINES:
        machines = (Machine(16, at_once * daemons_of(16)),) * number
        ours = run(machines, PUBLISHED_PRICE / 16, None)
        seconds = games / (PUBLISHED_RATE * number)
        row = {
            "machines": number,
            "daemons": number * daemons_of(16),
            "games_per_s": ours["games_per_s"],
            "seconds": ours["seconds"],
            "published_games_per_s": PUBLISHED_RATE * number,
            "published_seconds": seconds,
            "ratio": ours["seconds"] / seconds,
        }
        if number == PUBLISHED_COSTED:
            cheaper = run(machines, PUBLISHED_SPOT_PRICE / 16, spot)
            row |= {
                "cost": ours["cost"],
                "published_cost": PUBLISHED_COST * games / PUBLISHED_GAMES,
                "spot_cost": cheaper["cost"],
                "published_spot_cost": PUBLISHED_SPOT_COST * games / PUBLISHED_GAMES,
            }
        rows.append(row)
    return rows


def _progress(simulations: int, tell: Callable[[str], None]) -> Iterator[None]:
    began = time.monotonic()
    for done in range(simulations):
        if time.monotonic() - began > _QUIET_SECONDS:
            tell(f"{done} of {simulations} simulations are done")
        yield


def show_games(result: dict[str, Any]) -> None:
    """Print what was planned, and the published plan beside what these durations make of it."""
    target, durations, spot = console(), result["durations"], result["spot"]
    for line in (
        f"durations are {durations['source']}",
        f"a game takes {durations['mean_s']:.3g} s (half up to {durations['p50_s']:.3g} s, 95 % up to"
        f" {durations['p95_s']:.3g} s, longest {durations['longest_s']:.3g} s), a daemon {durations['startup_s']:.3g} s"
        f" to start, {durations['between_games_s']:.3g} s between games",
        f"spot: {spot['interruptions_per_hour']:g} interruptions an hour for each machine, {spot['notice_seconds']:g} s"
        f" notice, another machine after {spot['replacement_seconds']:g} s: assumed, not measured",
    ):
        target.print(Text(line), soft_wrap=True)
    if not durations["is_example"]:
        target.print(
            Text(
                f"each daemon plays {durations['at_once']} at a time; where it was another number while these were"
                " measured, say so with --at-once"
            ),
            soft_wrap=True,
        )
    if durations["games"] < FEW_DURATIONS:
        target.print(f"{durations['games']} durations are few: how long the slowest games take is a guess")
    target.print(_plans_table(result))
    for plan in result["plans"]:
        target.print(Text(_losses(plan)), soft_wrap=True)
    target.print()
    _show_published(result)
    if durations["is_example"]:
        target.print(
            Text(
                "ten games at once may have slowed each other down; measure your own:"
                " tamen engines bench --json > FILE, then tamen plan games --durations FILE"
            ),
            soft_wrap=True,
        )


def _plans_table(result: dict[str, Any]) -> Table:
    table = _table("machines", "daemons", "games/s", "on demand", "cost", "spot", "cost")
    for plan in result["plans"]:
        on_demand, spot = plan["on_demand"], plan["spot"]
        table.add_row(
            plan["machines"],
            whole(plan["daemons"]),
            _rate(on_demand["games_per_s"]),
            _span(on_demand["seconds"]),
            _dollars(on_demand["cost"]),
            _span(spot["seconds"]),
            _dollars(spot["cost"]),
        )
    return table


def _losses(plan: dict[str, Any]) -> str:
    on_demand, spot = plan["on_demand"], plan["spot"]
    text = (
        f"{plan['machines']}: the last {_span(on_demand['tail_seconds'])} wait for the slowest games;"
        f" {spot['interruptions']:,.0f} spot machines are taken away"
    )
    text += (
        f", and {spot['lost']:,.0f} games are played again"
        if spot["lost"] >= 1
        else ", without loss of a game"
    )
    if on_demand["failed"]:
        text += f"; {on_demand['failed']:,.0f} tries come to nothing, {on_demand['set_aside']:,.0f} games are set aside"
    return text


def _show_published(result: dict[str, Any]) -> None:
    target, published = console(), result["published"]
    durations = result["durations"]
    mean = durations["mean_s"]
    each = durations["at_once"] / (mean + durations["between_games_s"])
    for line in (
        f"a published plan takes 1 game/s from each daemon; here one gives {_rate(each)}, a game in {mean:.3g} s.",
        "It counts neither starts nor slowest games nor machines that are taken away, and on 64 cores 60 daemons, where"
        " its rule is all but two. Ratio: how many times as fast it is as these durations allow.",
    ):
        target.print(Text(line), soft_wrap=True)
    table = _table("cores", "daemons", "games/s", "games/h", "published games/s", "ratio")
    for row in published["machine"]:
        table.add_row(
            whole(row["cores"]),
            whole(row["daemons"]),
            _rate(row["games_per_s"]),
            whole(3600 * row["games_per_s"]),
            _rate(row["published_games_per_s"]),
            f"{row['ratio']:.3g}",
        )
    target.print(table)
    table = _table("machines", "daemons", "games/s", f"{_short(result['games'])} games", "published", "ratio")
    for row in published["machines"]:
        table.add_row(
            f"{row['machines']}x16",
            whole(row["daemons"]),
            _rate(row["games_per_s"]),
            _span(row["seconds"]),
            _span(row["published_seconds"]),
            f"{row['ratio']:.3g}",
        )
    target.print(table)
    row = next(row for row in published["machines"] if "cost" in row)
    target.print(
        Text(
            f"{row['machines']}x16 at ${PUBLISHED_PRICE} an hour: {_dollars(row['cost'])}, published"
            f" {_dollars(row['published_cost'])}; spot at ${PUBLISHED_SPOT_PRICE}: {_dollars(row['spot_cost'])},"
            f" published {_dollars(row['published_spot_cost'])}"
        ),
        soft_wrap=True,
    )


def _table(*headings: str) -> Table:
    table = Table()
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "machines" else "right")
    return table


def _short(games: int) -> str:
    """Return a number of games as people write it: 10M."""
    return short(games).replace(".0", "")


def _rate(per_second: float) -> str:
    return whole(per_second) if per_second >= 100 else f"{per_second:.3g}"


def _span(seconds: float) -> str:
    if seconds >= 48 * 3600:
        return f"{seconds / 86_400:,.1f} days"
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 100 else f"{seconds:.3g} s"


def _dollars(amount: float) -> str:
    return f"${amount:,.0f}" if amount >= 100 else f"${amount:,.2f}"
