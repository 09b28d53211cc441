"""How much of a key's games is exported, and which positions: one rule, for the exporter and for who estimates.

A game of M moves has M positions in which a move was chosen, numbered 0 to M-1. Of each game every `stride`-th is
taken, a fraction, beginning at a place that hangs on the game's id alone. So of very many games total moves / stride
positions are taken, however short the games are; were each begun at its first position, a game of 7 moves gave 3 at a
stride of 3 instead of 7/3, and at a stride of 2 all positions were the first player's.
"""

import hashlib
from dataclasses import dataclass
from fractions import Fraction

from configs.control import ExportConfig, TierConfig
from control.curriculum import checked_number
from core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Selection:
    """Which positions of which games are taken: of the newest `max_games` (None: of all) every `stride`-th."""

    max_games: int | None
    stride: Fraction
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_games is not None:
            checked_number("max_games", self.max_games, whole=True)
        if self.stride < 1:
            raise UsageError(
                f"stride={self.stride} is less than 1",
                why="no position can be taken more than once",
                fix="give 1 for all of them",
            )

    def first_game(self, games: int) -> int:
        """Return the first game that is taken of so many, the oldest of which is game 0."""
        checked_number("games", games, whole=True)
        return 0 if self.max_games is None else max(0, games - self.max_games)

    def positions(self, game_id: str, moves: int) -> list[int]:
        """Return which of a game's positions are taken, rising.

        A step of d/n is made at each position, from a start that the id determines, and the position is taken when that
        begins a new whole (Bresenham's rule). It is done in whole numbers, so it is the same on every machine.
        """
        checked_number("moves", moves, whole=True)
        n, d = self.stride.as_integer_ratio()
        code = hashlib.blake2b(f"{self.seed}:{game_id}".encode(), digest_size=8).digest()
        start = int.from_bytes(code, "little") % n
        return [p for p in range(moves) if (p * d + start) % n < d]

    def estimate(self, games: int, moves_per_game: float) -> int:
        """Return how many positions are taken of `games` games, those taken having so many moves on average.

        It is what `positions` gives on average; one standard deviation is at most half the square root of the games
        that are taken.
        """
        checked_number("moves_per_game", moves_per_game)
        return round((games - self.first_game(games)) * moves_per_game / self.stride)


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What is exported of a key's games, and how a network is fitted to it.

    Attributes:
        tier: its name.
        games: that there are.
        selection: which positions are taken.
        sample_every, sample_factor: of the tier and of the game; their product is the stride.
        moves_per_game: that was counted on.
        measured: whether it was measured, or is the table's.
        batch_capped_from: the tier's batch, where a small export has a smaller one.
    """

    tier: str
    games: int
    selection: Selection
    sample_every: int
    sample_factor: float
    moves_per_game: float
    measured: bool
    epochs: int
    batch_rows: int
    batch_capped_from: int | None
    estimated_samples: int


def export_settings(
    game: str, games: int, config: ExportConfig, *, moves_per_game: float | None = None
) -> ExportSettings:
    """Return how `games` games of `game` are exported.

    Args:
        moves_per_game: mean of the games that are taken, as measured; None: that of the table.

    Raises:
        UsageError: when it is neither measured nor in the table, or no such number.
    """
    checked_number("games", games, whole=True)
    known = config.games.get(game)
    if moves_per_game is None and known is None:
        raise UsageError(
            f"nobody knows how long games of {game} are",
            why=f"none were measured, and the table has {', '.join(sorted(config.games)) or 'no game'}",
            fix=f"add it to export.games: {{{game}: {{moves_per_game: 40, sample_factor: 1.0}}}}",
        )
    moves = moves_per_game if moves_per_game is not None else known.moves_per_game if known else 0.0
    checked_number("moves_per_game", moves)
    factor = known.sample_factor if known else config.default_sample_factor
    tier = tier_of(games, config)
    # Of the factor as it is written: 1.2 is 6/5, not the nearest binary fraction.
    stride = max(Fraction(1), tier.sample_every * Fraction(str(factor)).limit_denominator(1000))
    selection = Selection(_most_games(tier, stride, moves, config), stride, config.seed)
    samples = selection.estimate(games, moves)
    cap = next(
        (each.batch_rows for each in config.batch_caps if samples < each.below_samples), tier.batch_rows
    )
    return ExportSettings(
        tier=tier.name,
        games=games,
        selection=selection,
        sample_every=tier.sample_every,
        sample_factor=factor,
        moves_per_game=moves,
        measured=moves_per_game is not None,
        epochs=tier.epochs,
        batch_rows=min(cap, tier.batch_rows),
        batch_capped_from=tier.batch_rows if cap < tier.batch_rows else None,
        estimated_samples=samples,
    )


def override_export(
    config: ExportConfig, game: str, *, max_games: int | None, sample_every: int | None, seed: int
) -> ExportConfig:
    """Return `config` with a person's own numbers instead of those of the tiers, for each that is given.

    `sample_every` is then the stride: no factor of the game is on top of it.

    Raises:
        UsageError: when one is below its least.
    """
    numbers = {"max_games": max_games, "sample_every": sample_every}
    for name, number, least in (*((*each, 1) for each in numbers.items()), ("seed", seed, 0)):
        if number is not None and number < least:
            raise UsageError(
                f"{name}={number} is not allowed",
                why=f"it must be a whole number of at least {least}",
                fix="leave it out, and it follows from how many games there are"
                if least
                else "give for example 0",
            )
    given = {name: number for name, number in numbers.items() if number is not None}
    known, factor = dict(config.games), config.default_sample_factor
    if sample_every is not None:
        factor = 1.0
        if game in known:
            known[game] = known[game].model_copy(update={"sample_factor": 1.0})
    return config.model_copy(
        update={
            "tiers": tuple(tier.model_copy(update=given) for tier in config.tiers),
            "games": known,
            "default_sample_factor": factor,
            "seed": seed,
        }
    )


def tier_of(games: int, config: ExportConfig) -> TierConfig:
    """Return the first tier that is for more games than these; the last is for any number."""
    return next(tier for tier in config.tiers if tier.below_games is None or games < tier.below_games)


def _most_games(tier: TierConfig, stride: Fraction, moves: float, config: ExportConfig) -> int | None:
    """Return the tier's limit, or fewer where so many give the samples that are aimed at."""
    if config.target_samples is None or moves == 0:
        return tier.max_games
    needed = max(1, round(config.target_samples * stride / Fraction(moves)))
    return needed if tier.max_games is None else min(needed, tier.max_games)
