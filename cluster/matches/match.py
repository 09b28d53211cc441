"""`tamen match` and `tamen play`: players are found, their models served, and games played on paired openings."""

import dataclasses
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from actors.arena import MatchResult, match
from actors.arena import Progress as MatchProgress
from actors.engine_player import EnginePlayer
from actors.openings import Opening, random_openings
from actors.players import Kind, Player, PlayerSpec, make_player, parse_player
from cluster import environment
from cluster.cli.terminal import console
from cluster.run.models import FoundModel, find_model
from cluster.run.program import Machine
from cluster.run.run_folder import named_runs, nearest_run, run_folder, run_names
from configs.schema import NetworkConfig, RunConfig, SearchConfig
from core.errors import UsageError
from core.messages import Reply, Request
from core.ratings import Interval
from engines.known import Command, parse_command
from games.catalog import make_game
from search.drive import run

SERVED_AS = ("first", "second")
"""The names under which the two players' models are served."""
_REASONS_SHOWN = 3
_REASONS_KEPT = 20
"""Of those for which games were set aside; each may be different."""


@dataclasses.dataclass(frozen=True, slots=True)
class Contender:
    """A player as he was found: what he is, how results call him, and his model if he has one.

    `command` starts his program where a person has said how.
    """

    spec: PlayerSpec
    label: str
    model: FoundModel | None
    command: Command | None = None

    def player(self, game: str, *, games: int, served_as: str) -> Player:
        settings = self.model.config.search if self.model else SearchConfig()
        return make_player(
            self.spec,
            make_game(game),
            settings=settings,
            games=games,
            served_as=served_as,
            command=self.command,
        )


def find_contender(
    text: str, *, simulations: int, runs: Path, commands: Mapping[str, Command] | None = None
) -> Contender:
    """Return the player that `text` names; a bare run name or file means its model with `simulations` a move.

    `commands` start programs that are not on the list of `engines.known`, or others in their place, by name.

    Raises:
        UsageError: when nobody is called so.
    """
    spec = parse_player(f"model:{text}" if _is_run_or_file(text, runs) else text)
    if spec.kind != "model":
        return Contender(spec, str(spec), None, (commands or {}).get(spec.engine))
    model = find_model(spec.model + ("" if spec.version is None else f"@{spec.version}"), runs=runs)
    if spec.simulations is None:
        spec = dataclasses.replace(spec, simulations=simulations)
    return Contender(spec, f"{model.label}:{spec.simulations or 'policy'}", model)


def play_match(
    first: str,
    second: str,
    *,
    game: str | None,
    games: int,
    simulations: int,
    opening_plies: int,
    seed: int,
    engine: Literal["ray", "local"],
    address: str | None,
    runs: Path,
    quiet: bool,
    engine_commands: Sequence[str] = (),
) -> dict[str, Any]:
    """Play `games` games between two players, one more if they are odd; return the result as plain numbers.

    It is printed too, unless `quiet`. Each of `engine_commands` is NAME=COMMAND, as a person has typed it.

    Raises:
        UsageError, EngineFault: when nobody is called so, or who is cannot play the game; no game is played then.
    """
    commands = dict(parse_command(text) for text in engine_commands)
    sides = tuple(
        find_contender(text, simulations=simulations, runs=runs, commands=commands)
        for text in (first, second)
    )
    game = agree_on_game(sides, game)
    _try_programs(sides, game)
    pairs = (games + 1) // 2
    if games % 2 and not quiet:
        console().print(f"{2 * pairs} games are played: each opening from both sides")
    openings = random_openings(make_game(game), pairs=pairs, plies=opening_plies, seed=seed)
    began = time.monotonic()
    play = _play_on_ray if engine == "ray" else _play_here
    result = play(sides, game, openings, seed=seed, address=address, show=not quiet)
    summary = _summary(result, game, [side.label for side in sides], time.monotonic() - began)
    if not quiet:
        _print_result(summary)
    return summary


def contest(
    sides: tuple[Contender, ...],
    game: str,
    *,
    pairs: int,
    first_pair: int,
    opening_plies: int,
    seed: int,
    progress: MatchProgress | None = None,
) -> MatchResult:
    """Play pairs of games here, those of the openings from number `first_pair` on; of one seed they are always the
    same, so a match may be played in parts. `progress` is kept up to date.
    """
    rules = make_game(game)
    openings = random_openings(rules, pairs=first_pair + pairs, plies=opening_plies, seed=seed)[first_pair:]
    players = _players(sides, game, games=2 * pairs)
    return run(
        match(rules, *players, openings=openings, seed=seed, first_pair=first_pair, progress=progress),
        answer_here(sides),
    )


