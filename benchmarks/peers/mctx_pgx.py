"""A peer that searches many positions at a time: pgx's connect four and mctx's Gumbel search, all of it jitted.

    PEERS/mctx_pgx/bin/python -m benchmarks.peers.mctx_pgx [--batch 32,64,128,256] [--processes 1,2] [--seconds 20]

Run it from the checkout, in an environment of its own (README.md beside it). The network has the shape of tamen's, 3×3
convolutions in residual blocks with a policy and a value head, but is written in JAX. Search is in lockstep with fixed
shapes: each simulation evaluates one row of every game, also where the game is over, so a move always costs
simulations + 1 rows. XLA shares one batch out among threads; a process for each core may do better, so both are tried.
"""

import functools
from importlib.metadata import version

import jax
import jax.numpy as jnp
import mctx
import pgx

from benchmarks.peers.measuring import OPENING_PLIES, Task, Work, run_peer, usable_cores


def make_network(key, *, planes: int, cells: int, actions: int, blocks: int, channels: int) -> dict:
    """Return random weights; kernels are [height, width, in, out]."""
    keys = iter(jax.random.split(key, 2 * blocks + 6))

    def kernel(size: int, inputs: int, outputs: int):
        scale = (size * size * inputs) ** -0.5
        return scale * jax.random.normal(next(keys), (size, size, inputs, outputs))

    return {
        "stem": kernel(3, planes, channels),
        "blocks": [(kernel(3, channels, channels), kernel(3, channels, channels)) for _ in range(blocks)],
        "policy": (kernel(1, channels, 2), kernel(1, 2 * cells, actions)[0, 0]),
        "value": (kernel(1, channels, 1), kernel(1, cells, 64)[0, 0], kernel(1, 64, 1)[0, 0]),
    }


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def forward(weights: dict, observation):
    """Return (logits [B, A], values [B]) of observations [B, H, W, planes]."""
    x = jax.nn.relu(convolve(observation.astype(jnp.float32), weights["stem"]))
    for first, second in weights["blocks"]:
        x = jax.nn.relu(x + convolve(jax.nn.relu(convolve(x, first)), second))
    policy, to_logits = weights["policy"]
    value, to_hidden, to_value = weights["value"]
    logits = jax.nn.relu(convolve(x, policy)).reshape(len(x), -1) @ to_logits
    hidden = jax.nn.relu(jax.nn.relu(convolve(x, value)).reshape(len(x), -1) @ to_hidden)
    return logits, jnp.tanh(hidden @ to_value)[:, 0]


def make_move(env, simulations: int):
    """Return a jitted function that plays one searched move in every game and begins those that end at `openings`."""
    step = jax.vmap(env.step)

    def recurrent(weights, key, action, state):
        mover = state.current_player
        state = step(state, action)
        logits, value = forward(weights, state.observation)
        logits = jnp.where(state.legal_action_mask, logits, jnp.finfo(logits.dtype).min)
        reward = jnp.take_along_axis(state.rewards, mover[:, None], axis=1)[:, 0]
        value = jnp.where(state.terminated, 0.0, value)
        discount = jnp.where(state.terminated, 0.0, -1.0)
        return mctx.RecurrentFnOutput(
            reward=reward, discount=discount, prior_logits=logits, value=value
        ), state

    @jax.jit
    def move(weights, state, openings, key):
        logits, value = forward(weights, state.observation)
        found = mctx.gumbel_muzero_policy(
            weights,
            key,
            mctx.RootFnOutput(prior_logits=logits, value=value, embedding=state),
            recurrent,
            simulations,
            invalid_actions=~state.legal_action_mask,
        )
        after = step(state, found.action)
        return choose(after.terminated | after.truncated, openings, after)

    return move


def make_openings(env, key, batch: int):
    """Return `batch` positions after 0 to `OPENING_PLIES` random moves that leave the game undecided."""
    step = jax.vmap(env.step)
    init_key, length_key, key = jax.random.split(key, 3)
    first = jax.vmap(env.init)(jax.random.split(init_key, batch))
    lengths = jax.random.randint(length_key, (batch,), 0, OPENING_PLIES + 1)

    def play(ply, state):
        logits = jnp.where(state.legal_action_mask, 0.0, -jnp.inf)
        after = step(state, jax.random.categorical(jax.random.fold_in(key, ply), logits))
        return choose(ply < lengths, after, state)

    state = jax.lax.fori_loop(0, OPENING_PLIES, play, first)
    return choose(state.terminated, first, state)


def choose(condition, states, others):
    """Return, row by row, the state of `states` where `condition` [B] holds and that of `others` elsewhere."""

    def pick(state, other):
        return jnp.where(condition.reshape((-1,) + (1,) * (state.ndim - 1)), state, other)

    return jax.tree_util.tree_map(pick, states, others)


class SelfPlay:
    """Plays `task.batch` games side by side."""

    def __init__(self, task: Task) -> None:
        env = pgx.make("connect_four")
        opening_key, network_key, self._key = jax.random.split(jax.random.PRNGKey(0), 3)
        self._openings = jax.jit(functools.partial(make_openings, env, batch=task.batch))(opening_key)
        self._states = self._openings
        height, width, planes = self._states.observation.shape[1:]
        self._weights = make_network(
            network_key,
            planes=planes,
            cells=height * width,
            actions=env.num_actions,
            blocks=task.blocks,
            channels=task.channels,
        )
        self._move, self._forward = make_move(env, task.simulations), jax.jit(forward)
        self._task = task

    def play_moves(self) -> tuple[int, int]:
        """Search and play one move in every game; return how many, and how many rows were evaluated for that."""
        self._key, key = jax.random.split(self._key)
        self._states = jax.block_until_ready(self._move(self._weights, self._states, self._openings, key))
        return self._task.batch, self._task.batch * (self._task.simulations + 1)

    def evaluate(self) -> int:
        """Evaluate a batch of positions; return how many."""
        jax.block_until_ready(self._forward(self._weights, self._openings.observation))
        return self._task.batch


def prepare(task: Task) -> Work:
    games = SelfPlay(task)
    return Work(play=games.play_moves, evaluate=games.evaluate)


def peer_name() -> str:
    return f"pgx {pgx.__version__} + mctx {version('mctx')}"


if __name__ == "__main__":
    run_peer(
        "benchmarks.peers.mctx_pgx",
        prepare,
        peer=peer_name,
        description=__doc__,
        batches=[32, 64, 128, 256],
        processes=sorted({1, len(usable_cores())}),
    )
