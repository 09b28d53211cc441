"""`tamen engines imitate`: watched games become rows, to which a network is fitted that chooses as was chosen there.

runs/<name>/
  imitation.yaml       every setting, resolved;  config.yaml  what it says of the network
  log.txt              what happened, line by line
  decisions/           rows, see replay.decision_shards;  taken.json  which files of games are in them
  imitation/<digest>/  fitting.jsonl, a line for each mini-epoch, and checkpoints, of the rows with that digest
  imitation/result.json  what came of it
  models/              of the finished network
"""

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster import environment
from cluster.cli.progress import StepDisplay
from cluster.cli.stopping import stop_request
from cluster.cli.terminal import console, duration, percent, whole
from cluster.external.watched_rows import Around, RowMaker, Watched
from cluster.run.parts import MODEL, device, make_store
from cluster.run.run_folder import RunFolder, check_run, configure_run, lock_run
from cluster.training.fit_step import StorePublisher
from cluster.training.train import text_log
from configs.imitation import IMITATION_NETWORK, IMITATIONS, ImitationConfig
from configs.loading import dump
from configs.schema import LearnerConfig, PolicyGradientConfig, ReplayConfig, RunConfig
from core.errors import UsageError
from core.files import write_atomic
from engines.forge_decisions import KINDS
from replay.decision_shards import decisions_digest

GAME = "gym:engines.forge_environment:Forge-v0"
"""The environment whose network sees such rows."""
_SETTING = re.compile(r"[a-z_]+(\.[a-z_]+)?=")
SETTINGS_FILE = "imitation.yaml"
RESULT_FILE = "imitation/result.json"


