"""`tamen why`: what is decided on keys at this moment, with every number that makes it; disturbs nobody."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from cluster.cli.terminal import UNKNOWN, console, percent, real, whole
from configs.control import DECISIONS, DecisionsConfig
from configs.words import did_you_mean
from control.curriculum import KeyFacts, Weight, age_seconds, weigh
from control.database import CONTROL_FILE, Database
from control.export_settings import ExportSettings, export_settings
from control.journal import TABLES, Journal
from control.keys import Key, parse_key
from control.triggers import SIGNALS, Decision, decide_all
from core.errors import DataError, UsageError


@dataclass(frozen=True, slots=True)
class Explained:
    """What is known of a key, and what follows from it; `export` is None while nobody knows how long games are."""

    key: Key
    facts: KeyFacts
    decision: Decision
    weight: Weight
    share: float
    export: ExportSettings | None


def explain(
    key: str | None, overrides: Sequence[str], *, runs: Path, quiet: bool, now: float | None = None
) -> dict[str, Any] | list[dict[str, Any]]:
    """Return, and print unless `quiet`, what is decided on a key, or on all of them.

    Args:
        overrides: settings to be tried, such as "triggers.freshness_games=200", over those that are in use.
        now: seconds since 1970; None: this moment.

    Raises:
        UsageError: when nothing is known of the key, or a setting is none.
        DataError: when the file is damaged or foreign.
    """
    wanted = None if key is None else parse_key(key)
    path, now = runs / CONTROL_FILE, time.time() if now is None else now
    if not path.exists():
        if wanted is not None:
            raise _unknown(wanted, [], path)
        if not quiet:
            _print_none(path)
        return []
    database = Database(path, TABLES)
    try:
        journal = Journal(database)
        config = _settings(journal, overrides)
        facts = journal.facts(config.recent, now=now)
        running = sorted(journal.running(now=now))
    finally:
        database.close()
    if wanted is not None and wanted not in facts:
        raise _unknown(wanted, facts, path)
    every = _explained(facts, running, config, now)
    if wanted is None:
        if not quiet:
            _print_all(every, path)
        return [_as_json(each, config, running, now) for each in every.values()]
    if not quiet:
        _print_one(every[wanted], config, running, now)
    return _as_json(every[wanted], config, running, now)


def _settings(journal: Journal, overrides: Sequence[str]) -> DecisionsConfig:
    """Return the settings that are in use, or the defaults, with `overrides` over them."""
    try:
        used = DecisionsConfig.model_validate(journal.settings() or {})
    except ValidationError as error:
        raise DataError(
            "the settings that were noted are none of this version",
            why=str(error.errors()[0]["msg"]),
            fix="start what decides once more: it notes them",
        ) from error
    return DECISIONS.override(used, overrides)


def _unknown(key: Key, known: Iterable[Key], path: Path) -> UsageError:
    names = [str(each) for each in known]
    return UsageError(
        f"nothing is known of {key}",
        why=f"{path} has {', '.join(names)}" if names else f"nothing was noted in {path} yet",
        fix=did_you_mean(str(key), names)
        if names
        else "record games of it, or begin with: tamen train --auto",
    )


def _explained(
    facts: Mapping[Key, KeyFacts], running: Sequence[Key], config: DecisionsConfig, now: float
) -> dict[Key, Explained]:
    decisions = decide_all(facts, running, config.triggers, now=now)
    weights = {key: weigh(known, config.curriculum, now=now) for key, known in facts.items()}
    total = sum(weight.weight for weight in weights.values())
    return {
        key: Explained(
            key, known, decisions[key], weights[key], weights[key].weight / total, _export(key, known, config)
        )
        for key, known in facts.items()
    }


def _export(key: Key, facts: KeyFacts, config: DecisionsConfig) -> ExportSettings | None:
    if facts.moves_per_game is None and key.game not in config.export.games:
        return None
    return export_settings(key.game, facts.games, config.export, moves_per_game=facts.moves_per_game)


def _as_json(each: Explained, config: DecisionsConfig, running: Sequence[Key], now: float) -> dict[str, Any]:
    export = None
    if each.export is not None:
        stride = each.export.selection.stride
        selection = {"max_games": each.export.selection.max_games, "stride": str(stride)}
        export = asdict(each.export) | {"selection": selection}
    return {
        "key": str(each.key),
        "time": now,
        **asdict(each.decision),
        "facts": {**asdict(each.facts), "new_games": each.facts.new_games},
        "running": list(map(str, running)),
        "weight": {**asdict(each.weight), "share": each.share},
        "export": export,
        "settings": config.model_dump(mode="json", include={"recent", "triggers", "curriculum"}),
    }


def _print_one(each: Explained, config: DecisionsConfig, running: Sequence[Key], now: float) -> None:
    target, decision = console(), each.decision
    said = "train now" if decision.should_train else "do not train"
    target.print(
        Text.assemble(
            (f"{each.key}: {said}", "bold"), f"  (rule {decision.rule}, priority {decision.priority:.2f})"
        )
    )
    target.print(Text(decision.reason))
    for note in decision.notes:
        target.print(Text(f"note: {note}"))
    target.print()
    target.print(_signals(each, config, now))
    target.print(_bounds(each, config, running, now))
    target.print()
    target.print(_weights(each))
    target.print()
    _print_export(each)


def _signals(each: Explained, config: DecisionsConfig, now: float) -> Table:
    settings, facts, decision = config.triggers, each.facts, each.decision
    limits, age, rate = decision.limits, age_seconds(facts.last_trained, now), facts.recent.win_rate
    stale, regressed = (
        f"{share * limits.freshness_games:,.0f} new"
        for share in (settings.stale_freshness, settings.regressed_freshness)
    )
    bound = (
        f"{settings.min_win_rate:.1%}" if limits.win_rate_below is None else f"{limits.win_rate_below:.1%}"
    )
    known = {
        "data_freshness": (
            settings.freshness_weight,
            f"{facts.new_games:,} new of {facts.games:,}",
            f"{limits.freshness_games:,} new",
        ),
        "model_staleness": (
            settings.staleness_weight,
            "never trained" if age is None else f"trained {_ago(age)} ago",
            f"{settings.staleness_hours:g} h, {stale}",
        ),
        "performance_regression": (
            settings.regression_weight,
            "win rate unknown" if rate is None else f"{rate:.1%} won",
            f"below {bound}, {regressed}",
        ),
    }
    table = _table(("signal", "score", "weight", "known", "enough"), right=("score", "weight"))
    for signal in SIGNALS:
        weight, found, enough = known[signal]
        table.add_row(signal, f"{decision.signal_scores[signal]:.2f}", f"{weight:g}", found, enough)
    return table


def _bounds(each: Explained, config: DecisionsConfig, running: Sequence[Key], now: float) -> Table:
    facts, limits, settings = each.facts, each.decision.limits, config.triggers
    recent, since = facts.recent, age_seconds(facts.last_attempt, now)
    last = "no attempt yet" if since is None else f"last attempt {_ago(since)} ago"
    taken = f"{len(running)} of {settings.max_concurrent} taken"
    trend = "unknown" if recent.elo_trend is None else f"{recent.elo_trend:+.1f}, {recent.momentum}"
    table = _table(("", ""), right=(), header=False)
    table.add_row("interval", f"{_ago(limits.interval_seconds)}, {last}, {facts.failures} failures in a row")
    table.add_row("places", taken + (f": {', '.join(map(str, running[:4]))}" if running else ""))
    table.add_row("models", f"{facts.models}; the first from {settings.bootstrap_games:,} games on")
    table.add_row("recent", f"{recent.games:,} games, worth {recent.weight:.1f} of now")
    sooner = limits.freshness_games < settings.freshness_games
    less = (
        f": {limits.freshness_games:,} new games are enough of {settings.freshness_games:,}" if sooner else ""
    )
    table.add_row("Elo", trend + less)
    return table


def _weights(each: Explained) -> Table:
    share = f"{each.weight.weight:.2f} ({each.share:.1%} of games)"
    table = _table(("played with weight", share, "applies"), right=())
    for factor in each.weight.factors:
        adds = f"{factor.adds:+.2f}" if factor.adds else UNKNOWN
        table.add_row(factor.name, f"{adds}  {factor.found}", factor.rule)
    return table


def _print_export(each: Explained) -> None:
    target, export = console(), each.export
    if export is None:
        target.print(Text(f"export: nobody knows yet how long games of {each.key.game} are"))
        return
    most, stride = export.selection.max_games, real(float(export.selection.stride), 2)
    games = "all" if most is None else f"the newest {most:,}"
    moves = f"{export.moves_per_game:.1f} moves a game, {'counted' if export.measured else 'of the table'}"
    batch = f"batch {export.batch_rows}"
    if export.batch_capped_from:
        batch += f" instead of {export.batch_capped_from}"
    target.print(
        Text(
            f"export: tier {export.tier}, {games} of {export.games:,} games, one position in {stride}"
            f" ({export.sample_every} × {export.sample_factor:g});\n"
            f"about {whole(export.estimated_samples)} samples ({moves}); {export.epochs} epochs, {batch}"
        )
    )


def _print_all(every: Mapping[Key, Explained], path: Path) -> None:
    target = console()
    if not every:
        _print_none(path)
        return
    numbers = ("prio", "fresh", "stale", "regr", "new", "win", "play")
    table = _table(("key", "train", "by", *numbers), right=numbers)
    table.padding = (0, 1, 0, 0)
    shown = sorted(
        every.values(), key=lambda each: (not each.decision.should_train, -each.decision.priority, each.key)
    )
    for each in shown:
        decision, facts = each.decision, each.facts
        table.add_row(
            str(each.key),
            "yes" if decision.should_train else "no",
            decision.rule.rpartition("_")[2],
            f"{decision.priority:.2f}",
            *(f"{decision.signal_scores[signal]:.2f}" for signal in SIGNALS),
            f"{facts.new_games:,}",
            percent(facts.recent.win_rate),
            f"{each.weight.weight:.2f}",
        )
    target.print(table)
    target.print(Text(f"\nnext: tamen why {shown[0].key}"))


def _print_none(path: Path) -> None:
    console().print(Text(f"nothing was noted in {path} yet; begin with: tamen train --auto"), soft_wrap=True)


def _table(headings: Sequence[str], *, right: Sequence[str], header: bool = True) -> Table:
    table = Table(box=None, pad_edge=False, show_header=header)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left")
    return table


def _ago(seconds: float) -> str:
    if seconds >= 48 * 3600:
        return f"{seconds / 86400:.1f} days"
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"
