"""What docs/engines.md tells runs as it stands there."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.external.games import Order, play_games
from configs.engines import ENGINES
from engines.book import GameBook, Plan
from engines.forge_decisions import Decision
from engines.forge_protocol import Outcome
from engines.ports import free_port
from engines.tickets import Played, Ticket
from engines.watched_games import game_line, write_shard

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "engines.md").read_text()
PATIENCE_SECONDS = 60


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)


def block(kind: str, holding: str) -> str:
    return next(text for text in blocks(kind) if holding in text)


def attached(folder: Path) -> Path:
    """Put program and file of the page into `folder`, as it says; return the file."""
    program = folder / "card-daemon"
    program.write_text(block("python", "socketserver"))
    program.chmod(0o700)
    file = folder / "cards.yaml"
    file.write_text(block("yaml", "card-daemon"))
    return file


@pytest.mark.system
def test_a_program_of_ten_lines_is_attached_by_a_file_of_ten_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = ENGINES.override(ENGINES.load_file(attached(tmp_path)), ["engine.base_port=25_700"])
    order = Order(
        config=config,
        plan=Plan(games=100, decks=("a", "b")),
        folder=tmp_path / "out",
        runs=tmp_path / "runs",
    )
    result = play_games(order, engine="local", quiet=True)
    assert (result["finished"], result["endings"], result["retried"]) == (100, {"first": 100}, {})


def test_the_program_outlives_what_is_no_command(tmp_path: Path) -> None:
    attached(tmp_path)
    port = free_port(25_800)
    with subprocess.Popen(
        [sys.executable, "card-daemon", "--port", str(port)], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as program:
        try:
            said = [asked(port, line) for line in (b"", b"\xff\n", b"STATUS\n", b"NEWGAME a b\n", b"DANCE\n")]
        finally:
            program.kill()
        assert program.communicate(timeout=PATIENCE_SECONDS) == (None, "")
    unknown = "ERROR: Unknown command"
    assert said == [unknown, unknown, "MY STATUS", "GAME_RESULT: Ai(1)-red won in 12ms", unknown]


def asked(port: int, data: bytes) -> str:
    """Send `data` and no more, as soon as somebody listens; return the first line of the answer."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                return connection.makefile().readline().strip()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "nobody listens"
            time.sleep(0.02)


def test_every_other_piece_of_python_runs(tmp_path: Path) -> None:
    decision = Decision("choose_cards", 0, 1, 3, "MAIN1", {}, {}, (2,))
    outcome = Outcome(winner=0, milliseconds=7, seed=1, timed_out=False, error=None, decisions=(decision,))
    folder = tmp_path / "games" / "first"
    write_shard(folder, "shard", [game_line(Ticket(4, 1, ("a", "b"), 1), outcome)])
    with GameBook(folder, Plan(games=10, decks=("a", "b"), mode="observe")) as book:
        book.exchange("here", 1, [Played(4, 1, "first", 0.1, record="shard")], want=0, hold_seconds=1)
    pieces = [text for text in blocks("python") if "socketserver" not in text]
    assert pieces
    said = [
        subprocess.run(
            [sys.executable, "-c", piece],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_SECONDS,
        ).stdout
        for piece in pieces
    ]
    assert "4 1 choose_cards (2,)\n" in said


def test_every_setting_is_in_the_table() -> None:
    missing = [name for name in ENGINES.setting_names() if f"`{name}`" not in TEXT]
    assert not missing
