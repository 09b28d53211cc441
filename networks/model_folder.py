"""A published model as a folder: the weights, the configuration and a card for people. Needs no torch.

model.safetensors   everything; the other two can be written from it
config.json         the architecture, for other programs
README.md           the model card
"""

import json
from collections.abc import Mapping
from pathlib import Path

from core.environments import EnvironmentSpec
from core.files import write_atomic
from core.hands import HandValueSpec
from core.messages import BoardSpec
from networks.weights import Weights, network_parts

WEIGHTS_FILE = "model.safetensors"

_BOARD_INTERFACE = """\
**Input** `cells`, int8 [B, {cells}], rows from the top left: 1 for a stone of the player to move, -1 for the
other's, 0 for an empty cell. **Output** `policy`, a logit for each move, illegal ones included, and `value` in
[-1, 1], the expected outcome; both from the view of the player to move."""

_ENVIRONMENT_INTERFACE = """\
**Input** `observation`, {dtype} [{shape}], as the environment gives it: scales are part of the weights.
**Output** `policy`, {policy}, and `value`, the expected discounted sum of raw rewards to come."""

_HANDS_INTERFACE = """\
H = {hands} hands are those that the board does not block, the weakest first; player 0 acts first. **Input** `pot`,
float32 [B], what each player has put in in parts of the stack; `ranges`, float16 [B, 2, H], the mass of each hand of
both players in units of their mean; `showdown`, float16 [B, 2, H], what each hand would win in a showdown at once.
**Output** `values`, float16 [B, 2, H], counterfactual values in units of `pot` for masses that sum to 1."""


def save_model(folder: Path, weights: Weights, *, facts: Mapping[str, str]) -> None:
    """Write a model folder; an older model in it is replaced, its weights last and in one step.

    `facts` is what the card tells of how it was made and measured, in the order given.

    Raises:
        DataError: when the weights are of a network that this program does not know.
        OSError: when it cannot be written; the weights that were there still are.
    """
    config = {
        "model": weights.model,
        "version": weights.version,
        "game": weights.game,
        "network": weights.network,
        "digest": weights.digest,
    }
    write_atomic(folder / "README.md", model_card(weights, facts).encode())
    write_atomic(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    write_atomic(folder / WEIGHTS_FILE, weights.to_bytes())


def model_card(weights: Weights, facts: Mapping[str, str]) -> str:
    """Return the Markdown page that tells what the model is, takes and gives.

    Raises:
        DataError: when the weights are of a network that this program does not know.
    """
    spec, config = network_parts(weights.network)
    if isinstance(spec, BoardSpec):
        purpose = f"plays {weights.game}, trained from self-play"
        size = f"{config.blocks} blocks × {config.channels} channels"
        task = {"board": f"{spec.height} × {spec.width}"}
        interface = _BOARD_INTERFACE.format(cells=spec.height * spec.width)
    elif isinstance(spec, HandValueSpec):
        purpose = f"tells what hands of {weights.game} are worth, trained on solved situations"
        size = _layers(config.layers)
        task = {"street": spec.street}
        interface = _HANDS_INTERFACE.format(hands=spec.hands)
    else:
        purpose = f"acts in {weights.game}, trained from rollouts"
        size = _layers(config.layers)
        task = {"observation": _times(spec.observation_shape), "actions": _actions(spec)}
        interface = _environment_interface(spec)
    numbers = sum(tensor.size for tensor in weights.tensors.values())
    rows = {
        "game": weights.game,
        **task,
        "version": str(weights.version),
        "architecture": f"{weights.network['kind']}, {size}, {numbers:,} parameters",
        "digest": f"`{weights.digest}`",
        **facts,
    }
    table = "\n".join(f"| {_cell(name)} | {_cell(text)} |" for name, text in rows.items())
    return f"""---
library_name: tamen
license: apache-2.0
---
# {weights.model}

A network that {purpose} by tamen.

| | |
|---|---|
{table}

{interface}

The parameters are float32 in `model.safetensors`, readable by any safetensors library.
"""


def _layers(units: tuple[int, ...]) -> str:
    return f"layers of {' and '.join(map(str, units))} units"


def _actions(spec: EnvironmentSpec) -> str:
    if spec.actions.kind == "gaussian":
        return f"{spec.actions.sizes[0]} real numbers"
    return " and ".join(f"one of {size}" for size in spec.actions.sizes)


def _environment_interface(spec: EnvironmentSpec) -> str:
    if spec.actions.kind == "gaussian":
        policy = "the mean of each number, then the logarithm of the standard deviation of each"
    else:
        policy = "a logit for each choice"
    if spec.masked:
        policy += "; the last numbers of an observation tell which may be chosen, 1 or 0"
    return _ENVIRONMENT_INTERFACE.format(
        dtype=spec.observation_dtype,
        shape=", ".join(["B", *map(str, spec.observation_shape)]),
        policy=f"float32 [B, {spec.actions.num_policy}], {policy}",
    )


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "a number"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