def _try_programs(sides: tuple[Contender, ...], game: str) -> None:
    """Start the programs of others among the players once, so that those that cannot play are told at once."""
    for side in sides:
        player = side.player(game, games=1, served_as=SERVED_AS[0]) if side.spec.engine else None
        if isinstance(player, EnginePlayer):
            try:
                player.start()
            finally:
                player.close()


def faults_of(players: Sequence[Player]) -> dict[str, int]:
    """Return how often the programs of others among the players failed, such as {"gtp:gnugo:1 died": 2}."""
    return {
        f"{player.name} {kind}": count
        for player in players
        if isinstance(player, EnginePlayer)
        for kind, count in player.faults.items()
    }


def agree_on_game(sides: tuple[Contender, ...], game: str | None) -> str:
    """Return the game that the models play. Raises UsageError when they differ, or nobody says which it is."""
    known = {side.label: side.model.weights.game for side in sides if side.model is not None}
    names = set(known.values()) | ({game} if game else set())
    if len(names) == 1:
        return make_game(names.pop()).name
    if not names:
        raise UsageError("which game?", why="none of the players is tied to one", fix="add --game hex5")
    told = [f"{label} plays {name}" for label, name in known.items()] + (
        [f"--game is {game}"] if game else []
    )
    raise UsageError(
        "the players play different games", why=", ".join(told), fix="choose two of the same game"
    )


def play_in_terminal(opponent: str, *, game: str | None, person: int, simulations: int, runs: Path) -> None:
    """Let a person play against an opponent; ends after one game, or when the person leaves."""
    from cluster.matches.play import play_game

    contender = find_contender(opponent, simulations=simulations, runs=runs)
    name = agree_on_game((contender,), game or (None if contender.model else "hex5"))
    player = contender.player(name, games=1, served_as=SERVED_AS[1])
    target = console()
    target.print(f"{name} against {contender.label}; `quit` leaves", style="bold", markup=False)
    outcome = play_game(
        make_game(name),
        player,
        answer_here((contender,)),
        person=person,
        seed=time.time_ns() % 2**32,
        say=lambda text: target.print(text, markup=False),
        ask=input,
    )
    if outcome is not None:
        target.print({1.0: "you win", 0.0: "a draw", -1.0: f"{contender.label} wins"}[outcome], style="bold")


def _play_here(
    sides: tuple[Contender, ...],
    game: str,
    openings: list[Opening],
    *,
    seed: int,
    address: str | None,
    show: bool,
) -> MatchResult:
    players = _players(sides, game, games=2 * len(openings))
    result = run(match(make_game(game), *players, openings=openings, seed=seed), answer_here(sides))
    return dataclasses.replace(result, faults=faults_of(players))


def _play_on_ray(
    sides: tuple[Contender, ...],
    game: str,
    openings: list[Opening],
    *,
    seed: int,
    address: str | None,
    show: bool,
) -> MatchResult:
    environment.prepare_ray(address)
    from cluster.matches.ray_match import RayMatch

    parts = min(Machine.here().cpus, len(openings))
    config = _serving_config(sides, game)
    models = {name: side.model.weights for name, side in zip(SERVED_AS, sides, strict=True) if side.model}
    with RayMatch(
        config,
        models,
        sides,
        openings,
        game=game,
        served_as=SERVED_AS,
        seed=seed,
        parts=parts,
        address=address,
    ) as running:
        _show_progress(running.games_finished, 2 * len(openings), show=show)
        return running.result()


def _players(sides: tuple[Contender, ...], game: str, *, games: int) -> tuple[Player, ...]:
    return tuple(
        side.player(game, games=games, served_as=name) for side, name in zip(sides, SERVED_AS, strict=True)
    )


def answer_here(sides: tuple[Contender, ...]) -> Callable[[Request], Reply]:
    """Return an evaluator in this process for the models of `sides`."""
    models = {
        name: side.model for name, side in zip(SERVED_AS[-len(sides) :], sides, strict=True) if side.model
    }
    if not models:
        return _nobody_answers
    from cluster.run.parts import make_host

    host = make_host(
        next(iter(models.values())).config,
        fetch=lambda name: dataclasses.replace(models[name].weights, model=name),
    )
    return lambda request: host.evaluate(request.model, request.arrays)


def _nobody_answers(request: Request) -> Reply:
    raise AssertionError(f"no player has a model, but {request.model} was asked")


