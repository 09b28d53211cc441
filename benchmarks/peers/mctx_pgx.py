"""The fastest peer on a CPU: self-play of connect four by pgx's rules and mctx's Gumbel search, all of it jitted.

    python mctx_pgx.py [--simulations 32] [--blocks 4] [--channels 64] [--batch 128] [--seconds 30]

It runs in an environment of its own (requirements.txt beside it) and prints one JSON object: `moves_per_s`, each
with the full number of simulations; `evals_per_s`; and `raw_per_s`, positions a second of nothing but forwards.
The network has the shape of tamen's: 3×3 convolutions in residual blocks, a policy and a value head.
"""

import argparse
import functools
import json
import time

import jax
import jax.numpy as jnp
import mctx
import pgx


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
    """Return a jitted function that plays one searched move in every game and begins anew those that end."""
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
    def move(weights, state, key):
        search_key, new_key = jax.random.split(key)
        logits, value = forward(weights, state.observation)
        found = mctx.gumbel_muzero_policy(
            weights,
            search_key,
            mctx.RootFnOutput(prior_logits=logits, value=value, embedding=state),
            recurrent,
            simulations,
            invalid_actions=~state.legal_action_mask,
        )
        after = step(state, found.action)
        ended = after.terminated | after.truncated
        fresh = jax.vmap(env.init)(jax.random.split(new_key, len(ended)))

        def take(new, old):
            return jnp.where(ended.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

        return jax.tree_util.tree_map(take, fresh, after)

    return move


def per_second(act, *, amount: int, seconds: float) -> float:
    """Return how much `act` does in a second, after two calls to warm up; each call does `amount`."""
    for _ in range(2):
        jax.block_until_ready(act())
    began, done = time.perf_counter(), 0
    while (taken := time.perf_counter() - began) < seconds:
        jax.block_until_ready(act())
        done += amount
    return done / taken


def measure(*, simulations: int, blocks: int, channels: int, batch: int, seconds: float) -> dict:
    env = pgx.make("connect_four")
    key = jax.random.PRNGKey(0)
    games = {"state": jax.jit(jax.vmap(env.init))(jax.random.split(key, batch)), "key": key}
    observation = games["state"].observation
    height, width, planes = observation.shape[1:]
    weights = make_network(
        key, planes=planes, cells=height * width, actions=env.num_actions, blocks=blocks, channels=channels
    )
    move, raw = make_move(env, simulations), jax.jit(forward)

    def play():
        games["key"], now = jax.random.split(games["key"])
        games["state"] = move(weights, games["state"], now)
        return games["state"].terminated

    moves = per_second(play, amount=batch, seconds=seconds)
    raw_per_s = per_second(functools.partial(raw, weights, observation), amount=batch, seconds=seconds / 4)
    return {
        "peer": f"pgx {pgx.__version__} + mctx",
        "simulations": simulations,
        "batch": batch,
        "moves_per_s": round(moves, 1),
        "evals_per_s": round(moves * (simulations + 1)),
        "raw_per_s": round(raw_per_s),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("simulations", 32), ("blocks", 4), ("channels", 64), ("batch", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=30.0)
    print(json.dumps(measure(**vars(parser.parse_args()))))
