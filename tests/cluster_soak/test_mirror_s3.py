"""A mirror in S3 (moto, behind a proxy that answers badly): what a cloud's storage does on bad days is survived."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import fsspec
import pytest

from cluster.mirror.manifests import manifest_numbers, object_of
from cluster.mirror.place import Place
from cluster.mirror.thread import TakenOverError
from cluster.monitoring.sinks import newest_moment
from cluster.run.run_folder import RunFolder
from core.errors import ClusterError
from tests.cluster.commands import Program, assert_all_end
from tests.cluster.mirroring import (
    SMALL_WINDOW,
    a_run,
    assert_whole,
    checkpoint,
    deliver,
    files_below,
    mirror_of,
    playing,
    restored,
    until,
)
from tests.cluster.tiny import checkpoints, games_on_disk, tiny_overrides
from tests.pipeline.s3 import bucket, s3_server  # noqa: F401 - fixtures
from tests.replay.experience import open_buffer

pytestmark = pytest.mark.soak

GAMES_IN_WINDOW = 20
Fault = Callable[[str, str], int | None]


class BadDays(ThreadingHTTPServer):
    """Passes requests on to an S3, unless `fault` of a request's method and path gives another status; 0 tears it."""

    daemon_threads = True
    fault: Fault = staticmethod(lambda method, path: None)
    behind = ""
    expired = ""
    """A key that is refused."""


class _Passing(BaseHTTPRequestHandler):
    server: BadDays  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"  # a PUT waits to be told to go on

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.expired and f"={self.server.expired}/" in self.headers.get("Authorization", ""):
            self._answer(400, {}, b"<Error><Code>ExpiredToken</Code><Message>of last hour</Message></Error>")
            return
        status = self.server.fault(self.command, self.path)
        if status == 0:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if status is not None:
            self._answer(status, {}, b"<Error><Code>SlowDown</Code><Message>on a bad day</Message></Error>")
            return
        headers = {
            "Content-Type": "binary/octet-stream",
            **dict(self.headers),
        }  # urllib's own would be a form
        request = Request(self.server.behind + self.path, body or None, headers, method=self.command)
        try:
            with urlopen(request, timeout=20) as answer:
                self._answer(answer.status, dict(answer.headers), answer.read())
        except HTTPError as error:
            self._answer(error.code, dict(error.headers), error.read())
        except URLError:  # a request that hung, after its test
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        length = headers.pop("Content-Length", str(len(body)))
        for name, value in headers.items():
            if name.lower() not in ("connection", "server", "date", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def bad_days(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, BadDays]]:  # noqa: F811
    """An empty bucket's URL, and the proxy that it is reached by."""
    with BadDays(("127.0.0.1", 0), _Passing) as proxy:
        proxy.behind = os.environ["AWS_ENDPOINT_URL"]
        Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_address[1]}")
        monkeypatch.setattr("cluster.mirror.place.FIRST_DELAY_SECONDS", 0.01)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield f"{bucket}/runs/test", proxy
        proxy.shutdown()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_run_that_goes_on_is_mirrored_to_s3_and_restored(
    tmp_path: Path, bad_days: tuple[str, BadDays]
) -> None:
    (url, proxy), run, acknowledged = bad_days, a_run(tmp_path / "test"), [0]
    mirror = mirror_of(run, url)

    def last_longer_than_the_window(method: str, path: str) -> None:
        if method == "PUT" and "/objects/" in path:
            turned_over = acknowledged[0] + 2 * GAMES_IN_WINDOW
            until(lambda: acknowledged[0] >= turned_over)

    proxy.fault = last_longer_than_the_window
    with playing(open_buffer(run.root, SMALL_WINDOW), run, acknowledged):
        for number in range(3):
            before = acknowledged[0]
            mirror.save()
            assert_whole(restored(url, tmp_path / f"there-{number}"), acknowledged=before)
    proxy.fault = lambda method, path: None
    mirror.save()
    before, after = files_below(run.root), files_below(restored(url, tmp_path / "there").root)
    assert {path for path in before | after if before.get(path) != after.get(path)} == {
        "replay/ledger.sealed"
    }


@pytest.mark.parametrize("status", [500, 503, 0])
def test_requests_of_which_each_fails_at_first_are_made_again(
    tmp_path: Path, bad_days: tuple[str, BadDays], status: int
) -> None:
    (url, proxy), run, failed = bad_days, a_run(tmp_path / "test"), set()

    def at_first(method: str, path: str) -> int | None:
        if (method, path) in failed:
            return None
        failed.add((method, path))
        return status

    replay, mirror = open_buffer(run.root), mirror_of(run, url)
    proxy.fault = at_first
    for number in range(4):
        deliver(replay, number)
        checkpoint(run, number)
        mirror.save()
    assert_whole(restored(url, tmp_path / "there"), acknowledged=8)
    assert len(failed) > 20


def test_an_s3_that_does_not_answer_is_given_up_in_time(
    tmp_path: Path, bad_days: tuple[str, BadDays]
) -> None:
    (url, proxy), run = bad_days, a_run(tmp_path / "test")
    mirror = mirror_of(run, url, timeout_seconds=3.0)  # which a sound one keeps on a busy machine, too
    mirror.save()

    def hang(method: str, path: str) -> int | None:
        time.sleep(15)
        return 500

    proxy.fault = hang
    with pytest.raises(OSError, match=r"(?i)time|answer"):
        mirror.save()