def _serving_config(sides: tuple[Contender, ...], game: str) -> RunConfig:
    """Return the configuration of the server: the first model's, or the defaults when nobody has one."""
    found = next((side.model.config for side in sides if side.model is not None), None)
    return found or RunConfig(game=game, network=NetworkConfig())


def _show_progress(games_finished: Callable[[], int | None], total: int, *, show: bool) -> None:
    """Show a bar until `games_finished` says None: the match is over."""
    columns = [TextColumn("games"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(
        *columns, console=console(stderr=True), transient=True, disable=not show or not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task("games", total=total)
        while (finished := games_finished()) is not None:
            bar.update(task, completed=finished)


def _summary(result: MatchResult, game: str, labels: list[str], seconds: float) -> dict[str, Any]:
    tally, elo = result.tally(), result.elo_interval
    interval = result.interval if result.pair_scores else Interval(math.nan, math.nan)
    return {
        "game": game,
        "first": labels[0],
        "second": labels[1],
        "games": tally.wins + tally.draws + tally.losses,
        "wins": tally.wins,
        "draws": tally.draws,
        "losses": tally.losses,
        "score": _finite(result.score),
        "score_low": _finite(interval.low),
        "score_high": _finite(interval.high),
        "elo": _finite(result.elo),
        "elo_low": _finite(elo.low),
        "elo_high": _finite(elo.high),
        "set_aside": len(result.set_aside),
        "reasons": _reasons(result),
        "faults": dict(result.faults),
        "mean_plies": result.plies / max(1, tally.wins + tally.draws + tally.losses),
        "seconds": round(seconds, 1),
    }


def _finite(value: float) -> float | None:
    """Return None for an infinite Elo, or a score of no games, which JSON cannot say."""
    return value if math.isfinite(value) else None


def _reasons(result: MatchResult) -> list[dict[str, Any]]:
    """Return why games were set aside, as {"games", "reason"}, the most frequent first."""
    counts = Counter(game.reason for game in result.set_aside)
    return [{"games": games, "reason": reason} for reason, games in counts.most_common(_REASONS_KEPT)]


def _print_result(summary: dict[str, Any]) -> None:
    target = console()
    target.print(
        f"{summary['first']}  against  {summary['second']}  at {summary['game']}", style="bold", markup=False
    )
    if summary["games"]:
        _print_score(summary)
    else:
        target.print("  no game counts, so there is no score", style="red")
    if summary["set_aside"]:
        target.print(f"  {summary['set_aside']} games were set aside, each with its twin:", style="yellow")
    shown = summary["reasons"][:_REASONS_SHOWN]
    for told in shown:
        target.print(f"    {told['games']}: {told['reason']}", markup=False, highlight=False)
    if others := summary["set_aside"] - sum(told["games"] for told in shown):
        target.print(f"    {others}: for other reasons; --json tells more of them")
    if summary["faults"]:
        faults = ", ".join(f"{fault} {times} ×" for fault, times in summary["faults"].items())
        target.print(f"  programs failed and were started again: {faults}", style="yellow", markup=False)


def _print_score(summary: dict[str, Any]) -> None:
    def signed(value: float | None, infinite: str) -> str:
        return infinite if value is None else f"{value:+.0f}"

    target = console()
    target.print(
        f"  {summary['wins']} wins, {summary['draws']} draws, {summary['losses']} losses in {summary['seconds']:.0f} s"
    )
    target.print(
        f"  score {summary['score']:.1%}, 95 % interval {summary['score_low']:.1%} to {summary['score_high']:.1%}"
    )
    low, high = signed(summary["elo_low"], "-∞"), signed(summary["elo_high"], "+∞")
    extreme = "+∞" if summary["score"] > 0.5 else "-∞"
    target.print(f"  Elo {signed(summary['elo'], extreme)}, 95 % interval {low} to {high}")


def _is_run_or_file(text: str, runs: Path) -> bool:
    """Whether `text` is the name of a run or file. Raises UsageError for what looks like a name and is none."""
    if text.endswith(".safetensors"):
        return True
    name = text.partition("@")[0]
    try:
        folder = run_folder(runs, name)
    except UsageError:  # not a plain name: one with a colon, such as mcts:400
        return False
    if not folder.exists() and name not in get_args(Kind):
        raise UsageError(
            f"there is no run or player called {text!r}",
            why=f"{named_runs(runs)}; players without a run are random, mcts:400, solver, open_spiel_mcts:400, "
            "gtp:gnugo, uci:stockfish",
            fix=nearest_run(name, runs)
            if run_names(runs)
            else "name a player, or train a run with `tamen train`",
        )
    return folder.exists()
