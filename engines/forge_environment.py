"""Games of a Forge daemon as an environment of gymnasium: the mode "interact", one seat ours, or both.

`game: gym:engines.forge_environment:Forge-v0` names it in a run's configuration, and `rollout.env_options` gives the
keyword arguments of `ForgeEnvironment`. A step answers one question of `engines.questions`; those of the other seat are
answered in between, by a fixed player, or are steps as well, where the network that learns plays both ("self"). The
reward is 1 for a game that was won, -1 for one that was lost, and 0 before and for a draw.

A game that the daemon broke off for its time is a truncated episode: what it came to is not known. Whatever else goes
wrong with a daemon is an `EngineFault` out of `reset` or `step`, of which rollouts make a truncated episode that is
dropped and counted with its reason (see `actors.faults`). A daemon that is not there is waited for: it may start anew.
"""

import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces

from core.errors import UsageError
from engines.errors import EngineFault, unexpected
from engines.forge_client import Connection, Endpoint, Limits
from engines.forge_decisions import Decision, Seat
from engines.forge_protocol import GameInProgress, GameRequest, Outcome
from engines.observation import LARGEST, NUM_FEATURES, observe, observe_waiting
from engines.questions import NUM_SLOTS, Question, Questions, questions

ID = "Forge-v0"
_SEATS = ("first", "second", "random")
_OPPONENTS = ("first", "random", "self")
_GAMES_WITHOUT_A_QUESTION = 10
_SEEDS = 2**31
_LINE_BYTES = 1 << 18
"""Of a decision: both hands, both boards and every card's text are in it."""
_REST_SECONDS = 1.0
"""Before a daemon that was not there is tried again."""
_FIRST_SECONDS = 10.0
"""That a daemon is waited for which has not been there yet: nobody may have started one."""
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)
"""What comes of a decision whose fields are not what they should be."""

Shown: TypeAlias = dict[str, np.ndarray]


