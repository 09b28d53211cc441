"""A peer that plays as many moves as there are games in its batch, or ends, when it is asked for 13 simulations."""

import time

from benchmarks.peers.measuring import Task, Work, run_peer


def prepare(task: Task) -> Work:
    if task.simulations == 13:
        raise SystemExit(3)

    def play() -> tuple[int, int]:
        time.sleep(0.001)
        return 1000 ** (task.batch - 1), 0

    return Work(play=play, evaluate=lambda: task.batch)


if __name__ == "__main__":
    run_peer("fake_peer", prepare, peer=lambda: "fake 1", description=None, batches=[1, 2])
