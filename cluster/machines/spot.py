"""Notices that a cloud gives a machine before it takes it away, read from the metadata service that only it can reach.

AWS tells 2 minutes before, Google Cloud and Azure some 30 s. Imports nothing of the system: this runs on every machine
that may be taken away.
"""

import contextlib
import email.utils
import http.client
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

METADATA = "http://169.254.169.254"
"""Where all three clouds answer; packets to it do not leave the machine's host."""
TIMEOUT_SECONDS = 1.0
MOST_BYTES = 1 << 16
TOKEN_SECONDS = 21600
AWS_SECONDS, GCP_SECONDS, AZURE_SECONDS = 120.0, 30.0, 30.0
"""What is left at a notice that names no time, as each cloud documents it."""
LOOK_SECONDS = 3.0
"""Between two looks; who sees a notice sees it this late at most."""
FIND_AGAIN_SECONDS = 60.0
"""Before the clouds are tried again where none answered: a service that starts late, or a machine of one's own."""
MOST_FAILURES = 20
"""Looks in a row without an answer, after which the cloud is looked for anew."""


class MetadataError(Exception):
    """The metadata service does not answer, or not as documented."""


class Answer(NamedTuple):
    """What it answered, also with an error's status."""

    status: int
    text: str
    headers: Message


@dataclass(frozen=True, slots=True)
class Told:
    """What a machine knows of its end.

    Attributes:
        cloud: "aws", "gcp" or "azure"; empty where none answers.
        leaves_in_seconds: from now; None while there is no notice.
        what: is to happen, in the cloud's word.
        at_risk: whether the cloud expects to take it away soon, without having said when.
    """

    cloud: str = ""
    leaves_in_seconds: float | None = None
    what: str = ""
    at_risk: bool = False


class Notice(NamedTuple):
    """`what` is to happen at `at`, in seconds since 1970."""

    what: str
    at: float


class Look(NamedTuple):
    notice: Notice | None = None
    at_risk: bool = False


class Cloud(Protocol):
    """One cloud's metadata service. Both methods raise MetadataError when it does not answer as documented."""

    name: str

    def find(self) -> bool:
        """Whether this machine is of that cloud."""
        ...

    def look(self, now: float) -> Look:
        """Return what it says of this machine; `now` is in seconds since 1970."""
        ...


def ask(url: str, headers: Mapping[str, str], *, method: str = "GET") -> Answer:
    """Ask a metadata service, never through a proxy.

    Raises:
        MetadataError: when nobody answers, or takes longer from one packet to the next than `TIMEOUT_SECONDS`.
    """
    where = urlsplit(url)
    try:
        connection = http.client.HTTPConnection(where.netloc, timeout=TIMEOUT_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, url.removeprefix(f"http://{where.netloc}"), headers=dict(headers))
            answer = connection.getresponse()
            text = answer.read(MOST_BYTES).decode(errors="replace")
            return Answer(answer.status, text, answer.headers)
    except (OSError, http.client.HTTPException) as error:
        raise MetadataError(f"{url}: {error}") from error


class Aws:
    """EC2, by version 2 of its service: every question carries a token."""

    name = "aws"

    def __init__(self, base: str = METADATA) -> None:
        self._base = base
        self._token = ""

    def find(self) -> bool:
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": f"{TOKEN_SECONDS}"}
        answer = ask(f"{self._base}/latest/api/token", ttl, method="PUT")
        self._token = answer.text.strip() if answer.status == 200 else ""
        return bool(self._token) and self._get("meta-data/instance-id").status == 200

    def look(self, now: float) -> Look:
        action = self._document("meta-data/spot/instance-action")
        if action is not None:
            what = str(action.get("action") or "terminate")
            # "hibernate" begins at once, and is told without a time.
            at = now if what == "hibernate" else now + AWS_SECONDS
            return Look(Notice(what, _seconds(action.get("time"), unless=at)))
        return Look(at_risk=self._document("meta-data/events/recommendations/rebalance") is not None)

    def _document(self, path: str) -> dict[str, Any] | None:
        """Return a document that is there from the notice on; None before."""
        answer = self._get(path)
        if answer.status == 401 and self.find():  # the token has run out
            answer = self._get(path)
        return None if answer.status == 404 else _json(answer, path)

    def _get(self, path: str) -> Answer:
        return ask(f"{self._base}/latest/{path}", {"X-aws-ec2-metadata-token": self._token})


class Gcp:
    """Compute Engine, which says that the machine is being taken away, and not when."""

    name = "gcp"

    def __init__(self, base: str = METADATA) -> None:
        self._url = f"{base}/computeMetadata/v1/instance/preempted"

    def find(self) -> bool:
        answer = ask(self._url, {"Metadata-Flavor": "Google"})
        return answer.status == 200 and answer.headers.get("Metadata-Flavor") == "Google"

    def look(self, now: float) -> Look:
        answer = ask(self._url, {"Metadata-Flavor": "Google"})
        if answer.status != 200 or answer.text.strip() not in ("TRUE", "FALSE"):
            raise MetadataError(f"{self._url}: {answer.status} {answer.text[:80]!r}")
        taken = answer.text.strip() == "TRUE"
        return Look(Notice("preempted", now + GCP_SECONDS - LOOK_SECONDS) if taken else None)


