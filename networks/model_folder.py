"""A published model as a folder: the weights, the configuration and a card for people. Needs no torch.

model.safetensors   everything; the other two can be written from it
config.json         the architecture, for other programs
README.md           the model card
"""

import json
from collections.abc import Mapping
from pathlib import Path

from core.files import write_atomic
from networks.weights import Weights

WEIGHTS_FILE = "model.safetensors"


def save_model(folder: Path, weights: Weights, *, facts: Mapping[str, str]) -> None:
    """Write a model folder; an older model in it is replaced, its weights last and in one step.

    `facts` is what the card tells of how it was made and measured, in the order given.

    Raises:
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
    """Return the Markdown page that tells what the model is, takes and gives."""
    board = weights.network["board"]
    parameters = sum(tensor.size for tensor in weights.tensors.values())
    rows = {
        "game": weights.game,
        "board": f"{board['height']} × {board['width']}",
        "version": str(weights.version),
        "architecture": f"{weights.network['kind']}, {weights.network['blocks']} blocks × "
        f"{weights.network['channels']} channels, {parameters:,} parameters",
        "digest": f"`{weights.digest}`",
        **facts,
    }
    table = "\n".join(f"| {_cell(name)} | {_cell(text)} |" for name, text in rows.items())
    return f"""---
library_name: tamen
license: apache-2.0
---
# {weights.model}

A network that plays {weights.game}, trained from self-play by tamen.

| | |
|---|---|
{table}

**Input** `cells`, int8 [B, {board["height"] * board["width"]}], rows from the top left: 1 for a stone of the
player to move, -1 for the other's, 0 for an empty cell. **Output** `policy`, a logit for each move, illegal
ones included, and `value` in [-1, 1], the expected outcome; both from the view of the player to move.

The parameters are float32 in `model.safetensors`, readable by any safetensors library.
"""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