class ForgeEnvironment(gymnasium.Env):
    """One game after another, each over a connection of its own.

    Observations are {"observation": float32 [F], "action_mask": int8 [S]}, see `engines.observation`; an action is the
    slot of a candidate. After an episode's last step the mask is empty and the rest is what was seen last.

    Of both seats (opponent "self") observations are [2, F] and [2, S], our seat first, an action is two slots, and the
    reward is our seat's. The seat that is not asked sees what lies open, and may but choose slot 0, which does nothing.

    Args:
        deck, opponent_deck: by name or path, as the daemon knows them.
        ports: of the daemons, "17171" or "17171,17172"; the seed tells which one plays, so that environments side by
            side, whose seeds follow each other, share them evenly. A daemon plays ten games at a time and lets others
            wait.
        host: where they are.
        seat: ours: "first", "second", or for each game one by chance, "random".
        opponent: answers with the lowest slot, which is to pass where it may ("first"), by chance ("random"), or is
            asked in our steps ("self").
        game_seconds: after which a daemon breaks a game off; how long actors wait for the learner counts too.
        answer_seconds: how long a daemon may take to go on after an answer.
        start_seconds: how long a daemon that is not there is waited for; at first 10 at most.
        options: more options of the daemon, separated by spaces.
        clock, sleep: of waiting for a daemon.

    Raises:
        UsageError: when one of them cannot be.

    Attributes:
        ends: of games, counted by how: "won", "lost", "drawn", "out of time", or the kind of the fault.
    """

    def __init__(
        self,
        *,
        deck: str,
        opponent_deck: str,
        ports: str | int = "17171",
        host: str = "127.0.0.1",
        seat: Literal["first", "second", "random"] = "random",
        opponent: Literal["first", "random", "self"] = "random",
        game_seconds: int = 600,
        answer_seconds: float = 30.0,
        start_seconds: float = 45.0,
        options: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._both = opponent == "self"
        seats = (2,) if self._both else ()
        self.observation_space = spaces.Dict(
            {
                "observation": spaces.Box(-LARGEST, LARGEST, (*seats, NUM_FEATURES), np.float32),
                "action_mask": spaces.Box(0, 1, (*seats, NUM_SLOTS), np.int8),
            }
        )
        self.action_space = (
            spaces.MultiDiscrete([NUM_SLOTS] * 2) if self._both else spaces.Discrete(NUM_SLOTS)
        )
        if seat not in _SEATS or opponent not in _OPPONENTS:
            raise UsageError(
                f"seat {seat!r} against opponent {opponent!r} cannot be played",
                why=f"a seat is one of {', '.join(_SEATS)}, an opponent one of {', '.join(_OPPONENTS)}",
                fix="correct rollout.env_options",
            )
        self._endpoints = _endpoints(host, str(ports))
        self._request = GameRequest(
            (deck, opponent_deck),
            "interact",
            game_seconds=game_seconds,
            quiet=False,
            extra=tuple(options.split()),
        )
        self._seat_wanted, self._opponent = seat, opponent
        self._answer_seconds, self._start_seconds = answer_seconds, start_seconds
        self._clock, self._sleep = clock, sleep
        self._home = 0
        self._was_there = False
        self._game: _Game | None = None
        self._question: Question | None = None
        self._shown: Shown = {}
        self.ends: Counter[str] = Counter()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Shown, dict[str, Any]]:
        """Begin another game. Raises EngineFault."""
        super().reset(seed=seed)
        if seed is not None:
            self._home = seed
        patience = self._start_seconds if self._was_there else min(self._start_seconds, _FIRST_SECONDS)
        give_up_at = self._clock() + patience
        without_a_question = 0
        while without_a_question < _GAMES_WITHOUT_A_QUESTION:
            self.close()
            try:
                self._game = self._new_game()
                self._was_there = True
                if self._advance(self._game, None) is None:
                    return self._shown, {}
                without_a_question += 1
            except EngineFault as fault:
                if fault.kind not in ("died", "closed") or self._clock() >= give_up_at:
                    self._count_fault(fault)
                    raise _not_begun(fault) from fault
                self._sleep(_REST_SECONDS)
        raise EngineFault(
            "protocol",
            str(self._endpoints[0]),
            why=f"{without_a_question} games in a row ended before our seat had anything to choose",
            fix="check the decks, or raise game_seconds if the games were over their time",
        )

    def step(self, action: int | np.integer | np.ndarray) -> tuple[Shown, float, bool, bool, dict[str, Any]]:
        """Answer the present question. Raises EngineFault; ValueError when the slot holds no candidate."""
        game, question = self._game, self._question
        row = int(game is not None and question is not None and question.decision.seat != game.seat)
        slot = int(np.atleast_1d(action)[row])
        if game is None or question is None or slot not in question.slots:
            raise ValueError(f"slot {slot} holds no candidate of {question.slots if question else 'no game'}")
        try:
            outcome = self._advance(game, slot)
            if outcome is None:
                return self._shown, 0.0, False, False, {}
            if outcome.error is not None:
                raise EngineFault("protocol", game.engine, why=f"its game broke: {outcome.error[:200]}")
        except EngineFault as fault:
            self._count_fault(fault)
            self.close()
            raise
        self.close()
        self._shown = {**self._shown, "action_mask": np.zeros_like(self._shown["action_mask"])}
        end, reward = _judged(outcome, game.seat)
        self.ends[end] += 1
        return self._shown, reward, not outcome.timed_out, outcome.timed_out, {"end": end}

    def close(self) -> None:
        """Give up the game that is in play."""
        if self._game is not None:
            self._game.close()
        self._game = self._question = None

    def _new_game(self) -> "_Game":
        rng = self.np_random
        endpoint = self._endpoints[self._home % len(self._endpoints)]
        first = bool(rng.integers(2)) if self._seat_wanted == "random" else self._seat_wanted == "first"
        decks = self._request.decks if first else self._request.decks[::-1]
        request = replace(self._request, decks=decks, seed=int(rng.integers(_SEEDS)))
        answer_other = None if self._both else self._answer_other
        seat: Seat = 0 if first else 1
        return _Game(endpoint, request, seat, answer_other, answer_seconds=self._answer_seconds)

    def _advance(self, game: "_Game", slot: int | None) -> Outcome | None:
        """Go on to our next question and show it, or return how the game ended."""
        try:
            self._question = next(game.play) if slot is None else game.play.send(slot)
            self._shown = self._observed(self._question, game.seat)
        except StopIteration as end:
            return end.value
        except _UNREADABLE as error:
            raise _unreadable(game.engine, error) from error
        return None

    def _observed(self, question: Question, seat: Seat) -> Shown:
        vector, mask = observe(question)
        if self._both:
            # Who waits has the one choice to do nothing.
            vector = np.stack([vector, observe_waiting(question)])
            mask = np.stack([mask, np.arange(NUM_SLOTS) == 0])
            if question.decision.seat != seat:
                vector, mask = vector[::-1], mask[::-1]
        return {"observation": vector, "action_mask": mask.astype(np.int8)}

    def _answer_other(self, question: Question) -> int:
        if self._opponent == "first":
            return min(question.slots)
        return question.slots[int(self.np_random.integers(len(question.slots)))]

    def _count_fault(self, fault: EngineFault) -> None:
        self.ends[fault.kind] += 1