def split_words(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the folders and the settings among what was typed. Raises UsageError when there is no folder."""
    settings = [word for word in words if _SETTING.match(word)]
    folders = [Path(word) for word in words if word not in settings]
    if not folders:
        raise UsageError(
            "no folder of games is named",
            why="all that was typed are settings",
            fix="name one that `tamen engines play … --observe --out FOLDER` has filled",
        )
    return folders, settings


def resolve_imitation(overrides: Sequence[str], seed: int | None) -> ImitationConfig:
    """Return the defaults with what was typed for them. Raises UsageError for what is no setting or value."""
    typed = [*overrides, *([] if seed is None else [f"seed={seed}"])]
    return IMITATIONS.override(ImitationConfig(), typed)


def show_plan(
    config: ImitationConfig, folder: RunFolder, watched: Sequence[Watched], *, quiet: bool
) -> dict[str, Any]:
    """Print the settings unless `quiet`, and what would be learnt from; nothing is changed.

    Returns:
        {"run", "folder", "new", "games": by folder, "settings"}, plain JSON.

    Raises:
        UsageError: when it would not begin.
    """
    _check(folder, config)
    new = not folder.exists()
    if not quiet:
        console().print(dump(config), end="", markup=False)
        begins = f"{folder.typed}: {'new run' if new else 'goes on'} in {folder.root}"
        for line in (begins, *map(_in_words, watched)):
            console().print(f"# {line}", markup=False, soft_wrap=True)
    games = {str(each.folder): each.games for each in watched}
    settings = config.model_dump(mode="json")
    return {"run": folder.typed, "folder": str(folder.root), "new": new, "games": games, "settings": settings}


def imitate_games(
    config: ImitationConfig, folder: RunFolder, watched: Sequence[Watched], *, quiet: bool, plain: bool
) -> dict[str, Any]:
    """Make rows of games that have none yet and fit to all, to the end or the first Ctrl-C; the same call goes on.

    Returns:
        {"run", "folder", "finished", "games", "new_games", "passed_over", "damaged", "missing"}, and of a fitting
        {"rows", "steps", "seconds", "version", "lost", "validation"}; plain JSON.

    Raises:
        UsageError: for a folder begun with other settings or of another kind, or nothing to learn from.
        TamenError: when it cannot be done; what could be done is kept.
    """
    _check(folder, config)
    began = time.monotonic()
    target = console(stderr=quiet)
    lock = lock_run(folder)
    try:
        log = text_log(folder.log_file)
        with stop_request() as stop, StepDisplay(target, plain=plain) as display:

            def say(line: str) -> None:
                display.say(line)
                log.info("%s", line)

            around = Around(display.begin, display.progress, say, lambda: stop.requested)
            result = _imitate(config, folder, watched, around)
    finally:
        lock.release()
    if not quiet:
        _say_goodbye(result, config, watched, time.monotonic() - began)
    return result


def _imitate(
    config: ImitationConfig, folder: RunFolder, watched: Sequence[Watched], around: Around
) -> dict[str, Any]:
    files = [folder.root / SETTINGS_FILE, folder.config_file]
    before = {file: file.read_bytes() for file in files if file.exists()}
    rows = RowMaker(watched, folder.root / "decisions", around)
    write_atomic(files[0], dump(config).encode())
    configure_run(folder, _run_config(config))
    for each in watched:
        around.say(_in_words(each))
    around.begin("games to rows")
    try:
        taken = rows.run()
        result: dict[str, Any] = {
            "run": folder.typed,
            "folder": str(folder.root),
            "finished": False,
            "games": taken.games,
            "new_games": taken.new,
            "passed_over": taken.passed_over,
            "damaged": taken.damaged,
            "missing": taken.missing,
        }
        if not taken.finished:
            return result
        around.say(f"{whole(taken.games)} games are rows, {whole(taken.new)} of them new")
        result |= _fit(config, folder, around)
    except UsageError:
        for file, settings in before.items():
            write_atomic(file, settings)  # those that were refused are not the settings of what is there
        raise
    if result["finished"]:
        write_atomic(folder.root / RESULT_FILE, (json.dumps(result) + "\n").encode())
        _write_card(folder, watched[0].source, result)
    return result


def _fit(config: ImitationConfig, folder: RunFolder, around: Around) -> dict[str, Any]:
    """Fit to the rows of the run, and return what `imitate_games` says of it."""
    import torch

    from learner import imitation, offline

    torch.set_num_threads(1)  # steps of such nets are no faster with two
    environment.keep_freed_memory()
    rows = folder.root / "decisions"
    place = _place_of_fit(folder, decisions_digest(rows), around.say)
    fitting = imitation.Imitation(
        folder=rows,
        game=GAME,
        network=config.network,
        learner=config.learner,
        settings=config.fit,
        seed=config.seed,
        model=MODEL,
    )
    around.begin("fitting")
    counts = imitation.imitate(
        fitting,
        place,
        offline.Around(
            publisher=StorePublisher(make_store(folder)),
            progress=around.progress,
            should_stop=around.should_stop,
            log=around.say,
            device=device(),
        ),
    )
    told = ("finished", "rows", "steps", "seconds", "version", "lost")
    judged = counts["best"] and counts["best"]["validation"]
    if judged is not None:
        judged["kinds"] = {KINDS[int(kind)]: shares for kind, shares in judged["kinds"].items()}
    return {name: counts[name] for name in told} | {"validation": judged}


def _place_of_fit(folder: RunFolder, rows: str, say: Callable[[str], None]) -> Path:
    """Return where a network is fitted to the rows with this digest; what was fitted to others is taken away."""
    place = folder.root / "imitation" / rows[:16]
    for other in (path for path in place.parent.glob("*/") if path != place):
        say("there are other games than before: a new network is fitted")
        shutil.rmtree(other)
    place.mkdir(parents=True, exist_ok=True)
    return place


def _check(folder: RunFolder, config: ImitationConfig) -> None:
    """Raise UsageError when the folder is that of another kind of run, or of another network."""
    others = ("datagen.yaml", "values.yaml", "pipeline.yaml")
    is_other = folder.exists() and not (folder.root / SETTINGS_FILE).exists()
    if is_other or any((folder.root / name).exists() for name in others):
        raise UsageError(
            f"run {folder.typed!r} is another kind of run",
            why=f"{folder.root} holds something else",
            fix="give this network another --name",
        )
    check_run(folder, _run_config(config))


def _run_config(config: ImitationConfig) -> RunConfig:
    batch = config.learner.batch_rows
    return RunConfig(
        game=GAME,
        seed=config.seed,
        network=config.network,
        learner=LearnerConfig(**config.learner.model_dump()),
        # Nothing is played: these let batches of any size pass.
        replay=ReplayConfig(samples_per_insert_slack_rows=max(20_000, batch)),
        policy_gradient=PolicyGradientConfig(algorithm="vtrace"),
    )


def _in_words(watched: Watched) -> str:
    files = "1 file" if len(watched.shards) == 1 else f"{whole(len(watched.shards))} files"
    return f"{whole(watched.games)} games of {watched.source} in {watched.folder}, in {files}"


def _foretold(validation: Mapping[str, Any]) -> str:
    return (
        f"{percent(validation['accuracy'], 1)} of its choices foretold, the usual one is right in"
        f" {percent(validation['majority_accuracy'], 1)}"
    )


def _write_card(folder: RunFolder, source: str, result: Mapping[str, Any]) -> None:
    """Put the newest weights with a card of how they were made into `model/`."""
    from networks.model_folder import save_model

    facts = {"imitates": source, "games": whole(result["games"]), "learner steps": whole(result["steps"])}
    if result["validation"] is not None:
        facts["on games kept apart"] = _foretold(result["validation"])
    save_model(folder.root / "model", make_store(folder).get(MODEL), facts=facts)


def _say_goodbye(
    result: Mapping[str, Any], config: ImitationConfig, watched: Sequence[Watched], seconds: float
) -> None:
    target = console()

    def say(line: str) -> None:
        target.print(line, markup=False, soft_wrap=True)

    if not result["finished"]:
        say("stopped; the same command goes on from here")
        return
    if lost := [
        f"{name.replace('_', ' ')} {whole(count)}" for name, count in result["lost"].items() if count
    ]:
        say(f"not learnt from: {', '.join(lost)}")
    if result["missing"]:
        say(f"{whole(result['missing'])} games are not in the files that should have them")
    validation = result["validation"]
    if validation is None:
        say("no games were kept apart to judge it by")
    else:
        say(
            f"{_foretold(validation)} ({whole(validation['rows'])} choices of {whole(validation['games'])} games kept"
            " apart)"
        )
    say(f"done in {duration(seconds)}; {result['folder']}/models has the network")
    layers = config.network.layers
    fits = "" if layers == IMITATION_NETWORK.layers else f" 'network.layers={list(layers)}'"
    say(
        f"next: tamen engines up {watched[-1].folder / 'config.yaml'}   and   "
        f"tamen train forge --weights {result['run']} --name {result['run']}-played{fits}"
    )
