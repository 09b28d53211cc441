"""Small chunks of tic-tac-toe, and of an environment: sound in form, though nobody played them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import ReplayConfig
from core.environments import ActionSpec, EnvironmentSpec
from core.seeds import derive_rng
from games.game import Game
from games.tic_tac_toe import TicTacToe
from replay.buffer import LocalObjects, ObjectStore, ReplayBuffer
from replay.experience import BoardExperience, RolloutExperience
from replay.records import Chunk, Episodes, GameRecord

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
        "step": np.tile(np.array([2, 3, 4], np.int32), len(games)),
        "weights_version": np.tile(np.array([3, 4, 4], np.int32), len(games)),
    }
    return Chunk(run="test", game=game, actor=actor, epoch=epoch, games=games, columns=columns)


UNROLL_STEPS = 4
ENVIRONMENT = EnvironmentSpec((2,), "float32", ActionSpec("categorical", (3,), scalar=True))
ROLLOUTS = RolloutExperience("gym:Toy-v0", ENVIRONMENT, unroll_steps=UNROLL_STEPS)


def a_rollout_chunk(first_seq: int = 0, *, rows: int = 3, actor: int = 0, epoch: int = 0) -> Chunk:
    """Return unrolls of four steps, in the first of which an episode ends."""
    rng = derive_rng(2, actor, epoch, first_seq)
    steps = (rows, UNROLL_STEPS)
    terminated, valid = np.zeros(steps, bool), np.ones(steps, bool)
    terminated[0, 1], valid[0, 2] = True, False
    columns = {
        "observation": rng.normal(size=(rows, UNROLL_STEPS + 1, 2)).astype(np.float32),
        "action": rng.integers(0, 3, (*steps, 1)),
        "log_prob": np.full(steps, -1.1, np.float32),
        "value": rng.normal(size=(rows, UNROLL_STEPS + 1)).astype(np.float32),
        "reward": np.ones(steps, np.float32),
        "terminated": terminated,
        "truncated": np.zeros(steps, bool),
        "valid": valid,
        "discounted_return": np.ones(steps, np.float32),
        "seq": np.arange(first_seq, first_seq + rows),
        "step": np.full(rows, 40, np.int32),
        "weights_version": np.full(rows, 2, np.int32),
    }
    episodes = Episodes(
        seq=np.array([first_seq], np.int64),
        total_reward=np.array([12.5], np.float32),
        steps=np.array([42], np.int32),
        seconds=np.array([0.5], np.float32),
    )
    return Chunk("test", ROLLOUTS.name, actor, epoch, columns, episodes=episodes)


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
    clock: Callable[[], float] = time.monotonic,
) -> ReplayBuffer:
    return ReplayBuffer(
        folder,
        config,
        run=run,
        experience=BoardExperience(game),
        seed=5,
        objects=objects or LocalObjects(),
        limited=limited,
        clock=clock,
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
