"""How many parts each machine gets: machines in, parts out."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.run.placement import (
    ACTOR_BYTES,
    SERVER_BYTES,
    Node,
    Share,
    asked_of,
    check_kinds,
    gpu_share,
    share_beside,
    shares,
)
from configs.schema import PerMachine
from core.errors import UsageError

GIB = 1 << 30
HOME = Node("h", "head", 8, is_home=True)
SPOT = Node("s", "spot", 16, labels={"ray.io/market-type": "spot"})
WITH_GPU = Node("g", "gpu", 12, gpus=2)


def of(*nodes: Node, actors: PerMachine = "auto", servers: PerMachine = "auto") -> dict[str, tuple[int, int]]:
    """Return actors and servers by the id of a machine."""
    return {
        id: (share.actors, share.servers)
        for id, share in shares(nodes, actors=actors, servers=servers).items()
    }


def test_without_gpus_half_of_the_cores_of_each_machine_play() -> None:
    assert of(HOME, SPOT) == {"h": (4, 4), "s": (8, 8)}
    assert of(HOME, Node("one", "one", 1)) == {"h": (4, 4), "one": (1, 1)}
    assert of(HOME, Node("three", "three", 3)) == {"h": (4, 4), "three": (2, 1)}


def test_where_a_machine_has_gpus_the_others_only_play_and_home_stays_as_it_is() -> None:
    assert of(HOME, SPOT, WITH_GPU) == {"h": (4, 4), "s": (16, 0), "g": (10, 2)}
    assert of(Node("h", "head", 8, gpus=1, is_home=True), SPOT) == {"h": (6, 1), "s": (16, 0)}


def test_gpus_where_no_server_has_answered_change_nothing_for_the_others() -> None:
    for serving, spot in ((set(), (8, 8)), ({"s"}, (8, 8)), ({"g"}, (16, 0))):
        found = shares([HOME, SPOT, WITH_GPU], actors="auto", servers="auto", serving=serving)
        assert found == {"h": Share(4, 4), "s": Share(*spot), "g": Share(10, 2)}


@given(st.integers(1, 8), st.integers(1, 40), st.integers(1, 40))
def test_servers_fit_beside_a_learner_that_holds_its_share_already(
    gpus: int, began: int, servers: int
) -> None:
    held = gpu_share(began + 1, gpus)
    each = share_beside(1, held, servers=servers, gpus=gpus)
    places = [math.floor((1.0 - held) / each + 1e-6)] + [math.floor(1.0 / each + 1e-6)] * (gpus - 1)

    assert 0 < each <= 1
    assert sum(places) >= servers
    if servers == began:
        assert each == pytest.approx(held)


def test_servers_fit_beside_a_team_and_none_is_made_without_gpus() -> None:
    assert share_beside(2, 0.6, servers=2, gpus=2) == pytest.approx(0.4)
    assert share_beside(2, 0.6, servers=3, gpus=2) == pytest.approx(0.2)
    assert share_beside(2, 0.6, servers=4, gpus=3) == pytest.approx(0.4)
    assert share_beside(1, 0.0, servers=3, gpus=0) == 0.0


def test_gpus_on_which_nobody_may_evaluate_change_nothing() -> None:
    assert of(HOME, SPOT, WITH_GPU, servers={"gpu": 0}) == {"h": (4, 4), "s": (8, 8), "g": (12, 0)}


def test_what_is_asked_counts_by_the_first_kind_that_a_machine_is_of() -> None:
    by_kind: PerMachine = {"home": 1, "spot": 12, "gpu": 3, "others": 2}

    assert of(HOME, SPOT, WITH_GPU, Node("o", "other", 4), actors=by_kind, servers=1) == {
        "h": (1, 1),
        "s": (12, 1),
        "g": (3, 1),
        "o": (2, 1),
    }
    assert asked_of(SPOT, {"others": 5, "spot": 12}) == 5
    assert asked_of(SPOT, {"ray.io/market-type=spot": 7}) == 7
    assert asked_of(SPOT, {"home": 7}) == "auto"


def test_home_may_be_kept_free_of_games_but_not_of_a_server() -> None:
    assert of(HOME, SPOT, actors={"home": 0}, servers={"home": 0})["h"] == (0, 1)


def test_a_machine_that_is_labelled_so_or_has_no_cores_takes_no_part() -> None:
    left_alone = Node("l", "left", 16, labels={"tamen": "no"})

    assert of(HOME, left_alone, Node("n", "none", 0)).keys() == {"h"}


def test_a_machine_where_nobody_plays_needs_no_server_without_a_gpu() -> None:
    assert of(HOME, SPOT, WITH_GPU, actors={"others": 0})["s"] == (0, 0)
    assert of(HOME, SPOT, actors={"spot": 0})["s"] == (0, 0)


@pytest.mark.parametrize(
    ("mib", "share"), [(300, (0, 0)), (1024, (2, 0)), (1400, (1, 1)), (8192, (6, 6)), (65536, (8, 8))]
)
def test_what_does_not_fit_into_memory_is_left_out(mib: int, share: tuple[int, int]) -> None:
    assert of(HOME, Node("s", "spot", 16, memory_bytes=mib << 20))["s"] == share


def test_there_is_memory_for_spares_where_actors_play() -> None:
    full = Node("s", "spot", 4, memory_bytes=2 * (ACTOR_BYTES + SERVER_BYTES))

    def with_spares(spares: int, actors: PerMachine = "auto") -> Share:
        return shares([HOME, full], actors=actors, servers="auto", spares=spares)["s"]

    assert with_spares(0) == Share(2, 2)
    assert with_spares(1) == Share(3, 1)
    assert with_spares(1, 7).actors == 7
    assert with_spares(1, 0) == with_spares(0, 0)


def test_a_kind_that_no_machine_is_of_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        check_kinds({"home": 1, "sopt": 3}, [HOME, Node("x", "x", 4, labels={"tamen": "big"})], name="actors")

    assert "'sopt'" in caught.value.what
    assert "big, gpu, home" in caught.value.why
    check_kinds({"spot": 3, "gpu": 1, "others": "auto"}, [HOME], name="actors")
    check_kinds(12, [HOME], name="actors")


def machines() -> st.SearchStrategy[list[Node]]:
    labels = st.dictionaries(
        st.sampled_from(["tamen", "ray.io/market-type"]), st.sampled_from(["spot", "big", "no"])
    )
    node = st.builds(
        Node,
        id=st.uuids().map(str),
        host=st.just("host"),
        cpus=st.integers(0, 64),
        gpus=st.integers(0, 4),
        memory_bytes=st.none() | st.integers(0, 64 * GIB),
        labels=labels,
    )
    home = st.builds(
        Node, id=st.just("home"), host=st.just("host"), cpus=st.integers(1, 64), is_home=st.just(True)
    )
    return st.tuples(home, st.lists(node, max_size=6)).map(lambda both: [both[0], *both[1]])


def per_machine() -> Any:
    number = st.just("auto") | st.integers(0, 40)
    kinds = st.sampled_from(["home", "others", "gpu", "spot", "big"])
    return st.just("auto") | st.integers(1, 40) | st.dictionaries(kinds, number, min_size=1)


@given(machines(), per_machine(), per_machine(), st.randoms())
def test_whatever_machines_there_are_the_rules_hold(
    nodes: list[Node], actors: PerMachine, servers: PerMachine, random: Any
) -> None:
    found = shares(nodes, actors=actors, servers=servers)
    assert found.keys() == {node.id for node in nodes if node.takes_part}
    assert found["home"].servers >= 1
    for node in nodes:
        share = found.get(node.id, Share(0, 0))
        assert min(share.actors, share.servers) >= 0
        asked = asked_of(node, actors)
        if node.takes_part and asked != "auto":
            assert share.actors == asked
        if asked == asked_of(node, servers) == "auto" and not node.is_home and node.takes_part:
            assert share.actors + share.servers <= max(2, node.cpus + node.gpus)
            if node.memory_bytes is not None and not node.gpus:
                assert share.actors * ACTOR_BYTES + share.servers * SERVER_BYTES <= node.memory_bytes
        per_gpu = gpu_share(share.servers, node.gpus)
        assert per_gpu * share.servers <= node.gpus + 1e-9
    shuffled = random.sample(nodes, len(nodes))
    assert shares(shuffled, actors=actors, servers=servers) == found


@given(machines(), machines())
def test_a_machine_without_gpus_that_comes_or_goes_changes_nothing_for_the_others(
    nodes: list[Node], more: list[Node]
) -> None:
    plain = [node for node in more[1:] if not node.gpus]
    alone = shares(nodes, actors="auto", servers="auto")

    assert alone.items() <= shares([*nodes, *plain], actors="auto", servers="auto").items()
