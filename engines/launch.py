"""What is started for a daemon: its command line, environment and folder, checked before anything runs."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from configs.engines import EnginesConfig
from core.errors import UsageError
from core.files import digest
from engines.jvm import jar_command, screen_of
from engines.process import checked_command


@dataclass(frozen=True, slots=True)
class Launch:
    """What all daemons of a machine are started by.

    Attributes:
        words: the command, with places such as `{port}` in it.
        environment: beside `engines.process.ALWAYS_PASSED`.
        folder: in which they work; None: that of the supervisor.
    """

    words: tuple[str, ...]
    environment: dict[str, str]
    folder: str | None

    def digest(self) -> str:
        """Return what two launches have in common exactly when they start the same."""
        return digest(json.dumps(asdict(self), sort_keys=True).encode())

    def command(self, number: int, port: int, room: Path) -> list[str]:
        """Return the command of the daemon `number`; other braces in it stay as they are."""
        places = {"{port}": port, "{number}": number, "{room}": room.resolve(), "{screen}": screen_of(number)}
        command = list(self.words)
        for place, value in places.items():
            command = [word.replace(place, str(value)) for word in command]
        return command


def plan_launch(config: EnginesConfig) -> Launch:
    """Return how the daemons of `config` are started.

    Raises:
        UsageError: when it names no program, or when a program, jar, folder or variable is not there.
    """
    engine = config.engine
    if not engine.command and engine.jar is None:
        raise UsageError(
            "there is no program to run",
            why="neither engine.command nor engine.jar is set",
            fix="name one: tamen engines up forge.jar, or tamen engines up -- ./daemon -p {port}",
        )
    words = engine.command
    if engine.jar is not None:
        words = jar_command(config.java, Path(engine.jar), engine.arguments)
    folder = None if engine.folder is None else str(Path(engine.folder).resolve())
    checked_command(words, None if folder is None else Path(folder), engine=engine.name)
    if "/" in words[0] and folder is None:
        words = (str(Path(words[0]).resolve()), *words[1:])
    return Launch(words, {name: _value(name, value) for name, value in engine.environment.items()}, folder)


def daemon_count(config: EnginesConfig) -> int:
    """Return how many daemons serve: what was set, or all of this process's cores but two, at least one."""
    count = config.engine.count
    return max(1, len(os.sched_getaffinity(0)) - 2) if count == "auto" else count


def _value(name: str, value: str | None) -> str:
    if value is None:
        value = os.environ.get(name)
    if value is None:
        raise UsageError(
            f"the engines cannot be given {name}",
            why="engine.environment passes it on, and it is not set here",
            fix=f"export {name}=…, or write its value into engine.environment",
        )
    return value
