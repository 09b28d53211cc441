"""A run on a Ray of its own, read by a real Prometheus and looked at by a real browser.

Needs Debian's prometheus and chromium. Everything listens on loopback, but for what Ray binds to all addresses.
With TAMEN_PICTURES=docs/images the picture in the documentation is taken anew.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from cluster.monitoring.dashboard_alerts import ALERTS
from cluster.monitoring.dashboard_panels import ROWS, panels
from control.database import CONTROL_FILE, Database
from control.health import TABLES, HealthMonitor
from control.keys import parse_key
from tests.cluster.commands import PATIENCE_SECONDS, Program, end_all
from tests.cluster.tiny import tiny_overrides
from tests.cluster.training.test_driver import free_ports, processes_of, told_of

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

RUN = "watched"
NOT_MEASURED_HERE = {
    # of environments
    "episodes ended per second",
    "episode return",
    "policy entropy",
    "policy kl",
    "policy clip ratio",
    "policy ratio error",
    "strength score",  # nobody evaluates
    "GPU",
    "model count",  # of a key of which only a training is known
    "win rate",
    "games",
}
"""Panels that stay empty beside those of engines, of which there are none."""
CALM = {"TamenLearnerWaitsForData", "TamenDiskNearlyFull", "TamenMemoryNearlyFull"}
"""Alerts that a sound run on a small machine may raise."""


@dataclass(frozen=True)
class Watching:
    """A run, and who watches it.

    Attributes:
        folder: that all of their processes were told of.
    """

    folder: Path
    ray_dashboard: str
    prometheus: str

    @property
    def said(self) -> str:
        """The end of what the run has said."""
        return (self.folder / "train").read_text()[-4000:]

    def ask(self, path: str, **given: str) -> Any:
        """Return what Prometheus answers; it has to be no error."""
        with urlopen(f"{self.prometheus}/api/v1/{path}?{urlencode(given)}", timeout=30) as page:
            answer = json.load(page)
        assert answer["status"] == "success", answer
        return answer["data"]

    def series(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression as Grafana would ask for it, all runs chosen."""
        expression = expression.replace("$__rate_interval", "1m").replace("$run", ".*")
        return self.ask("query", query=expression)["result"]


