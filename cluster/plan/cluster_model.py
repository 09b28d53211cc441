"""How much a run makes of N machines, in closed form: what each part of it can do, and what is asked of it.

The first machine is home: learner, replay, store and driver take of its cores what they need, and the rest plays. The
others play, and come and go. Rates are means over a long time, in training rows: what is played makes so many, the
replay takes them in, the learner draws each `samples_per_insert` times, and so many drawn rows make a version of the
weights, which every machine pulls. `cluster.plan.cluster_simulation` plays the same out event by event.
"""

import math
from dataclasses import dataclass

from cluster.on_ray.supervision import MOST_QUESTIONS
from cluster.plan.fleet import Spot

LOOK_SECONDS = 1.0
"""How often the driver looks at the machines while it keeps up."""
TREE_COPIES = 2
"""Of a version, that home sends where those who have it send it on."""
CAPPING = ("play", "brain", "replay", "disk", "network", "learner")
"""Parts that hold rows back when they are full; "network" is home's, without weights. A full store skips versions, a
late driver notices late."""
PARTS = (*CAPPING, "store", "driver")


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What things cost, as they were measured.

    Attributes:
        evals_per_core_s: evaluations that games get from a core, search and messages included.
        server_evals_per_s: that a server makes on a core of its own.
        actor_eval_seconds: of a core, for an evaluation that another machine makes.
        evals_per_move, rows_per_move, moves_per_game: of the search and the game.
        chunk_seconds, row_seconds: of the replay, to take in a chunk, and for each of its rows.
        draw_seconds: of the replay, at most, for a row that the learner draws.
        row_bytes: on the way and on disk, at most: not compressed.
        disk_bytes_per_s: of chunks, each made durable.
        learner_rows_per_s: of one learner.
        weights_bytes: of a version.
        weights_server_seconds: of a core, for a server to take in a version.
        part_seconds: of the driver, in each second, for each part.
        ask_seconds: of the driver, for each question to a part how it is.
    """

    evals_per_core_s: float
    server_evals_per_s: float
    actor_eval_seconds: float
    evals_per_move: float
    rows_per_move: float
    moves_per_game: float
    chunk_seconds: float
    row_seconds: float
    draw_seconds: float
    row_bytes: float
    disk_bytes_per_s: float
    learner_rows_per_s: float
    weights_bytes: float
    weights_server_seconds: float
    part_seconds: float
    ask_seconds: float

    @property
    def evals_per_row(self) -> float:
        return self.evals_per_move / self.rows_per_move

    @property
    def rows_per_game(self) -> float:
        return self.rows_per_move * self.moves_per_game


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a run is laid out over machines, all of one kind.

    Attributes:
        cores, servers, actors: of a machine.
        games_in_play: of a machine, at a time.
        chunk_rows, samples_per_insert, learners: the settings.
        version_rows: drawn rows from one version of the weights to the next.
        learner_on_cores: whether a learner takes a core of home, and not a GPU.
        network_bytes_per_s: of home, each way.
        brain_evals_per_s: that servers on GPUs evaluate for all; None where each machine evaluates for itself.
        eval_bytes: of a position and its evaluation, the larger way.
        tree: whether machines that have a version send it on.
        startup_seconds: from when a machine is there until it plays.
        spot: how machines are taken away; None: they stay. Home always does.
    """

    cores: int
    servers: int
    actors: int
    games_in_play: int
    chunk_rows: int
    samples_per_insert: float
    learners: int
    version_rows: float
    learner_on_cores: bool
    network_bytes_per_s: float
    brain_evals_per_s: float | None
    eval_bytes: float
    tree: bool
    startup_seconds: float
    spot: Spot | None

    @property
    def parts(self) -> int:
        return self.servers + self.actors

    @property
    def versions_per_row(self) -> float:
        """Versions of the weights for each row that is made, while the learner keeps up."""
        return self.samples_per_insert / self.version_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How a run goes on N machines.

    Attributes:
        rows, games, evals, versions: a second.
        effective: share of the time of all machines in which they play games that count, or could.
        present: share of the time that a machine which may be taken away is there.
        used: of what each part can do, by its name in `PARTS`; above 1 is what is asked of one that does not hold up.
        limit: the part that holds the others up.
    """

    rows: float
    games: float
    evals: float
    versions: float
    effective: float
    present: float
    used: dict[str, float]
    limit: str


def driver_load(machines: int, costs: Costs, layout: Layout) -> float:
    """Return the seconds that the driver needs to watch for one second."""
    parts = machines * layout.parts
    return parts * costs.part_seconds + min(parts, MOST_QUESTIONS) * costs.ask_seconds


def row_core_seconds(costs: Costs, layout: Layout) -> float:
    """Return what a core plays to make a row."""
    if layout.brain_evals_per_s is None:
        return costs.evals_per_row / costs.evals_per_core_s
    return costs.evals_per_row * costs.actor_eval_seconds


def playing_cores(costs: Costs, layout: Layout) -> float:
    """Return how many cores of a machine can be busy with games: no more than its servers keep busy."""
    if layout.brain_evals_per_s is not None:
        return layout.cores
    return min(layout.cores, layout.servers * costs.server_evals_per_s / costs.evals_per_core_s)


def replay_row_seconds(costs: Costs, layout: Layout) -> float:
    """Return what the replay takes for a row, with what it takes to draw it."""
    return (
        costs.row_seconds
        + costs.chunk_seconds / layout.chunk_rows
        + layout.samples_per_insert * costs.draw_seconds
    )


def home_row_seconds(costs: Costs, layout: Layout) -> float:
    """Return what learner and replay take of home's cores for a row."""
    learner = layout.samples_per_insert / costs.learner_rows_per_s if layout.learner_on_cores else 0.0
    return learner + replay_row_seconds(costs, layout)


