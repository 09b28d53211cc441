"""`tamen solve`: situations of hold'em, from the command line."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.verbs import AsJson, Runs, print_json
from poker.schedules import DEFAULT_VARIANT, VARIANTS


def solve(
    board: Annotated[str, typer.Option(help="5 cards, 4, or with --values 3: Td9d6hQc3s", metavar="CARDS")],
    pot_half: Annotated[float, typer.Option(help="chips that each player has put in", metavar="CHIPS")],
    stack: Annotated[
        float, typer.Option(help="of each at the beginning of the hand", metavar="CHIPS")
    ] = 20_000,
    range1: Annotated[str, typer.Option(help="of who begins: TT+,AKs,A5o:0.5", metavar="RANGE")] = "uniform",
    range2: Annotated[str, typer.Option(help="of the other", metavar="RANGE")] = "uniform",
    bets: Annotated[
        str, typer.Option(help="in pots after a call, besides all-in: 0.5,1, or none", metavar="SIZES")
    ] = "1",
    target_pct: Annotated[
        float | None,
        typer.Option(help="stop at this exploitability, in % of the pot (default: 0.1)", metavar="PCT"),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="take so many, without a target", metavar="N")
    ] = None,
    variant: Annotated[
        str, typer.Option(help=f"one of {', '.join(VARIANTS)}", metavar="NAME")
    ] = DEFAULT_VARIANT,
    values: Annotated[
        str | None,
        typer.Option(
            help="a run whose network says what hands are worth at the end of the street (default: solve to the end)",
            metavar="RUN",
        ),
    ] = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Solve a river or turn of hold'em, or with a network a flop.

    Exit code 1 when 10,000 iterations do not reach the target. Ctrl-C tells what was reached, with 130.
    """
    from cluster.hands.solve import solve as solve_situation

    solution, exit_code = solve_situation(
        board=board,
        pot_half=pot_half,
        stack=stack,
        ranges=(range1, range2),
        bets=bets,
        target_pct=target_pct,
        iterations=iterations,
        variant=variant,
        values=values,
        runs=runs,
        quiet=as_json,
    )
    if as_json:
        print_json(solution)
    if exit_code:
        raise typer.Exit(exit_code)
