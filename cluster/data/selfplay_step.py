"""The step `selfplay` of a pipeline: games of a given model, as `tamen selfplay` plays them."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from cluster.run.models import FoundModel
from cluster.run.run_folder import RunFolder
from cluster.training.selfplay import play_into
from configs.pipeline import SelfplaySettings
from configs.schema import minimax_positions
from pipeline.contract import Context, Stopped

EVERY_PLY = 10_000
_OTHER_GAMES_OF_THE_SAME_KIND = ("games", "actors", "batch_rows", "cache_positions")
"""Settings that may change while games are played: those that are there are no worse for it."""


class SelfplayStep:
    """Plays with the model `found`; see `pipeline.contract.Step`. It asks no executor: actors play, on Ray or here.

    Args:
        seed: of the pipeline.
        run: name of the pipeline's run, which its games carry.
        engine, address, plain: as of `cluster.training.selfplay.play_into`.
    """

    name = "selfplay"
    needs: tuple[str, ...] = ()

    def __init__(
        self,
        settings: SelfplaySettings,
        found: FoundModel,
        *,
        seed: int,
        run: str,
        engine: Literal["ray", "local"],
        address: str | None,
        plain: bool,
    ) -> None:
        self._settings = settings
        self._found = found
        self._seed = seed
        self._run = run
        self._engine: Literal["ray", "local"] = engine
        self._address = address
        self._plain = plain

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "model": self._found.weights.digest,
            "seed": self._seed,
            **self._settings.model_dump(mode="json", exclude={"model"}),
        }

    def goes_on_from(self, settings: Mapping[str, Any]) -> bool:
        """Whether games played under other `settings` may stay, and others follow."""
        kind = {
            name: value for name, value in self.settings.items() if name not in _OTHER_GAMES_OF_THE_SAME_KIND
        }
        return all(settings.get(name) == value for name, value in kind.items())

    def run(self, inputs: dict[str, Path], folder: Path, context: Context) -> dict[str, Any]:
        """Return {"games", "digest"}; the games lie in folders below `folder`. Raises what the contract says."""
        played_in = RunFolder(folder / f"{self._run}-selfplay")
        play_into(
            played_in,
            self._found,
            search_overrides(self._settings, seed=self._seed),
            games=self._settings.games,
            engine=self._engine,
            address=self._address,
            plain=self._plain,
        )
        games, digest = _count(
            sorted(played_in.games.iterdir())
        )  # also those that came when it was told to end
        if games < self._settings.games:
            raise Stopped
        return {"games": games, "digest": digest}


def search_overrides(settings: SelfplaySettings, *, seed: int) -> list[str]:
    """Return the settings of a run that plays as `settings` say, as they are typed."""
    positions = minimax_positions(settings.minimax_widths)
    return [
        f"seed={seed}",
        "search.algorithm=minimax",
        f"search.minimax_widths={list(settings.minimax_widths)}",
        f"search.simulations={positions}",
        f"search.cheap_simulations={positions}",
        "search.full_share=1.0",
        f"search.temperature={settings.temperature}",
        f"search.temperature_plies={EVERY_PLY}",
        f"actors.count={settings.actors}",
        f"actors.random_opening_plies={settings.random_opening_plies}",
        f"inference.max_batch_rows={settings.batch_rows}",
        f"inference.cache_positions={settings.cache_positions}",
    ]


def _count(files: Iterable[Path]) -> tuple[int, str]:
    """Return how many games as text are in `files`, and their digest."""
    games, content = 0, hashlib.blake2b(digest_size=16)
    for file in files:
        text = file.read_bytes()
        games += sum(not line.startswith(b"# ") for line in text.splitlines())
        content.update(text)
    return games, content.hexdigest()