def version_core_seconds(costs: Costs, layout: Layout) -> float:
    """Return what a machine's servers take of its cores for a version."""
    return layout.servers * costs.weights_server_seconds


def lost_at_start(machines: int, costs: Costs, layout: Layout) -> float:
    """Return the seconds of a machine's time there that make nothing.

    They are those until it plays, those until a busy driver notices it, and those that games have taken which are still
    in play when it is taken away. At the notice that is half a game's, on average, and so is what is left to play: a
    machine that only plays out its games, as fast as ever, saves a second of it in each second. That it makes rows
    meanwhile is not counted.
    """
    moves_per_s = playing_cores(costs, layout) / row_core_seconds(costs, layout) / costs.rows_per_move
    game_seconds = layout.games_in_play * costs.moves_per_game / moves_per_s
    notices = max(LOOK_SECONDS, driver_load(machines, costs, layout))
    notice = layout.spot.notice_seconds if layout.spot else 0.0
    return layout.startup_seconds + notices + max(0.0, game_seconds / 2 - notice)


def spot_shares(machines: int, costs: Costs, layout: Layout) -> tuple[float, float]:
    """Return the shares of the time in which a machine that may be taken away does what counts, and is there.

    Interruptions come at a rate r, and from the notice on a machine makes nothing new. What it makes begins a time s
    after it is there, so of each stay E[max(0, T - s)] = exp(-rs) / r is of use.
    """
    if layout.spot is None:
        return 1.0, 1.0
    rate = layout.spot.interruptions_per_hour / 3600
    stay = 1 + rate * layout.spot.notice_seconds  # times 1 / r, as the cycle
    cycle = stay + rate * layout.spot.replacement_seconds
    return math.exp(-rate * lost_at_start(machines, costs, layout)) / cycle, stay / cycle


