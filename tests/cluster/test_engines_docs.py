"""The program and the file of docs/engines.md play as they stand there."""

import re
import sys
from pathlib import Path

import pytest

from cluster.engine_games import Order, play_games
from configs.engines import ENGINES
from engines.book import Plan

TEXT = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()
SERVE = """
import sys
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[2])), Daemon).serve_forever()
"""


def block(kind: str, holding: str) -> str:
    return next(text for text in re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL) if holding in text)


@pytest.mark.system
def test_a_program_of_ten_lines_is_attached_by_a_file_of_ten_lines(tmp_path: Path) -> None:
    program = tmp_path / "card-daemon"
    program.write_text(f"#!{sys.executable}\n{block('python', 'socketserver')}{SERVE}")
    program.chmod(0o700)
    file = tmp_path / "cards.yaml"
    file.write_text(block("yaml", "card-daemon").replace("/opt/cards", str(tmp_path)))
    config = ENGINES.override(ENGINES.load_file(file), ["engine.base_port=25_700"])
    order = Order(
        config=config,
        plan=Plan(games=100, decks=("a", "b")),
        folder=tmp_path / "out",
        runs=tmp_path / "runs",
    )
    result = play_games(order, engine="local", quiet=True)
    assert (result["finished"], result["endings"], result["retried"]) == (100, {"first": 100}, {})


def test_every_setting_is_in_the_table() -> None:
    missing = [name for name in ENGINES.setting_names() if f"`{name}`" not in TEXT]
    assert not missing
