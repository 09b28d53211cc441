"""Data sets of made-up hex games, for tests of what is fitted to rows at rest."""

import json
from pathlib import Path

import numpy as np

from games.hex import Hex
from replay.shards import ShardAbout, pack_cells, write_shard

OPENING_PLIES = 4


def played(game: Hex, seed: int, *, tagged: bool = True) -> dict[str, np.ndarray]:
    """Return the rows of one game: an opening at random, then whoever moves takes the first empty cell he sees.

    So what is played, and who wins, follows from the position.
    """
    rng = np.random.default_rng(seed)
    states, root = game.new_states(1), np.zeros(1, np.int32)
    game.new(states, root)
    rows: list[tuple[np.ndarray, int, int]] = []
    while True:
        arrays, views = game.encode(states, root, np.zeros(1, np.int16))
        cells, view = arrays["cells"][0], game.views[views[0]]
        player = int(game.to_play(states, root)[0])
        if game.outcome(states, root)[0][0]:
            rows.append((cells, -1, player))
            break
        empty = np.flatnonzero(cells == 0)
        seen = int(rng.choice(empty) if len(rows) < OPENING_PLIES else empty[0])
        rows.append((cells, seen, player))
        game.play(states, root, np.array([int(np.flatnonzero(view == seen)[0])], np.int16), root)
    loser = rows[-1][2]
    count = len(rows)
    return {
        "stones": pack_cells(np.stack([cells for cells, _, _ in rows])),
        "action": np.array([action for _, action, _ in rows], np.int16),
        "outcome": np.array([(1 if player != loser else -1) * tagged for *_, player in rows], np.int8),
        "game": np.full(count, seed * 1_000_003 + 17, np.uint64),
        "ply": np.arange(count, dtype=np.int16),
        "plies": np.full(count, count - 1, np.int16),
    }


def make_data_set(
    folder: Path, *, games: int = 40, first: int = 0, shards: int = 6, size: int = 5, tagged: bool = True
) -> Path:
    """Write a data set as the pipeline's shuffle does, a tenth of its games kept apart, and return its folder."""
    game = Hex(size)
    files = []
    kept_apart = games // 10
    for side, seeds, count in (
        ("train", range(first + kept_apart, first + games), shards),
        ("validation", range(first, first + kept_apart), 1),
    ):
        parts = [played(game, seed, tagged=tagged) for seed in seeds]
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        order = np.random.default_rng(first).permutation(len(rows["game"]))
        for number, chosen in enumerate(np.array_split(order, count)):
            name = f"{side}/shuffled_{number:04d}.npz"
            (folder / side).mkdir(parents=True, exist_ok=True)
            about = ShardAbout(game.name, size * size, ())
            info = write_shard(folder / name, {key: column[chosen] for key, column in rows.items()}, about)
            files.append({"name": name, "rows": info.rows, "digest": info.digest})
    manifest = {
        "schema": 1,
        "game": game.name,
        "cells": size * size,
        "validation_share": 0.1,
        "files": files,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