def test_of_two_drivers_one_is_refused_by_s3_itself(tmp_path: Path, bad_days: tuple[str, BadDays]) -> None:
    (url, _), run = bad_days, a_run(tmp_path / "test")
    first = mirror_of(run, url)
    first.save()
    second = mirror_of(run, url)
    second._number -= 1  # as if it had not seen that there is one
    second.save()
    with pytest.raises(TakenOverError, match="another driver"):
        first.save()


def test_storage_that_cannot_be_reached_or_used_is_told_before_a_run(
    tmp_path: Path, bad_days: tuple[str, BadDays], monkeypatch: pytest.MonkeyPatch
) -> None:
    (url, proxy), run = bad_days, a_run(tmp_path / "test")
    proxy.fault = lambda method, path: 403 if method == "PUT" else None
    with pytest.raises(ClusterError, match="cannot be mirrored to"):
        mirror_of(run, url)
    proxy.fault = lambda method, path: 403 if method == "DELETE" or path.endswith("?delete") else None
    with pytest.raises(ClusterError, match="cannot be mirrored to"):
        mirror_of(run, url)
    proxy.fault = lambda method, path: None
    with pytest.raises(ClusterError, match="cannot be mirrored to s3://nobodys"):
        mirror_of(run, "s3://nobodys/runs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(ClusterError, match="cannot be mirrored to"):
        mirror_of(run, url)


def test_keys_that_expire_are_read_again_from_where_they_were_renewed(
    tmp_path: Path, bad_days: tuple[str, BadDays], monkeypatch: pytest.MonkeyPatch
) -> None:
    (url, proxy), run, keys = bad_days, a_run(tmp_path / "test"), tmp_path / "credentials"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    keys.write_text("[default]\naws_access_key_id = FIRST\naws_secret_access_key = a\n")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    mirror = mirror_of(run, url)
    mirror.save()
    proxy.expired = "FIRST"
    for _ in range(2):  # what was made anew before they were renewed is refused, too
        with pytest.raises(OSError, match=r"of last hour|Bad Request"):
            mirror.save()
    keys.write_text("[default]\naws_access_key_id = SECOND\naws_secret_access_key = b\n")
    checkpoint(run, 1)
    mirror.save()
    assert checkpoints(restored(url, tmp_path / "there")) == [1]


def test_an_object_that_became_empty_leads_to_the_manifest_before(
    tmp_path: Path, bad_days: tuple[str, BadDays]
) -> None:
    (url, _), run = bad_days, a_run(tmp_path / "test")
    mirror, place = mirror_of(run, url), Place(url, timeout_seconds=10)
    for number in (1, 2):
        checkpoint(run, number)
        newest = mirror.save()
    (piece,) = newest.files["checkpoints/0000000002/trainer.pt"]
    place.write(object_of(piece), b"")
    assert checkpoints(restored(url, tmp_path / "there")) == [1]


def test_a_run_on_ray_whose_machine_is_lost_goes_on_from_s3(
    tmp_path: Path, bad_days: tuple[str, BadDays]
) -> None:
    url, _ = bad_days
    place = Place(url, timeout_seconds=10)
    settings = [*tiny_overrides(learner__checkpoint_every_seconds=5.0), "mirror.every_seconds=2"]
    first, second = (RunFolder(tmp_path / machine / "tic_tac_toe") for machine in ("first", "second"))
    begin = ["train", "tic_tac_toe", *settings]
    program = Program(tmp_path / "first.txt", *begin, f"mirror.url={url}", "--runs", first.root.parent)
    try:
        program.until(lambda: first.checkpoints.exists() and len(checkpoints(first)) >= 2, "two checkpoints")
        known, now = games_on_disk(first), manifest_numbers(place)[-1]
        program.until(lambda: manifest_numbers(place)[-1] >= now + 2, "the next rounds")
        processes = program.family()
        program.send(signal.SIGKILL)
        program.wait()
        assert_all_end(processes)
        before = newest_moment(first.root)["learner/steps"]
    finally:
        program.end()
    shutil.rmtree(first.root.parent)

    began = time.monotonic()
    again = Program(tmp_path / "again.txt", *begin, "--resume", url, "--runs", second.root.parent)
    try:
        again.until(second.root.exists, "the folder")
        steps = newest_moment(second.root)["learner/steps"]
        files = set(files_below(second.root / "checkpoints"))
        again.until(lambda: newest_moment(second.root)["learner/steps"] > steps, "a learner step")
        again.until(lambda: bool(set(files_below(second.root / "checkpoints")) - files), "a checkpoint")
        print(f"from the command to a checkpoint of the restored run: {time.monotonic() - began:.1f} s")
        print(f"steps {before} when it was lost, {steps} restored")
        again.send(signal.SIGINT)
        assert again.wait() == 0
    finally:
        again.end()
    restored_games = games_on_disk(second)
    assert set(known) <= set(restored_games)
    assert len(restored_games) == len(set(restored_games))
    assert "restored" in again.said
    assert f"mirrored to {url}" in again.said
