"""A Redis server of one's own, on this machine alone and with a password: for measurements and tests."""

import contextlib
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from control.locks import LockSetting, UnreachableError, parse_setting
from control.redis_locks import RedisLocks
from core.errors import ClusterError

START_SECONDS = 30.0


class RedisServer:
    """Serves from `folder`, where each command is appended to a file, synced once a second, before the next start."""

    def __init__(self, folder: Path) -> None:
        self.password = secrets.token_hex(16)
        self.port = _free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        program = shutil.which("redis-server")
        if program is None:
            raise ClusterError(
                "there is no redis-server",
                why="none is on the path",
                fix="install it (on Debian: apt install redis-server), or leave redis out",
            )
        self._program = program

    @property
    def setting(self) -> LockSetting:
        return LockSetting("redis", parse_setting(f"redis://127.0.0.1:{self.port}").text, "served")

    def start(self) -> None:
        """Start, with what was kept, and wait until it answers. Raises ClusterError when it does not."""
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": self.password,
            "dir": self._folder,
            "appendonly": "yes",
            "save": '""',
            "logfile": self._folder / "redis.log",
        }
        text = "".join(f"{name} {value}\n" for name, value in settings.items())
        # By its input, so that the password is in no list of processes.
        self._process = subprocess.Popen(
            [self._program, "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.close()
        self._wait()

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_SECONDS)
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def forget(self) -> None:
        """Start it again with nothing of what it knew."""
        self.kill()
        shutil.rmtree(self._folder / "appendonlydir")
        self.start()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                RedisLocks(self.setting, password=self.password).close()
                return
            except UnreachableError:
                if time.monotonic() > deadline:
                    self.kill()
                    raise
            time.sleep(0.01)


@contextmanager
def serving(folder: Path) -> Iterator[RedisServer]:
    """Serve from `folder` until the block ends."""
    server = RedisServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
