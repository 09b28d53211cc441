"""A supervisor as a program of its own, `python -m engines.service FOLDER`: without Ray, and without a terminal.

SIGTERM ends it with its daemons; SIGUSR1 ends it alone, so that another can take them over.
"""

import signal
import sys
import time
from pathlib import Path
from types import FrameType

from configs.engines import ENGINES
from core.errors import TamenError
from engines.supervisor import Supervisor

STEP_SECONDS = 0.1


def serve(folder: Path) -> None:
    """Supervise the engines of `folder`, as its config.yaml says, until a signal ends it.

    Raises:
        UsageError: see `Supervisor`.
    """
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, note)
    with Supervisor(ENGINES.load_file(folder / "config.yaml"), folder, tell=_tell) as supervisor:
        while not asked:
            supervisor.step()
            time.sleep(STEP_SECONDS)
        if asked[0] != signal.SIGUSR1:
            supervisor.stop()


def _tell(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
    sys.stdout.flush()


def main() -> None:
    """Serve the folder on the command line; what is wrong with it is the last line of the output."""
    try:
        serve(Path(sys.argv[1]))
    except TamenError as error:
        _tell(f"{error.what}: {error.why}")
        sys.exit(1)


if __name__ == "__main__":
    main()