class Azure:
    """Scheduled events, which name every machine of a set: only those that name this one count."""

    name = "azure"
    _own_name = "instance/compute/name?api-version=2021-02-01&format=text"
    _events = "scheduledevents?api-version=2020-07-01"

    def __init__(self, base: str = METADATA) -> None:
        self._base = base
        self._machine = ""

    def find(self) -> bool:
        answer = self._get(self._own_name)
        self._machine = answer.text.strip() if answer.status == 200 else ""
        return bool(self._machine)

    def look(self, now: float) -> Look:
        events = _json(self._get(self._events), self._events).get("Events")
        if not isinstance(events, list):
            raise MetadataError(f"{self._events}: no list of events")
        notices = [notice for event in events if (notice := self._notice(event, now)) is not None]
        return Look(min(notices, key=lambda notice: notice.at, default=None))

    def _get(self, path: str) -> Answer:
        return ask(f"{self._base}/metadata/{path}", {"Metadata": "true"})

    def _notice(self, event: Any, now: float) -> Notice | None:
        """Return an event as a notice; None when it is of another machine, or one that a machine survives."""
        if not isinstance(event, dict) or self._machine not in (event.get("Resources") or ()):
            return None
        what = event.get("EventType")
        if what not in ("Preempt", "Terminate"):
            return None
        unless = now if event.get("EventStatus") == "Started" else now + AZURE_SECONDS
        return Notice(what, _seconds(event.get("NotBefore"), unless=unless))


def clouds(base: str = METADATA) -> tuple[Cloud, ...]:
    """Return all clouds, as they answer at `base`."""
    return Aws(base), Gcp(base), Azure(base)


class Watch:
    """Looks for a notice: finds the cloud, asks it at most every few seconds, keeps the first notice for good.

        state      cloud  notice   a look
        searching  -      -        tries each cloud, and rests for a minute when none answers
        watching   set    -        asks; without an answer for long it is searching again
        warned     set    set      asks nobody: what is announced is not taken back

    Args:
        clouds: in the order in which they are tried.
        clock: seconds since 1970; notices name their time by it.
        elapsed: seconds that never jump.
    """

    def __init__(
        self,
        clouds: Sequence[Cloud],
        *,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clouds = clouds
        self._clock = clock
        self._elapsed = elapsed
        self._cloud: Cloud | None = None
        self._looked = Look()
        self._leaves_at = math.inf
        self._next_look = -math.inf
        self._failures = 0

    def look(self) -> Told:
        """Ask, if it is time, and return what is known. Takes some seconds at most; never raises."""
        if self._looked.notice is None and self._elapsed() >= self._next_look:
            if self._cloud is None:
                self._find()
            if self._cloud is not None:
                self._ask(self._cloud)
        return self._told()

    def _find(self) -> None:
        self._cloud = next((cloud for cloud in self._clouds if _found(cloud)), None)
        self._failures = 0
        if self._cloud is None:
            self._next_look = self._elapsed() + FIND_AGAIN_SECONDS

    def _ask(self, cloud: Cloud) -> None:
        now = self._clock()
        try:
            self._looked, self._failures = cloud.look(now), 0
        except MetadataError:
            self._failures += 1
            if self._failures >= MOST_FAILURES:
                self._cloud = None
        self._next_look = self._elapsed() + LOOK_SECONDS
        if self._looked.notice is not None:
            self._leaves_at = self._elapsed() + max(0.0, self._looked.notice.at - now)

    def _told(self) -> Told:
        name = self._cloud.name if self._cloud is not None else ""
        notice = self._looked.notice
        if notice is None:
            return Told(name, at_risk=self._looked.at_risk)
        left = max(0.0, self._leaves_at - self._elapsed())
        return Told(name, leaves_in_seconds=left, what=notice.what)


def _found(cloud: Cloud) -> bool:
    try:
        return cloud.find()
    except MetadataError:
        return False


def _json(answer: Answer, path: str) -> dict[str, Any]:
    """Return an answer's object. Raises MetadataError when it is none."""
    try:
        told = json.loads(answer.text)
    except ValueError:
        told = None
    if answer.status != 200 or not isinstance(told, dict):
        raise MetadataError(f"{path}: {answer.status} {answer.text[:80]!r}")
    return told


def _seconds(text: Any, *, unless: float) -> float:
    """Return a time as seconds since 1970: "2026-12-01T08:22:00Z" of AWS, "Tue, 01 Dec 2026 08:22:00 GMT" of Azure.

    What is neither counts as `unless`: that a notice cannot be read to its end makes it no less of one.
    """
    if not isinstance(text, str):
        return unless
    for parse in (datetime.fromisoformat, email.utils.parsedate_to_datetime):
        try:
            time_told = parse(text)
        except (ValueError, OverflowError):
            continue
        return (time_told if time_told.tzinfo else time_told.replace(tzinfo=UTC)).timestamp()
    return unless
