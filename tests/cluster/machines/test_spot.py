"""Notices of clouds: their services on loopback, asked as a machine would ask them."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.machines import spot
from cluster.machines.spot import (
    AWS_SECONDS,
    AZURE_SECONDS,
    FIND_AGAIN_SECONDS,
    GCP_SECONDS,
    LOOK_SECONDS,
    MOST_FAILURES,
    Told,
    Watch,
    clouds,
)
from tests.cluster.metadata_service import Service, serving

NOW = 1796113320.0
"""2026-12-01 08:22:00 UTC."""
ACTION, REBALANCE = "meta-data/spot/instance-action", "meta-data/events/recommendations/rebalance"


class Machine:
    """A machine of a cloud, whose time passes when it is told to."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.seconds = 0.0
        self.watch = Watch(
            clouds(service.url), clock=lambda: NOW + self.seconds, elapsed=lambda: 100.0 + self.seconds
        )

    def later(self, seconds: float = LOOK_SECONDS) -> Told:
        self.seconds += seconds
        return self.watch.look()


@pytest.fixture
def aws() -> Iterator[Machine]:
    with serving(Service("aws")) as service:
        yield Machine(service)


@pytest.fixture
def gcp() -> Iterator[Machine]:
    with serving(Service("gcp")) as service:
        yield Machine(service)


@pytest.fixture
def azure() -> Iterator[Machine]:
    with serving(Service("azure")) as service:
        yield Machine(service)


def event(**differs: Any) -> dict[str, Any]:
    """Return one of Azure's scheduled events."""
    return {
        "EventId": "A1B2",
        "EventType": "Preempt",
        "ResourceType": "VirtualMachine",
        "Resources": ["worker_3"],
        "EventStatus": "Scheduled",
        "NotBefore": "Tue, 01 Dec 2026 08:22:40 GMT",
        "Description": "",
        "EventSource": "Platform",
        "DurationInSeconds": -1,
    } | differs


def test_each_cloud_is_found_by_its_own_answers(aws: Machine, gcp: Machine, azure: Machine) -> None:
    assert aws.later() == Told("aws")
    assert gcp.later() == Told("gcp")
    assert azure.later() == Told("azure")


def test_aws_tells_what_it_will_do_and_when(aws: Machine) -> None:
    aws.later()
    aws.service.documents[ACTION] = json.dumps({"action": "terminate", "time": "2026-12-01T08:24:03Z"})
    told = aws.later()
    assert (told.cloud, told.what, told.at_risk) == ("aws", "terminate", False)
    assert told.leaves_in_seconds == pytest.approx(117.0)
    assert aws.later(17.0).leaves_in_seconds == pytest.approx(100.0)
    assert aws.later(1000.0).leaves_in_seconds == 0.0


@pytest.mark.parametrize(
    ("document", "left"),
    [
        ({"action": "stop", "time": "soon"}, AWS_SECONDS),
        ({"action": "terminate", "time": None}, AWS_SECONDS),
        ({"action": "hibernate"}, 0.0),
        ({}, AWS_SECONDS),
    ],
)
def test_a_notice_of_aws_that_names_no_time_is_one_all_the_same(
    aws: Machine, document: dict[str, Any], left: float
) -> None:
    aws.service.documents[ACTION] = json.dumps(document)
    assert aws.later().leaves_in_seconds == left


def test_aws_may_fear_for_a_machine_before_it_takes_it(aws: Machine) -> None:
    aws.service.documents[REBALANCE] = json.dumps({"noticeTime": "2026-12-01T08:20:00Z"})
    assert aws.later() == Told("aws", at_risk=True)


def test_a_token_of_aws_that_has_run_out_is_replaced(aws: Machine) -> None:
    aws.later()
    aws.service.tokens.clear()
    aws.service.documents[ACTION] = json.dumps({"action": "terminate", "time": "2026-12-01T08:24:00Z"})
    assert aws.later().what == "terminate"
    assert len(aws.service.tokens) == 1


