"""Who can play a match, and how a player is written: `random`, `mcts:400`, `model:NAME@12:64`, …"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np

from configs.schema import SearchConfig
from core.errors import UsageError
from core.messages import Steps
from core.names import checked_name
from engines.known import DEFAULT_LEVEL, MOST_LEVEL, Command, at_level, known_command
from games.game import Game, States
from games.solver import Solver
from search.contract import Search
from search.factory import make_search
from search.policy_play import PolicyPlay
from search.random_play import RandomPlay
from search.rollout import RolloutSearch

RESIGNED = -1
"""What a player chooses that gives a game up; it is lost."""


class Player(Protocol):
    """Chooses moves in many games at once.

    Attributes:
        name: how results call it.
        rows_per_game: state rows one game needs; its board is the first of them, the rest is the player's.
    """

    @property
    def name(self) -> str: ...

    @property
    def rows_per_game(self) -> int: ...

    def choose(
        self,
        game: Game,
        states: States,
        roots: np.ndarray,
        *,
        histories: Sequence[Sequence[int]],
        keys: np.ndarray,
    ) -> Steps[np.ndarray]:
        """Return the moves, int16 [B], or RESIGNED, to play in the positions in `roots`, none of them terminal.

        Args:
            game: the rules.
            states: the pool.
            roots: int32 [B], the row of each position.
            histories: the B lists of moves that led to them from the start.
            keys: uint64 [B], all randomness of a row derives from its key.
        """
        ...


Kind: TypeAlias = Literal["random", "mcts", "solver", "open_spiel_mcts", "gtp", "uci", "model"]

_EXAMPLES = (
    "random, mcts:400, solver, open_spiel_mcts:400, gtp:gnugo:1, uci:stockfish:4, model:NAME, model:NAME@12:64 "
    "or model:NAME:policy"
)
_SEARCHING = re.compile(r"(mcts|open_spiel_mcts)(?::(.*))?", re.DOTALL)
_ENGINE = re.compile(r"(gtp|uci):([^:]*)(?::(.*))?", re.DOTALL)
_MODEL = re.compile(r"model:([^:]*?)(?:@([0-9]{1,18}))?(?::([^:]*))?", re.DOTALL)
_MOST_SIMULATIONS = 100_000
SOLVED_GAMES = ("tic_tac_toe", "hex3", "hex3-swap", "hex4", "hex4-swap")


@dataclass(frozen=True, slots=True)
class PlayerSpec:
    """A player in words; `str` gives the text that `parse_player` takes.

    Attributes:
        kind: random: any legal move. mcts: our search with random rollouts. solver: exact, for small games.
            open_spiel_mcts: OpenSpiel's search with random rollouts. gtp, uci: somebody else's program.
            model: a network under our search.
        simulations: for each move; 0: the network's policy without a search; None: as the run's settings say.
        model: name, or path (it has a slash), of a model.
        version: of the model; None: the newest.
        engine: name of the program.
        level: of the program, the depth in plies of a UCI engine; None: `engines.known.DEFAULT_LEVEL`.
    """

    kind: Kind
    simulations: int | None = None
    model: str = ""
    version: int | None = None
    engine: str = ""
    level: int | None = None

    def __str__(self) -> str:
        if self.engine:
            return f"{self.kind}:{self.engine}" + ("" if self.level is None else f":{self.level}")
        version = "" if self.version is None else f"@{self.version}"
        simulations = {None: "", 0: ":policy"}.get(self.simulations, f":{self.simulations}")
        return self.kind + (f":{self.model}" if self.model else "") + version + simulations


def parse_player(text: str) -> PlayerSpec:
    """Return the player that `text` describes.

    One of `random`, `solver`, `mcts:N`, `open_spiel_mcts:N` and `model:NAME_OR_PATH[@VERSION][:N | :policy]`,
    where N is the simulations for each move, and `:0` means `:policy`; or `gtp:NAME[:LEVEL]` and `uci:NAME[:DEPTH]`.

    Raises:
        UsageError: when it describes none.
    """
    text = text.strip()
    if text == "random":
        return PlayerSpec("random")
    if text == "solver":
        return PlayerSpec("solver")
    if found := _SEARCHING.fullmatch(text):
        if found[1] == "mcts":
            return PlayerSpec("mcts", _simulations(found[2] or "", player=text))
        # With one simulation OpenSpiel's search has not looked at any move yet, and fails.
        return PlayerSpec("open_spiel_mcts", _simulations(found[2] or "", player=text, fewest=2))
    if found := _ENGINE.fullmatch(text):
        level = (
            None if found[3] is None else _number(found[3], player=text, what="a level is", most=MOST_LEVEL)
        )
        checked_name(found[2], what="engine")
        return PlayerSpec("gtp" if found[1] == "gtp" else "uci", engine=found[2], level=level)
    if found := _MODEL.fullmatch(text):
        model, version, simulations = found.groups()
        if "/" not in model:
            checked_name(model, what="model")
        return PlayerSpec(
            "model",
            None if simulations is None else _model_simulations(simulations, player=text),
            model,
            None if version is None else int(version),
        )
    raise _not_a_player(
        text, why="a player is random, solver, mcts, open_spiel_mcts, gtp, uci or model, with what it needs"
    )


def _model_simulations(text: str, *, player: str) -> int:
    return 0 if text in ("0", "policy") else _simulations(text, player=player)


def _simulations(text: str, *, player: str, fewest: int = 1) -> int:
    return _number(text, player=player, what="simulations are", most=_MOST_SIMULATIONS, fewest=fewest)


def _number(text: str, *, player: str, what: str, most: int, fewest: int = 1) -> int:
    if re.fullmatch("[0-9]{1,9}", text) is None or not fewest <= int(text) <= most:
        got = repr(text) if text else "nothing"
        raise _not_a_player(player, why=f"{what} a number from {fewest} to {most}, and {got} was given")
    return int(text)


def _not_a_player(text: str, *, why: str) -> UsageError:
    return UsageError(f"{text!r} is not a player", why=why, fix=f"write one such as {_EXAMPLES}")


@dataclass(frozen=True, slots=True)
class SearchPlayer:
    """A search that plays its best move, with `simulations` for each.

    Attributes:
        name: how results call it.
        search: one `decide` at a time, so no two players share it.
        simulations: the budget of each move.
        model: name of the model that the search asks.
    """

    name: str
    search: Search
    simulations: int = 1
    model: str = ""

    @property
    def rows_per_game(self) -> int:
        return self.search.rows_per_game

    def choose(
        self,
        game: Game,
        states: States,
        roots: np.ndarray,
        *,
        histories: Sequence[Sequence[int]],
        keys: np.ndarray,
    ) -> Steps[np.ndarray]:
        """See `Player`."""
        nowhere = np.zeros(len(roots), bool)
        decisions = yield from self.search.decide(
            game,
            states,
            roots,
            budgets=np.full(len(roots), self.simulations, np.int32),
            keys=keys,
            model=self.model,
            noise=nowhere,
            sample=nowhere,
        )
        return decisions.actions


class SolverPlayer:
    """Plays perfectly: any of the moves that keep the value. Raises UsageError for a large game."""

    name = "solver"
    rows_per_game = 1

    def __init__(self, game: Game) -> None:
        if game.name not in SOLVED_GAMES:
            raise UsageError(
                f"there is no solver for {game.name}",
                why=f"only small games are solved from their start: {', '.join(SOLVED_GAMES)}",
                fix="choose one of these games, or a player such as mcts:400",
            )
        self._solver = Solver(game)

    def choose(
        self,
        game: Game,
        states: States,
        roots: np.ndarray,
        *,
        histories: Sequence[Sequence[int]],
        keys: np.ndarray,
    ) -> Steps[np.ndarray]:
        """See `Player`. Asks no model."""
        yield from ()
        actions = np.empty(len(roots), np.int16)
        for i, root in enumerate(roots):
            values = self._solver.action_values(states, int(root))
            perfect = np.flatnonzero(values == np.nanmax(values))
            actions[i] = perfect[int(keys[i]) % len(perfect)]
        return actions


def make_player(
    spec: PlayerSpec,
    game: Game,
    *,
    settings: SearchConfig,
    games: int,
    served_as: str = "",
    command: Command | None = None,
) -> Player:
    """Return a player of `game`, with memory for `games` games at once.

    Args:
        spec: who plays.
        game: the rules.
        settings: how a model's moves are searched; its simulations where the specification gives none.
        games: the most that the player may have to choose in at once.
        served_as: the name under which requests reach the model of the specification.
        command: that starts the program of the specification; None: as `engines.known` lists it.

    Raises:
        UsageError: when the player cannot play this game, or its program is not there.
    """
    if spec.kind in ("solver", "open_spiel_mcts", "gtp", "uci"):
        return _player_without_a_search(spec, game, command)
    if spec.kind == "random":
        return SearchPlayer(str(spec), RandomPlay())
    if spec.simulations == 0:
        return SearchPlayer(str(spec), PolicyPlay(game, games=games), model=served_as)
    simulations = spec.simulations or settings.simulations
    if spec.kind == "mcts":
        return SearchPlayer(str(spec), RolloutSearch(game, simulations=simulations, games=games), simulations)
    cheap = min(settings.cheap_simulations, simulations)
    settings = settings.model_copy(update={"simulations": simulations, "cheap_simulations": cheap})
    return SearchPlayer(str(spec), make_search(settings, game, games), simulations, served_as)


def _player_without_a_search(spec: PlayerSpec, game: Game, command: Command | None) -> Player:
    """Return a player that does not go by a search of ours."""
    if spec.kind == "solver":
        return SolverPlayer(game)
    if spec.kind == "open_spiel_mcts":
        return _open_spiel_player(spec, game)
    from actors.engine_player import gtp_player, uci_player  # noqa: PLC0415 - it imports this module's contract

    level = DEFAULT_LEVEL if spec.level is None else spec.level
    protocol = "uci" if spec.kind == "uci" else "gtp"
    command = at_level(command or known_command(protocol, spec.engine, game=game.name), level)
    if protocol == "uci":
        return uci_player(str(spec), game, command, depth=level)
    return gtp_player(str(spec), game, command)


def _open_spiel_player(spec: PlayerSpec, game: Game) -> Player:
    try:
        from actors.open_spiel_player import OpenSpielPlayer  # noqa: PLC0415 - OpenSpiel is an extra
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{spec} cannot play",
            why=f"the module {error.name} is not installed",
            fix="install OpenSpiel: pip install -e '.[openspiel]'",
        ) from error
    assert spec.simulations is not None
    return OpenSpielPlayer(str(spec), game, simulations=spec.simulations)
