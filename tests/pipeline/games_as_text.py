"""Games of hex for tests: random ones, and their lines as `preprocess` leaves them."""

import json
from pathlib import Path

import numpy as np

from core.files import digest
from core.seeds import derive_rng
from games.hex import Hex


def random_game(size: int, rng: np.random.Generator) -> tuple[list[int], int]:
    """Return the moves of a game that may have been broken off, and who won: 1 blue, -1 red, 0 nobody yet."""
    hexes = Hex(size)
    states = hexes.new_states(1)
    row = np.zeros(1, np.int64)
    hexes.new(states, row)
    moves: list[int] = []
    for move in rng.permutation(size * size)[: rng.integers(0, size * size + 1)].tolist():
        hexes.play(states, row, np.array([move]), row)
        moves.append(move)
        if hexes.outcome(states, row)[0][0]:
            return moves, 1 if len(moves) % 2 else -1
    return moves, 0


def line_of(size: int, moves: list[int], winner: int) -> str:
    hexes = Hex(size)
    tag = {1: " b", -1: " r", 0: ""}[winner]
    return f"#{size},{''.join(hexes.action_name(move) for move in moves)}{tag}\n"


def random_text(games: int, *, size: int = 5, seed: int = 0) -> bytes:
    """Return the lines of so many different games, none of which is another one turned by 180°."""
    rng = derive_rng(seed, "text")
    lines: dict[tuple[int, ...], str] = {}
    while len(lines) < games:
        moves, winner = random_game(size, rng)
        turned = [size * size - 1 - cell for cell in moves]
        lines[min(tuple(moves), tuple(turned))] = line_of(size, moves, winner)
    return "".join(lines.values()).encode()


def write_cleaned(folder: Path, texts: dict[str, bytes]) -> None:
    """Write files such as {"hex5_000": lines} with a manifest, as `preprocess` does."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.trmph").write_bytes(text)
    files = [
        {"name": f"{name}.trmph", "game": name.split("_")[0], "digest": digest(text)}
        for name, text in texts.items()
    ]
    (folder / "manifest.json").write_text(json.dumps({"schema": 1, "files": files}))
