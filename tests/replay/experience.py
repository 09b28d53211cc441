"""Small games and chunks of tic-tac-toe: sound in form, though nobody played them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import ReplayConfig
from core.seeds import derive_rng
from games.game import Game
from games.tic_tac_toe import TicTacToe
from replay.buffer import LocalObjects, ObjectStore, ReplayBuffer
from replay.records import Chunk, GameRecord

GAME = TicTacToe()
CONFIG = ReplayConfig(min_rows=4, capacity_rows=1_000_000, window_exponent=1, window_growth=1)
"""Keeps everything."""


def a_game(seq: int = 0, *, actor: int = 0, epoch: int = 0, game: str = "tic_tac_toe") -> GameRecord:
    """Return a game of five plies; the first was a random opening, the last three were searched in full."""
    rng = derive_rng(0, actor, epoch, seq)
    return GameRecord(
        run="test",
        game=game,
        actor=actor,
        epoch=epoch,
        seq=seq,
        actions=rng.permutation(9)[:5].astype(np.int16),
        outcome=float(rng.integers(-1, 2)),
        values=np.array([0, *rng.uniform(-1, 1, 4)], np.float32),
        recorded=np.array([False, False, True, True, True]),
        weights_versions=np.array([-1, 3, 3, 4, 4], np.int32),
        opening_plies=1,
    )


def a_chunk(
    seqs: Sequence[int] = (0, 1), *, actor: int = 0, epoch: int = 0, game: str = "tic_tac_toe"
) -> Chunk:
    """Return games with three rows each."""
    games = tuple(a_game(seq, actor=actor, epoch=epoch, game=game) for seq in seqs)
    rng = derive_rng(1, actor, epoch, *seqs)
    rows = 3 * len(games)
    weights = rng.uniform(0.1, 1, (rows, 9))
    columns = {
        "cells": rng.integers(-1, 2, (rows, 9)).astype(np.int8),
        "policy": (weights / weights.sum(axis=1, keepdims=True)).astype(np.float16),
        "policy_weight": np.ones(rows, np.float32),
        "outcome": np.repeat([record.outcome for record in games], 3).astype(np.float32),
        "search_value": rng.uniform(-1, 1, rows).astype(np.float32),
        "seq": np.repeat(np.array(seqs, np.int64), 3),
        "ply": np.tile(np.array([2, 3, 4], np.int16), len(games)),
        "weights_version": np.tile(np.array([3, 4, 4], np.int32), len(games)),
    }
    return Chunk(run="test", game=game, actor=actor, epoch=epoch, games=games, columns=columns)


def with_column(chunk: Chunk, name: str, column: np.ndarray) -> Chunk:
    return replace(chunk, columns={**chunk.columns, name: column})


def open_buffer(
    folder: Path,
    config: ReplayConfig = CONFIG,
    *,
    run: str = "test",
    game: Game = GAME,
    objects: ObjectStore | None = None,
    limited: bool = True,
) -> ReplayBuffer:
    return ReplayBuffer(
        folder, config, run=run, game=game, seed=5, objects=objects or LocalObjects(), limited=limited
    )


def same(one: Any, other: Any) -> bool:
    """Tell whether two structures are equal, arrays by dtype, shape and value."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or one != one)
