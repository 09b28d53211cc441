"""`tamen gtp`: a model behind the Go Text Protocol; and how a person names programs of others."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.verbs import Runs

EngineCommands = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-command",
        help="what starts gtp:NAME or uci:NAME: NAME=COMMAND, {level} in it as asked; may be given several times",
        metavar="NAME=COMMAND",
    ),
]


def gtp(
    player: Annotated[
        str,
        typer.Argument(help="a run, or any player that `match` knows", metavar="MODEL", show_default=False),
    ],
    game: Annotated[
        str | None, typer.Option(help="which game, when the player does not tell", metavar="GAME")
    ] = None,
    simulations: Annotated[
        int, typer.Option(help="of a model's move; 0: its policy alone", min=0, metavar="N")
    ] = 64,
    seed: Annotated[int, typer.Option(help="seed of the player", min=0, metavar="N")] = 0,
    runs: Runs = Path("runs"),
) -> None:
    """Play by the Go Text Protocol, for HexGui, GoGui and others.

    Analysis: policy, value, search. A board of another size than the model's is refused.
    """
    from cluster.matches.gtp import own_output, serve_player

    with own_output() as sink:
        serve_player(player, game=game, simulations=simulations, seed=seed, runs=runs, sink=sink)
