"""An actor whose acknowledgements are written down by its own process, for `tamen bench recovery`."""

import time
from pathlib import Path

from cluster.bench.recovery_account import AckLog, Acknowledged, rows_by_game
from cluster.on_ray.actors import Assignment, SelfPlayActor
from cluster.on_ray.client import RayDelivery
from replay.records import Ack, Chunk


def witness_folder(run: Path) -> Path:
    """Return where the witnesses of a run write."""
    return run / "witness"


class WitnessedActor(SelfPlayActor):
    """An actor that notes each chunk once it is acknowledged; else it is what a run has."""

    def __init__(self, given: Assignment) -> None:
        super().__init__(given)
        watch(self._delivery, AckLog(witness_folder(given.folder.root), given.index))


def watch(delivery: RayDelivery, log: AckLog) -> None:
    """Let `log` note what `delivery` carries, at the moment its caller is told that it is acknowledged."""
    send, poll = delivery.send, delivery.poll
    on_its_way: list[bytes | None] = [None]

    def watched_send(chunk: bytes | None) -> None:
        on_its_way[0] = chunk
        send(chunk)

    def watched_poll(timeout_seconds: float) -> Ack | None:
        ack = poll(timeout_seconds)
        chunk = on_its_way[0]
        # A chunk that is refused for good has an acknowledgement of nothing: its games are not said to be safe.
        if ack is not None and chunk is not None and ack.accepted + ack.duplicates:
            log.note(Acknowledged(time.monotonic(), rows_by_game(Chunk.decode(chunk))))
        return ack

    delivery.send, delivery.poll = watched_send, watched_poll