class _Game:
    """One game over one connection; `play` yields our seat's questions and is sent slots.

    Args:
        answer_other: answers those of the other seat; None: they are yielded as well.

    Raises:
        EngineFault: when the daemon is not there.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        request: GameRequest,
        seat: Seat,
        answer_other: Callable[[Question], int] | None,
        *,
        answer_seconds: float,
    ) -> None:
        self.seat: Seat = seat
        self.engine = str(endpoint)
        self._answer_other = answer_other
        self._answer_seconds = answer_seconds
        self._progress = GameInProgress(request, self.engine)
        connect_by = time.monotonic() + Limits().connect_seconds
        self._connection = Connection(endpoint, connect_by, line_bytes=_LINE_BYTES)
        self._connection.send([request.line()], self._deadline())
        self.play = self._play()

    def close(self) -> None:
        self._connection.close()

    def _play(self) -> Generator[Question, int, Outcome]:
        while self._progress.outcome is None:
            line = self._connection.receive(self._deadline())
            if line is None:
                raise unexpected(self.engine, None, expected="the rest of a game")
            decision = self._progress.take(line)
            if decision is not None:
                choice = yield from self._questions(decision)
                reply = self._progress.answer(decision, choice)
                # Who is asked is told nothing more until the answer, unless the game was broken off meanwhile.
                if reply is not None and self._connection.is_quiet():
                    self._connection.send([reply], self._deadline())
        return self._progress.outcome

    def _questions(self, decision: Decision) -> Questions:
        if decision.seat == self.seat or self._answer_other is None:
            return (yield from questions(decision))
        asked = questions(decision)
        try:
            question = next(asked)
            while True:
                question = asked.send(self._answer_other(question))
        except StopIteration as end:
            return end.value

    def _deadline(self) -> float:
        return time.monotonic() + self._answer_seconds


def _endpoints(host: str, ports: str) -> list[Endpoint]:
    numbers = ports.split(",")
    if not all(number.strip().isdecimal() and 0 < int(number) < 1 << 16 for number in numbers):
        raise UsageError(
            f"there are no daemons at the ports {ports[:100]!r}",
            why="ports are numbers from 1 to 65535 with commas between them",
            fix="correct ports in rollout.env_options",
        )
    return [Endpoint(int(number), host) for number in numbers]


def _judged(outcome: Outcome, seat: Seat) -> tuple[str, float]:
    """Return how a game ended for a seat, and its reward."""
    if outcome.timed_out:
        return "out of time", 0.0
    if outcome.winner is None:
        return "drawn", 0.0
    return ("won", 1.0) if outcome.winner == seat else ("lost", -1.0)


def _not_begun(fault: EngineFault) -> EngineFault:
    """Return a fault that came instead of a game, with what to do where that is known."""
    why, fix = fault.why, fault.fix
    if fault.kind == "died":
        fix = "start one with `tamen engines up`, and name its port in rollout.env_options.ports"
    elif fault.kind == "timeout":
        why = "it has not begun a game; perhaps it plays as many as it can, and others wait"
        fix = (
            "start more daemons and name them in ports, or play fewer games side by side: those of all groups of all"
            " actors, and those of the evaluation"
        )
    return EngineFault(fault.kind, fault.engine, why=why, fix=fix)


def _unreadable(engine: str, error: Exception) -> EngineFault:
    why = f"a decision that it sent cannot be observed: {type(error).__name__}: {str(error)[:200]}"
    return EngineFault("protocol", engine, why=why)


if ID not in gymnasium.registry:
    gymnasium.register(ID, entry_point=f"{__name__}:{ForgeEnvironment.__name__}")
