"""`tamen datagen …`: training data for poker, and what it is drawn from."""

import functools
from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster.cli.verbs import AsJson, Runs, add_verb, print_json
from configs.names import DATAGEN_FOLDER, preset_names

datagen = typer.Typer(
    help="Make training data for poker, and see how it is played.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
verb = functools.partial(add_verb, datagen)

Profile = Annotated[
    str | None,
    typer.Option(
        help=f"one of {', '.join(preset_names(DATAGEN_FOLDER))} (default: the run's settings, or testing)",
        metavar="PROFILE",
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value, such as target_pct=0.25", metavar="SETTING")
]
Name = Annotated[
    str | None, typer.Option(help="what the run is called (default: as the profile)", metavar="RUN")
]
Engine = Annotated[Literal["local", "ray"], typer.Option(help="who does the work: processes here, or Ray")]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray to join: auto or HOST:PORT; local: one of its own", envvar="RAY_ADDRESS", metavar="ADDRESS"
    ),
]
Plain = Annotated[bool, typer.Option("--plain", help="plain lines instead of a bar")]


@verb
def generate(
    settings: Overrides = None,
    profile: Profile = None,
    samples: Annotated[int | None, typer.Option(help="samples to learn from", min=1, metavar="N")] = None,
    validation_samples: Annotated[
        int | None, typer.Option(help="samples to judge by", min=0, metavar="N")
    ] = None,
    cfr_iters: Annotated[
        int | None,
        typer.Option(help="iterations of each, instead of a target", min=1, metavar="N"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="analytics as JSON, whose bet sizes are used; or a folder, for the newest in it",
            metavar="FILE",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="begin without being asked")] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="set samples aside that were made with other settings")
    ] = False,
    name: Name = None,
    engine: Engine = "local",
    address: Address = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
    plain: Plain = False,
) -> None:
    """Draw situations of poker and solve them, for networks to learn from.

    Interrupt it as you like: the same command goes on. Exit code 2 when a street waits for a network that is not named.
    """
    from cluster.cli.addresses import cluster_to_join
    from cluster.hands.generate import Asked, generate, resolve_datagen
    from cluster.hands.plan import why_missing
    from cluster.run.run_folder import run_folder

    folder = run_folder(runs, name or profile or "testing")
    typed = {"samples": samples, "validation_samples": validation_samples, "cfr_iterations": cfr_iters}
    resolved = resolve_datagen(profile, settings or [], folder, typed=typed, analytics=config)
    asked = Asked(
        yes=yes,
        anew=anew,
        engine=engine if engine == "ray" else None,
        address=cluster_to_join(address) if engine == "ray" else None,
        runs=runs,
        plain=plain,
        quiet=as_json,
    )
    told = generate(resolved, folder, asked)
    if as_json:
        print_json(told)
    if told["stopped"]:
        raise typer.Exit(130)
    if told["missing"]:
        raise why_missing(told["missing"], folder.typed)


@verb
def audit(
    name: Annotated[str, typer.Argument(help="a run of `datagen generate`", metavar="RUN")],
    share: Annotated[
        float, typer.Option(help="share of the samples, at least one of each file", min=0.0, max=1.0)
    ] = 0.01,
    seed: Annotated[int, typer.Option(help="of the choice", min=0, metavar="N")] = 0,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Solve some samples again, and see that every byte comes out the same. Exit code 1 when one does not.

    Where a network was asked values need only be nearly the same.
    """
    from cluster.hands.generate import audit_samples
    from cluster.run.run_folder import run_folder

    report = audit_samples(run_folder(runs, name), runs=runs, share=share, seed=seed, quiet=as_json)
    if as_json:
        print_json(report)
    if report["differing"]:
        raise typer.Exit(1)


@verb
def diagnose(
    samples: Annotated[int, typer.Option(help="how many are made", min=1, metavar="N")] = 20,
    cfr_iters: Annotated[int, typer.Option(help="iterations of each", min=1, metavar="N")] = 1_000,
    config: Annotated[
        Path | None, typer.Option(help="analytics as JSON that are to take effect", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell where the time of a sample goes, what more workers bring, and whether settings take effect."""
    from cluster.hands.diagnose import diagnose

    report = diagnose(samples=samples, cfr_iterations=cfr_iters, analytics=config, quiet=as_json)
    if as_json:
        print_json(report)
    if report["problems"]:
        raise typer.Exit(1)


@verb
def analyze_hands(
    logs: Annotated[
        list[str], typer.Argument(help="logs of hands, plain or .gz, as ACPC programs write", metavar="LOGS…")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="JSON file, or a folder for one with a stamp (default: only count)", metavar="FILE"
        ),
    ] = None,
    raises: Annotated[
        Literal["by", "round", "total"] | None,
        typer.Option(
            help="what r200 says: chips on top of a call, or put in in this round, or in all"
            " (default: what the results say)"
        ),
    ] = None,
    blinds: Annotated[
        str | None, typer.Option(help="such as 50/100 (default: what the results say)", metavar="SMALL/BIG")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell on which streets players decide and how large they bet.

    Exit code 1 when lines were set aside, or a file could not be read whole; the rest was.
    """
    from cluster.hands.analyze import analyze_logs

    counts = analyze_logs(logs, out, raises=raises, blinds=blinds, quiet=as_json)
    if as_json:
        print_json(counts)
    if counts["set_aside"] or counts["files_set_aside"]:
        raise typer.Exit(1)
