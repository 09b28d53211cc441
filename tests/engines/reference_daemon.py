"""The reference daemon in a JVM of its own, for tests."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines.forge_client import Endpoint
from engines.reference.compile import compiled

JAVA = ("java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Small and soon started: tests play few games."""
PATIENCE_SECONDS = 30


@contextmanager
def reference_daemon(*flags: str, folder: Path) -> Iterator[tuple[Endpoint, subprocess.Popen[str]]]:
    """Start it on a free port, with its decks in `folder`; whatever it does, it is gone in the end."""
    command = [*JAVA, "-jar", str(compiled()), "daemon", "-p", "0", "--decks", str(folder), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            found = re.fullmatch(r"Daemon listening on port ([0-9]+)\n", first)
            assert found is not None, first
            yield Endpoint(int(found[1])), process
        finally:
            process.kill()
            process.wait(PATIENCE_SECONDS)