def test_google_says_that_and_not_when(gcp: Machine) -> None:
    assert gcp.later().leaves_in_seconds is None
    gcp.service.preempted = True
    assert gcp.later() == Told("gcp", leaves_in_seconds=GCP_SECONDS - LOOK_SECONDS, what="preempted")


@pytest.mark.parametrize(
    ("differs", "left"),
    [
        ({}, 40.0 - LOOK_SECONDS),
        ({"EventType": "Terminate"}, 40.0 - LOOK_SECONDS),
        ({"NotBefore": "2026-12-01T08:22:40Z"}, 40.0 - LOOK_SECONDS),
        ({"NotBefore": "", "EventStatus": "Started"}, 0.0),
        ({"NotBefore": ""}, AZURE_SECONDS),
        ({"NotBefore": "Tue, 01 Dec 2026 08:00:00 GMT"}, 0.0),
        ({"EventType": "Freeze"}, None),
        ({"Resources": ["worker_4"]}, None),
        ({"Resources": None}, None),
    ],
    ids=["", "scale set", "iso", "started", "no time", "late", "survived", "of another", "of nobody"],
)
def test_azure_names_the_machines_and_what_happens_to_them(
    azure: Machine, differs: dict[str, Any], left: float | None
) -> None:
    azure.service.events = [event(EventType="Reboot"), event(**differs)]
    told = azure.later()
    assert told.leaves_in_seconds == left
    assert told.what == ("" if left is None else differs.get("EventType", "Preempt"))


def test_of_two_events_the_nearer_counts(azure: Machine) -> None:
    azure.service.events = [event(), event(NotBefore="Tue, 01 Dec 2026 08:22:30 GMT")]
    assert azure.later().leaves_in_seconds == 30.0 - LOOK_SECONDS


def test_nobody_is_asked_more_than_once_every_few_seconds(aws: Machine) -> None:
    aws.later()
    asked = len(aws.service.asked)
    for _ in range(5):
        aws.later(LOOK_SECONDS / 10)
    assert len(aws.service.asked) == asked
    aws.later()
    assert len(aws.service.asked) == asked + 2


def test_a_notice_stays_and_nobody_is_asked_any_more(gcp: Machine) -> None:
    gcp.service.preempted = True
    gcp.later()
    asked = len(gcp.service.asked)
    gcp.service.preempted = False
    assert gcp.later().what == "preempted"
    assert len(gcp.service.asked) == asked


def test_where_no_cloud_answers_it_is_silent_and_asks_again_after_a_minute() -> None:
    with serving(Service("")) as service:
        machine = Machine(service)
        assert machine.later() == Told()
        asked = len(service.asked)
        assert machine.later() == Told()
        assert len(service.asked) == asked
        service.cloud = "gcp"
        assert machine.later(FIND_AGAIN_SECONDS) == Told("gcp")


def test_a_service_that_fails_is_asked_on_and_after_long_looked_for_anew(azure: Machine) -> None:
    azure.later()
    azure.service.broken = True
    for _ in range(MOST_FAILURES - 1):
        assert azure.later() == Told("azure")
    assert azure.later() == Told()
    azure.service.broken = False
    azure.service.events = [event(NotBefore="")]
    assert azure.later().leaves_in_seconds == AZURE_SECONDS


@pytest.mark.parametrize("answer", ["", "[]", "<html>sign in</html>", '{"Events": 1}', '{"Events": [1]}'])
def test_what_is_no_answer_of_a_cloud_is_no_notice(
    aws: Machine, azure: Machine, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    azure.later()
    monkeypatch.setattr(azure.service, "_azure", lambda *asked: (200, answer, {}))
    assert azure.later() == Told("azure")
    if answer != '{"Events": 1}' and answer != '{"Events": [1]}':
        aws.service.documents[ACTION] = answer
        assert aws.later() == Told("aws")


def test_a_port_that_takes_calls_and_never_answers_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spot, "TIMEOUT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        began = time.monotonic()
        assert Watch(clouds(f"http://127.0.0.1:{deaf.getsockname()[1]}")).look() == Told()
        assert time.monotonic() - began < 30


def test_no_proxy_is_asked(gcp: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert gcp.later() == Told("gcp")