@pytest.fixture(scope="module")
def watching() -> Iterator[Watching]:
    # Not below pytest's folder: the path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="tamen-"))
    gcs, page, own, prometheus, health = free_ports(5)
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # the browser cannot type a token
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(lambda: end_all(processes_of(folder)))
        start_ray(folder / "ray", gcs, page)
        command(folder, "--metrics-port", own, "--ray-folder", folder / "ray", "--provision")
        serve_health(folder, health, stack)
        config = folder / "dashboards" / "prometheus.yml"
        content = yaml.safe_load(config.read_text())
        targets = [f"127.0.0.1:{health}"]
        content["scrape_configs"].append({"job_name": "control", "static_configs": [{"targets": targets}]})
        config.write_text(yaml.safe_dump(content))
        with (folder / "prometheus.log").open("w") as log:
            data = folder / "prometheus"
            watcher = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={data}"]
            watcher += [f"--web.listen-address=127.0.0.1:{prometheus}"]
            process = subprocess.Popen(watcher, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        stack.callback(process.wait, 30)
        stack.callback(process.terminate)
        run = Program(folder / "train", *train(folder, gcs, own))
        stack.callback(run.end)
        yield Watching(folder, f"http://127.0.0.1:{page}", f"http://127.0.0.1:{prometheus}")


def start_ray(folder: Path, port: int, page: int) -> None:
    options = {
        "port": port,
        "dashboard-port": page,
        "include-dashboard": "true",
        "ray-client-server-port": free_ports(1)[0],
        "temp-dir": folder,
        "num-cpus": 2,
        "object-store-memory": 200_000_000,
    }
    start = [Path(sys.executable).with_name("ray"), "start", "--head", "--disable-usage-stats"]
    start += [f"--{name}={value}" for name, value in options.items()]
    subprocess.run(start, check=True, timeout=PATIENCE_SECONDS, capture_output=True)
    provisioned = folder / "session_latest" / "metrics" / "grafana" / "dashboards"
    until(provisioned.is_dir, "a folder for dashboards")


def command(folder: Path, *given: object) -> None:
    dashboard = [sys.executable, "-m", "cluster.main", "dashboard", "--out", folder / "dashboards", *given]
    done = subprocess.run(list(map(str, dashboard)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def train(folder: Path, port: int, metrics_port: int) -> list[object]:
    settings = tiny_overrides(actors__flush_seconds=0.3, mirror__url=folder / "mirror")
    places = ["--runs", folder / "runs", "--name", RUN, "--address", f"127.0.0.1:{port}"]
    return ["train", "tic_tac_toe", *settings, *places, "--metrics-port", metrics_port, "--plain"]


def serve_health(folder: Path, port: int, stack: contextlib.ExitStack) -> None:
    """Let a training be recorded, and serve what the control plane tells of it, as a textfile collector would."""
    runs, served = folder / "controlled", folder / "served"
    runs.mkdir()
    served.mkdir()
    database = Database(runs / CONTROL_FILE, TABLES)
    monitor = HealthMonitor(database)
    monitor.record_training_start(parse_key("hex5_2p"), "first")
    monitor.record_training_complete(parse_key("hex5_2p"), success=True)
    database.close()
    told = [sys.executable, "-m", "cluster.main", "health", "--prometheus", "--runs", str(runs)]
    text = subprocess.run(told, check=True, capture_output=True, timeout=60).stdout
    (served / "metrics").write_bytes(text)
    server = ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.server_close)
    stack.callback(server.shutdown)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and does not tell of it."""

    def log_message(self, *given: Any) -> None:
        pass


def until(reached: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(OSError):  # nobody listens yet
            if found := reached():
                return found
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(1)


def empty_panels(watching: Watching) -> list[str]:
    return [
        panel.title
        for row in ROWS
        for panel in panels(row)
        if row != "engines"
        and panel.title not in NOT_MEASURED_HERE
        and not all(watching.series(query.expression) for query in panel.queries)
    ]


def test_every_query_of_the_dashboard_is_answered_and_what_is_measured_is_there(watching: Watching) -> None:
    until(lambda: watching.series("ray_tamen_weights_sync_seconds_count"), "numbers of Ray")
    with contextlib.suppress(AssertionError):
        until(lambda: not empty_panels(watching), "numbers for every panel")
    empty = empty_panels(watching)
    assert not empty, f"{empty} stay empty; the run said:\n{watching.said}"
    for row in ROWS:  # those of engines and environments too are no errors
        for panel in panels(row):
            for query in panel.queries:
                watching.series(query.expression)


def test_series_tell_the_run_and_where_both_ways_are_read_none_comes_twice(watching: Watching) -> None:
    (games,) = next(panel for panel in panels("games") if panel.title == "games per second").queries
    (series,) = until(lambda: watching.series(games.expression), "games")
    assert series["metric"] == {"run": RUN}
    assert (
        len(watching.series(f'count by (job) ({{__name__=~"(ray_)?tamen_games_total", run="{RUN}"}})')) == 2
    )


def test_the_rules_are_evaluated_without_an_error_and_a_sound_run_raises_none(watching: Watching) -> None:
    def evaluated() -> list[dict[str, Any]]:
        (group,) = watching.ask("rules")["groups"]
        return group["rules"] if all(rule["evaluationTime"] > 0 for rule in group["rules"]) else []

    rules = until(evaluated, "an evaluation of the rules")
    assert [rule["name"] for rule in rules] == [alert.name for alert in ALERTS]
    assert [rule["name"] for rule in rules if rule["health"] != "ok" or rule.get("lastError")] == []
    firing = {rule["name"] for rule in rules if rule["state"] == "firing"}
    assert firing <= CALM


def test_grafana_is_provided_with_the_dashboard_beside_those_of_ray(watching: Watching) -> None:
    folder = watching.folder / "ray" / "session_latest" / "metrics" / "grafana"
    provider = yaml.safe_load((folder / "provisioning" / "dashboards" / "default.yml").read_text())
    place = Path(provider["providers"][0]["options"]["path"])
    there = {path.name for path in place.iterdir()}
    assert {"tamen_dashboard.json", "default_grafana_dashboard.json"} <= there


def test_the_page_of_ray_names_every_part_of_the_run(watching: Watching) -> None:
    def named() -> set[str]:
        page = browsed(watching, "--dump-dom")
        return set(re.findall(rf"{RUN}/[0-9a-f]+/([a-z]+)", page))

    until(lambda: named() >= {"store", "replay", "learner", "inference", "actor"}, "the names of the parts")


def test_a_picture_for_the_documentation_can_be_taken(watching: Watching) -> None:
    taken = Path(os.environ.get("TAMEN_PICTURES", watching.folder)) / "ray-dashboard.png"
    browsed(watching, f"--screenshot={taken}")
    assert 20_000 < taken.stat().st_size < 300_000


def test_an_actor_that_is_killed_is_counted_by_its_first_death(watching: Watching) -> None:
    actors = [one for one in processes_of(watching.folder) if told_of(one, "ray::SelfPlayActor")]
    assert actors
    actors[0].kill()

    died = f'ray_tamen_restarts_total{{run="{RUN}", role="actor"}}'
    (series,) = until(lambda: watching.series(died), "a restart")
    assert float(series["value"][1]) == 1
    counted = next(alert for alert in ALERTS if alert.name == "TamenPartsRestart").expression
    (told,) = until(lambda: watching.series(counted.replace("> 3", "> 0")), "the first death")
    assert told["metric"] == {"run": RUN, "role": "actor"}


def browsed(watching: Watching, what: str) -> str:
    """Let a browser open Ray's page of actors, run its scripts for a while and do `what`; return what it prints."""
    profile = watching.folder / "browser"
    browser = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    browser += ["--window-size=1700,900", "--virtual-time-budget=20000", what]
    browser.append(f"{watching.ray_dashboard}/#/actors")
    done = subprocess.run(
        browser,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=os.environ | {"HOME": str(profile)},
    )
    return done.stdout
