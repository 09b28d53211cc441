"""What is remembered of a model, and the page that tells it: its card, as Markdown."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from control.lineage import Source, data_digest
from control.sequential import PairCounts
from core.errors import UsageError

Stage: TypeAlias = Literal["development", "staging", "production", "archived", "rejected"]
FileState: TypeAlias = Literal["ok", "gone", "altered"]


@dataclass(frozen=True, slots=True)
class Elo:
    """A rating with its 95 % interval, on the scale of its key, where the random player has 0.

    Attributes:
        rating, low, high: finite, low ≤ rating ≤ high.
        games: that it was estimated from, at least 1.

    Raises:
        UsageError: when they are not so.
    """

    rating: float
    low: float
    high: float
    games: int

    def __post_init__(self) -> None:
        finite = all(math.isfinite(each) for each in (self.rating, self.low, self.high))
        if not (finite and self.low <= self.rating <= self.high):
            raise UsageError(
                f"{self.rating} within {self.low} to {self.high} is no Elo",
                why="all three must be finite, and the rating lie in its interval",
                fix="estimate it with control.promotion.rating_of, which is finite after a clean score too",
            )
        if type(self.games) is not int or self.games < 1:
            raise UsageError(
                f"an Elo of {self.games!r} games cannot be",
                why="it is estimated from at least one",
                fix="leave the Elo out where nothing was played",
            )


@dataclass(frozen=True, slots=True)
class Rating:
    """A rating of a model as it was written down.

    Attributes:
        stage: that the model was in then.
        conditions: of the games, as `Match` has them; "" where they are not known.
    """

    elo: Elo
    stage: Stage
    conditions: str


@dataclass(frozen=True, slots=True)
class Match:
    """Games that a model played against an opponent, each opening from both sides.

    Attributes:
        model: id of the registered model.
        opponent: id of another of the same key, or a player such as "random" or "mcts:400".
        pairs: how pairs of games ended, in the eyes of the model.
        draws: games drawn, with which wins and losses are known too.
        conditions: under which they were played, such as "simulations=16 opening_plies=2": the same text, the same
            conditions. Only games under the same may be counted together.
        seed, first_pair: what was played: the seed of openings and moves, and the number of the first opening.
        played_at: seconds since 1970.
        set_aside: pairs that were begun and do not count, for an evaluation failed.

    Raises:
        UsageError: when there can be no such games.
    """

    model: str
    opponent: str
    pairs: PairCounts
    draws: int
    conditions: str
    seed: int
    first_pair: int
    played_at: float
    set_aside: int = 0

    def __post_init__(self) -> None:
        _, one_drawn, level, drawn_once, _ = self.pairs.counts
        at_least = one_drawn + drawn_once
        possible = type(self.draws) is int and at_least <= self.draws <= at_least + 2 * level
        if not possible or (self.draws - at_least) % 2:
            raise UsageError(
                f"{self.draws} draws do not fit the pairs {self.pairs.counts}",
                why="pairs of ¼ and ¾ hold one draw each, those of ½ none or two",
                fix="count draws and pairs of the same games",
            )
        numbers = (self.seed, self.first_pair, self.set_aside)
        if not all(type(each) is int and 0 <= each < 2**63 for each in numbers):
            raise UsageError(
                f"seed, first pair and pairs set aside {numbers} are refused",
                why="they are whole numbers from 0 to 2^63 - 1",
                fix="give those that the match was played with",
            )

    @property
    def games(self) -> int:
        return 2 * self.pairs.pairs

    @property
    def wins(self) -> int:
        return round(2 * self.pairs.points - self.draws / 2)

    @property
    def losses(self) -> int:
        return self.games - self.draws - self.wins


@dataclass(frozen=True, slots=True)
class Move:
    """One step of what happened to the models of a key; `number` orders them, whatever the clock said.

    Attributes:
        act: what was done: register, propose, promote, rollback or set stage.
        what: what it changed: "stage", or an alias: "latest", "candidate", "champion".
        before, after: the stages, or the ids that the alias named; None for nobody.
        at: seconds since 1970.
    """

    number: int
    key: str
    model: str
    act: str
    what: str
    before: str | None
    after: str | None
    who: str
    why: str
    at: float


@dataclass(frozen=True, slots=True)
class Model:
    """A registered model.

    Attributes:
        id: "<key>-v<version>".
        parent: id of the model that it was made of, of the same key; None of one that began anew.
        created_at: seconds since 1970, by the clock of who registered it.
        config, metrics: what it was trained with, and what came of it.
        sources: the data that it was fitted to.
        games: so many games were in that data.
        elo: the newest rating from before it was champion; else the newest, for those of a champion are each of a few
            games; None when it has never been rated.
        file, bytes, digest: its weights, and BLAKE2b-128 of every byte of the file.
        aliases: which of latest, candidate and champion it is.
    """

    id: str
    key: str
    version: int
    parent: str | None
    stage: Stage
    created_at: float
    who: str
    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    sources: tuple[Source, ...]
    games: int
    elo: Elo | None
    file: Path
    bytes: int
    digest: str
    aliases: tuple[str, ...]

    @property
    def data_digest(self) -> str | None:
        """One digest of all data that it was fitted to; None when none was named."""
        return data_digest(self.sources)


def card(
    model: Model,
    *,
    file: FileState,
    ancestors: Sequence[str],
    descendants: Sequence[str],
    matches: Sequence[Match],
    moves: Sequence[Move],
    now: float,
) -> str:
    """Return the page of a model as Markdown; `now` in seconds since 1970."""
    facts = {
        "key": model.key,
        "stage": " ".join([model.stage, *(f"@{alias}" for alias in model.aliases)]),
        "registered": f"{moment(model.created_at, now)} by {model.who}",
        "Elo": elo_text(model.elo),
        "games in its data": f"{model.games:,}",
        "file": f"{model.file} ({model.bytes:,} bytes)" + ("" if file == "ok" else f", {file.upper()}"),
        "digest": model.digest,
        "data digest": model.data_digest or "none: no data was named",
    }
    parts = [f"# {model.id}", _table(("", ""), facts.items())]
    parts += ["## Metrics", _table(("metric", "value"), model.metrics.items())]
    parts += ["## Configuration", f"```json\n{json.dumps(model.config, indent=2, sort_keys=True)}\n```"]
    sources = [(source.path, f"{source.bytes:,}", source.digest) for source in model.sources]
    parts += ["## Data", _table(("source", "bytes", "digest"), sources)]
    parts += ["## Lineage", f"made of: {' ← '.join(ancestors) or 'nothing, it began anew'}"]
    parts += [f"led to: {', '.join(descendants) or 'nothing yet'}"]
    played = [_match_row(match, now) for match in matches]
    heads = ("against", "wins", "draws", "losses", "score", "conditions", "seed", "played")
    parts += ["## Evaluation games", _table(heads, played)]
    changes = [
        (moment(m.at, now), m.act, f"{m.what}: {m.before or '–'} → {m.after or '–'}", m.who, m.why)
        for m in moves
    ]
    parts += ["## History", _table(("when", "what", "change", "who", "why"), changes)]
    return "\n\n".join(parts) + "\n"


def elo_text(elo: Elo | None) -> str:
    """Return "+153 (+120 to +186, 400 games)", or "not rated"."""
    if elo is None:
        return "not rated"
    return f"{elo.rating:+.0f} ({elo.low:+.0f} to {elo.high:+.0f}, {elo.games:,} games)"


def moment(at: float, now: float) -> str:
    """Return a moment as UTC; of one in the future it is said, for it came from a clock that goes wrong."""
    written = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{written} (by a clock that was {at - now:.0f} s ahead)" if at > now else written


def _match_row(match: Match, now: float) -> tuple[Any, ...]:
    low, high = match.pairs.interval()
    score = f"{match.pairs.score:.1%} ({low:.1%} to {high:.1%})" if match.games else "none"
    played = moment(match.played_at, now)
    counts = (match.wins, match.draws, match.losses)
    return match.opponent, *counts, score, match.conditions, match.seed, played


def _table(heads: Sequence[str], rows: Any) -> str:
    lines = [[_cell(each) for each in row] for row in rows]
    if not lines:
        return "none"
    ruled = [list(map(str, heads)), ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in ruled)


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())
