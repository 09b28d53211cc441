"""When it is of no use to go on with games of engines, and what is told on the way."""

import time
from typing import Any

from cluster.cli.progress import StepDisplay
from cluster.cli.terminal import whole
from configs.engines import EnginesConfig
from core.errors import ClusterError

TELL_SECONDS = 10.0
"""Between two lines about faults."""
STANDSTILL_SECONDS = 30.0
"""After which a run ends where daemons serve and none of them can be played with."""
COMING_SECONDS, GONE_SECONDS = 120.0, 20.0
"""Without a supervisor of engines, after which a run ends that has seen none yet, and one that has."""


class Faults:
    """Tells now and then what went wrong since it was last told."""

    def __init__(self, display: StepDisplay | None) -> None:
        self._display = display
        self._told: dict[str, int] = {}
        self._next = 0.0

    def tell(self, book: dict[str, Any], now: float) -> None:
        counts = {f"tried again: {kind}": count for kind, count in book["retried"].items()}
        counts |= {f"set aside: {kind}": count for kind, count in book["set_aside_by"].items()}
        if self._display is None or counts == self._told or now < self._next:
            return
        for what, count in counts.items():
            if more := count - self._told.get(what, 0):
                kind = what.partition(": ")[2]
                self._display.say(f"{more} games {what}, last: {book['whys'][kind]}")
        self._told, self._next = counts, now + TELL_SECONDS


class Checkup:
    """Looks whether a run of games with the engines of `config` is to go on."""

    def __init__(self, config: EnginesConfig) -> None:
        self._config = config
        self._began = time.monotonic()
        self._seen: float | None = None
        self._stands_since: float | None = None

    def check(
        self, book: dict[str, Any], parts: list[dict[str, Any]], engines: list[dict[str, Any]], now: float
    ) -> None:
        """Take in what `cluster.external.games.Players` says at a moment. Raises ClusterError when there is no use."""
        self._check_games(book)
        self._check_daemons(engines)
        self._check_presence(engines, now)
        self._check_standstill(parts, now)

    def _check_games(self, book: dict[str, Any]) -> None:
        check_refusals(book)
        if book["set_aside_in_a_row"] >= self._config.games.most_set_aside:
            why = "; ".join(f"{kind}: {why}" for kind, why in book["whys"].items())
            raise ClusterError(
                f"{book['set_aside_in_a_row']} games in a row were set aside",
                why=why,
                fix="mend that, and choose another --out; a greater games.most_set_aside goes on all the same",
            )

    def _check_daemons(self, engines: list[dict[str, Any]]) -> None:
        daemons = [daemon for each in engines for daemon in each["daemons"]]
        if daemons and all(daemon["state"] == "aside" for daemon in daemons):
            raise ClusterError(
                f"no daemon of {self._config.engine.name} stays up",
                why=daemons[0]["trouble"],
                fix=f"see {engines[0]['folder']}/0/output.log, and run the same command again",
            )

    def _check_presence(self, engines: list[dict[str, Any]], now: float) -> None:
        """See that somebody keeps engines alive."""
        if any(each["up"] and each["supervised"] for each in engines):
            self._seen = now
        silent = now - (self._began if self._seen is None else self._seen)
        if silent > (COMING_SECONDS if self._seen is None else GONE_SECONDS):
            raise ClusterError(
                f"the engines {self._config.engine.name} are {'not there' if self._seen is None else 'gone'}",
                why=f"for {silent:.0f} s nobody has kept them alive: they end by `tamen engines down`, or with the"
                " games for which they were brought up",
                fix="run the same command again: it goes on, and brings them up where they are down",
            )

    def _check_standstill(self, parts: list[dict[str, Any]], now: float) -> None:
        """See that games can be had of daemons that answer STATUS."""
        whys = [part.get("unplayable", "") for part in parts]
        if not all(whys):
            self._stands_since = None
            return
        self._stands_since = now if self._stands_since is None else self._stands_since
        if now - self._stands_since > STANDSTILL_SECONDS:
            raise ClusterError(
                f"no daemon of {self._config.engine.name} can be played with",
                why=whys[0],
                fix="check that it speaks the protocol of docs/engines.md, and see what it writes",
            )


def check_refusals(book: dict[str, Any]) -> None:
    """Raise ClusterError when no pair of decks can be played."""
    if book["all_refused"]:
        raise ClusterError(
            "none of these games can be played",
            why=f"one of each pair of decks was refused; the last: {book['whys']['refused']}",
            fix="mend that, and choose another --out: here they stay set aside",
        )


def nobody_plays(book: dict[str, Any], parts: list[dict[str, Any]]) -> ClusterError:
    troubles = [part["trouble"] for part in parts if part["trouble"]]
    return ClusterError(
        f"{whole(book['waiting'] + book['out'])} games are left, and nobody plays them",
        why=troubles[0] if troubles else "what plays them ended before they did",
        fix="see to the cluster with `ray status`; the same command goes on",
    )
