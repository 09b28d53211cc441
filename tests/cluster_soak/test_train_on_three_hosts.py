"""A run on the three hosts of a real `ray up`: all play; one is cut off and comes back, one is switched off."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.monitoring.sinks import newest_moment
from cluster.run.machine_table import read_standing
from cluster.run.run_folder import RunFolder
from tests.cluster.tiny import games_on_disk, tiny_overrides
from tests.cluster_soak.hosts import HOME, Host, three_hosts
from tests.cluster_soak.installed import TAMEN, install, lay_kernels
from tests.cluster_soak.launched import ray_down, ray_up, until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

# A host that is cut off counts as gone after some 15 s instead of 65.
HEALTH = """\
export RAY_health_check_period_ms=2000 RAY_health_check_timeout_ms=3000 RAY_health_check_failure_threshold=4
"""


class Run:
    """What is to be seen of a run in its folder on the head's disk."""

    def __init__(self, head: Host) -> None:
        self.folder = RunFolder(head.home / "runs" / "three")
        self.printed = head.home / "printed"
        self._head = head

    def begin(self) -> None:
        """Type `tamen train` on the head, after a login."""
        command = ["tamen", "train", "tic_tac_toe", *tiny_overrides(), "--name", "three", "--plain"]
        command += ["--address", "auto", "--runs", f"{HOME}/runs"]
        shell = f"echo $$ > {HOME}/pid; exec {' '.join(command)} > {HOME}/printed 2>&1"
        login = f"source ~/.bashrc; setsid -f bash -c '{shell}'"
        assert self._head.run("bash", "-c", login, folder=TAMEN).returncode == 0

    def interrupt(self) -> None:
        """Press Ctrl-C; return when it has saved."""
        pid = (self._head.home / "pid").read_text().strip()
        assert self._head.run("kill", "-INT", pid).returncode == 0
        self.until(lambda: self._head.run("kill", "-0", pid).returncode != 0, 60.0)

    def until(self, reached: Callable[[], object], seconds: float = 120.0) -> None:
        until(reached, lambda: f"{read_standing(self.folder)}\n{self.printed.read_text()}", seconds)

    def playing(self) -> set[str]:
        """Return the hosts whose actors finish games."""
        standing = read_standing(self.folder)
        return {each.host for each in standing.machines if each.games_per_hour} if standing else set()

    def told(self, host: Host, what: str) -> int:
        """Return in how many lines it was told of a host."""
        lines = self.printed.read_text().splitlines()
        return sum(f"machine {host.name} (" in line and what in line for line in lines)

    def games(self) -> int:
        """Return how many games the replay has acknowledged, as was last written."""
        return newest_moment(self.folder.root).get("games/played", 0)


def test_a_run_outlives_a_host_that_is_cut_off_and_one_that_is_switched_off(tmp_path: Path) -> None:
    with three_hosts(tmp_path) as hosts:
        head, cut_off, switched_off = hosts.others
        install(hosts)
        for host in hosts.others:
            lay_kernels(host)
            with (host.home / ".bashrc").open("a") as settings:
                settings.write(HEALTH)
        ray_up(hosts)
        run = Run(head)
        run.begin()
        run.until(lambda: run.playing() == {host.name for host in hosts.others})

        cut_off.cut_off()
        run.until(lambda: run.playing() == {head.name, switched_off.name})
        switched_off.kill()
        run.until(lambda: run.told(cut_off, "has left: with it 1 actor and 1 server") == 1)
        run.until(lambda: run.told(switched_off, "has left: with it 1 actor and 1 server") == 1)
        then = run.games()
        run.until(lambda: run.games() > then)
        cut_off.join_again()
        run.until(lambda: run.playing() == {head.name, cut_off.name})
        assert run.told(cut_off, "joins") == 2

        then = run.games()
        run.until(lambda: run.games() > then)
        acknowledged = run.games()
        run.interrupt()
        printed = run.printed.read_text()
        assert "saved in" in printed, printed
        assert "Traceback" not in printed
        assert "(raylet)" not in printed
        games = games_on_disk(run.folder)
        assert len(games) >= acknowledged > 0
        assert len(set(games)) == len(games)
        assert holes(games) == {}
        ray_down(hosts, at_once=[cut_off])


def holes(games: list[tuple[int, int, int]]) -> dict[tuple[int, int], int]:
    """Return how many games are missing below the last of each life of an actor, where any are."""
    lives = Counter((actor, epoch) for actor, epoch, _ in games)
    last = {life: max(seq for actor, epoch, seq in games if (actor, epoch) == life) for life in lives}
    return {life: last[life] + 1 - count for life, count in lives.items() if last[life] + 1 != count}
