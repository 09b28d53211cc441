"""A daemon for tests: `fake_daemon.py -p PORT [--mood MOOD]`. It takes one command a connection.

Moods: well; crash (exits 3 after its start); late:S (listens after S seconds); and those that a file `mood` in its
folder `--room` may hold while it runs: well, hang (answers nothing), garbage, half (closes inside a line), busy.
"""

import argparse
import os
import socket
import sys
import threading
import time
from pathlib import Path

STATUS = """FAKE DAEMON STATUS
Active games: {active}
Total games played: {played}
Memory: 10MB / 20MB
Max concurrent: 10
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-p", type=int, required=True)
    parser.add_argument("--mood", default="well")
    parser.add_argument("--room", type=Path)
    parser.add_argument("--greets", action="store_true", help="whatever is not STATUS, as other programs do")
    parser.add_argument("--stubborn", action="store_true", help="goes on when it cannot listen, as Forge may")
    given = parser.parse_args()
    print(f"fake daemon {os.getpid()} on {given.p}, {given.mood}", file=sys.stderr, flush=True)
    if given.mood == "crash":
        print("java.lang.OutOfMemoryError: Java heap space", file=sys.stderr, flush=True)
        sys.exit(3)
    if given.mood.startswith("late:"):
        time.sleep(float(given.mood.removeprefix("late:")))
    try:
        Daemon(given.room, greets=given.greets).serve(given.p)
    except OSError:
        if not given.stubborn:
            raise
        threading.Event().wait()


class Daemon:
    """Answers each connection in a thread of its own."""

    def __init__(self, room: Path | None, *, greets: bool = False) -> None:
        self._greets = greets
        self._mood_file = None if room is None else room / "mood"
        self._played = 0

    def serve(self, port: int) -> None:
        with socket.create_server(("127.0.0.1", port)) as server:
            while True:
                connection, _ = server.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            command = connection.makefile("r").readline().strip()
            mood = self._mood()
            if mood == "hang":
                threading.Event().wait()
            elif mood == "garbage":
                connection.sendall(b"\xff\xfe nonsense\n" * 5)
            elif mood == "half":
                connection.sendall(b"FAKE")
            elif command == "STATUS":
                text = STATUS.format(active=int(mood == "busy"), played=self._played)
                connection.sendall(text.encode())
            elif self._greets:
                connection.sendall(b"220 hello\n")
            elif command.startswith("NEWGAME"):
                self._played += 1
                connection.sendall(b"GAME_RESULT: Draw in 1ms\n")

    def _mood(self) -> str:
        if self._mood_file is None or not self._mood_file.exists():
            return "well"
        return self._mood_file.read_text().strip()


if __name__ == "__main__":
    main()
