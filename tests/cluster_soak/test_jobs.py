"""`ray job submit`: a run as a job of a cluster, stopped by Ray as it stops all jobs, saves and goes on."""

import contextlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.monitoring.sinks import newest_moment
from cluster.run.run_folder import RunFolder
from tests.cluster.commands import PATIENCE_SECONDS, end_all
from tests.cluster.tiny import checkpoints, tiny_overrides
from tests.cluster.training.test_driver import assert_every_game_came_once, free_ports, processes_of

pytestmark = pytest.mark.soak

RAY = Path(sys.executable).with_name("ray")
GRACE = """{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}}"""


@dataclass(frozen=True, slots=True)
class Jobs:
    """The jobs of a cluster.

    Attributes:
        folder: of all that belongs to it.
        page: where its dashboard listens, which takes in jobs.
    """

    folder: Path
    page: str

    def type(self, verb: str, *arguments: object) -> str:
        """Type `ray job VERB` and return what it wrote."""
        command = [RAY, "job", verb, "--address", self.page, *arguments]
        done = subprocess.run(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def train(self, name: str, *options: object, bounds: tuple[object, ...] = ()) -> None:
        """Submit a training of tic-tac-toe as the job `name`; do not wait for its end."""
        settings = tiny_overrides(actors__flush_seconds=0.3)
        run = [
            "-m",
            "cluster.main",
            "train",
            "tic_tac_toe",
            *settings,
            "--runs",
            self.folder / "runs",
            *bounds,
        ]
        self.type("submit", "--no-wait", "--submission-id", name, *options, "--", sys.executable, *run)

    def log(self, name: str) -> str:
        return self.type("logs", name)

    def status(self, name: str) -> str:
        """Return what `ray job status` says, which has other words for each state."""
        return self.type("status", name)

    def until(self, name: str, reached: Callable[[str], bool]) -> str:
        """Wait until a job's log is as wanted; return it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reached(log := self.log(name)):
            assert "failed" not in self.status(name), log
            assert time.monotonic() < deadline, log
            time.sleep(1)
        return log


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    # Not below pytest's folder: the path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="tamen-"))
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(lambda: end_all(processes_of(folder)))
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.delenv("RAY_JOB_STOP_WAIT_TIME_S", raising=False)
        gcs, page, client, agent = free_ports(4)
        options = {
            "port": gcs,
            "dashboard-port": page,
            "dashboard-agent-listen-port": agent,
            "include-dashboard": "true",
            "ray-client-server-port": client,
            "temp-dir": folder / "ray",
            "num-cpus": 2,
            "object-store-memory": 100_000_000,
        }
        start = [RAY, "start", "--head", "--disable-usage-stats"]
        start += [f"--{name}={value}" for name, value in options.items()]
        subprocess.run(start, check=True, timeout=PATIENCE_SECONDS, capture_output=True)
        yield Jobs(folder, f"http://127.0.0.1:{page}")


def test_a_job_that_is_stopped_saves_within_its_grace_and_goes_on(jobs: Jobs) -> None:
    run = RunFolder(jobs.folder / "runs" / "tic_tac_toe")
    jobs.train("first", "--runtime-env-json", GRACE)
    jobs.until("first", lambda _: run.exists() and newest_moment(run.root).get("learner/steps", 0) >= 10)
    kept = checkpoints(run)
    jobs.type("stop", "first")
    log = jobs.log("first")

    assert "was stopped" in jobs.status("first")
    assert "saved in" in log
    assert "Traceback" not in log
    assert "gives this job" not in log
    assert checkpoints(run)[-1] > kept[-1]
    moment = newest_moment(run.root)
    assert_every_game_came_once(run, at_least=moment["games/played"])

    jobs.train("second", bounds=("--games", int(moment["games/played"]) + 200))
    log = jobs.until("second", lambda log: "the same command goes on" in log)
    assert "resumes in" in log
    assert "gives this job 3 s" in log
    assert_every_game_came_once(run, at_least=moment["games/played"] + 200)