def played_rows(machines: int, costs: Costs, layout: Layout) -> float:
    """Return the rows a second that machines make when nothing else holds them up.

    With M machines beside home, of whose time a share e counts, of C cores, P of which can be busy with games, a row
    costs k seconds of a core to play, h of home's for learner and replay, and w of every machine's for its share of a
    version. The driver takes d of home:

        rows · k = M · e · (P - rows · w) + max(0, min(P, C - d - rows · h) - rows · w)
    """
    others = (machines - 1) * spot_shares(machines, costs, layout)[0]
    play, home = row_core_seconds(costs, layout), home_row_seconds(costs, layout)
    taking_in = layout.versions_per_row * version_core_seconds(costs, layout)
    busy = playing_cores(costs, layout)
    left = max(0.0, layout.cores - min(1.0, driver_load(machines, costs, layout)))
    undisturbed = (others + 1) * busy / (play + (others + 1) * taking_in)
    if left - undisturbed * home >= busy:
        return undisturbed
    shared = (others * busy + left) / (play + home + (others + 1) * taking_in)
    if shared * (home + taking_in) <= left:
        return shared
    return others * busy / (play + others * taking_in)


def row_network_bytes(machines: int, costs: Costs, layout: Layout) -> float:
    """Return the bytes over home's network for a row, the larger way; all rows count as made elsewhere."""
    if machines == 1:
        return 0.0
    evals = 0.0 if layout.brain_evals_per_s is None else costs.evals_per_row * layout.eval_bytes
    return costs.row_bytes + evals


def capacities(machines: int, costs: Costs, layout: Layout) -> dict[str, float]:
    """Return the rows a second that each part which can hold rows back is good for."""
    row_bytes = row_network_bytes(machines, costs, layout)
    brain = layout.brain_evals_per_s
    if brain is None:
        there = 1 + (machines - 1) * spot_shares(machines, costs, layout)[0]
        brain = there * layout.servers * costs.server_evals_per_s
    return {
        "play": played_rows(machines, costs, layout),
        "brain": brain / costs.evals_per_row,
        "replay": 1 / replay_row_seconds(costs, layout),
        "disk": costs.disk_bytes_per_s / costs.row_bytes,
        "network": layout.network_bytes_per_s / row_bytes if row_bytes else math.inf,
        "learner": layout.learners * costs.learner_rows_per_s / layout.samples_per_insert,
    }


def steady(machines: int, costs: Costs, layout: Layout) -> Rates:
    """Return how a run goes on `machines` machines, home among them."""
    able = capacities(machines, costs, layout)
    limit = min(CAPPING, key=able.__getitem__)
    rows = able[limit]
    effective, present = spot_shares(machines, costs, layout)
    return Rates(
        rows=rows,
        games=rows / costs.rows_per_game,
        evals=rows * costs.evals_per_row,
        versions=rows * layout.versions_per_row,
        effective=(1 + (machines - 1) * effective) / machines,
        present=present,
        used={part: rows / able[part] for part in CAPPING} | asked(machines, rows, costs, layout),
        limit=limit,
    )


def asked(machines: int, rows: float, costs: Costs, layout: Layout) -> dict[str, float]:
    """Return what is asked of store and driver, of what they can do, when `rows` a second are made."""
    copies = min(machines - 1, TREE_COPIES) if layout.tree else machines - 1
    sent = rows * layout.versions_per_row * costs.weights_bytes * copies
    return {"store": sent / layout.network_bytes_per_s, "driver": driver_load(machines, costs, layout)}


def full_at(part: str, costs: Costs, layout: Layout, *, most: int) -> int | None:
    """Return the fewest machines that would fill a part if no other part held them up; None if `most` do not.

    "play" is what fills the others, and a brain on the machines that play grows with them: neither is asked.
    """

    def is_full(machines: int) -> bool:
        rows = played_rows(machines, costs, layout)
        if part in CAPPING:
            return rows >= capacities(machines, costs, layout)[part]
        return asked(machines, rows, costs, layout)[part] >= 1

    if not is_full(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_full(middle) else (middle, high)
    return high
