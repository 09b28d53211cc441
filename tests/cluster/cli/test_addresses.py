"""Which Ray a verb runs on is clear before anything starts."""

import pytest

from cluster.cli.addresses import cluster_to_join
from core.errors import UsageError


@pytest.mark.parametrize("address", ["auto", "head:6379", "10.0.0.1:6379", "[::1]:6379", "a.b-c.example:1"])
def test_a_cluster_is_joined_at_its_address(address: str) -> None:
    assert cluster_to_join(address) == address


@pytest.mark.parametrize("address", [None, "", "local", "new"])
def test_without_an_address_a_cluster_of_its_own_is_started(address: str | None) -> None:
    assert cluster_to_join(address) is None


@pytest.mark.parametrize(
    "address",
    ["foo", "host:abc", ":6379", "host:", "host:0", "host:65536", "http://h:80", "a b:1", "::1:6379"],
)
def test_what_is_no_address_is_refused_with_those_that_are(address: str) -> None:
    with pytest.raises(UsageError, match=r"not the address[\s\S]*HOST:PORT[\s\S]*--address auto"):
        cluster_to_join(address)


def test_a_cluster_is_not_joined_from_outside() -> None:
    with pytest.raises(UsageError, match=r"from outside[\s\S]*on a node of that cluster"):
        cluster_to_join("ray://head:10001")
