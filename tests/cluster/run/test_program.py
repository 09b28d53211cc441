"""Who takes part in a run, on machines of every size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.run.program import Machine, check_kinds_at_home, plan, plan_serving
from core.errors import UsageError
from tests.cluster.tiny import tiny_config

CONFIG = tiny_config(evaluation__games=4)


def counts(cpus: int, gpus: int = 0, **changed: object) -> dict[str, int]:
    roles = plan(tiny_config(evaluation__games=4, **changed), Machine(cpus, gpus)).roles
    return {role.name: role.count for role in roles}


def test_a_small_machine_has_one_of_each() -> None:
    one_of_each = dict.fromkeys(("store", "replay", "learner", "inference", "actor", "evaluator"), 1)

    assert counts(1) == counts(2) == one_of_each


def test_without_a_gpu_half_of_the_cores_play_and_half_evaluate() -> None:
    assert counts(16)["actor"] == counts(16)["inference"] == 8


def test_with_gpus_there_is_a_server_for_each_and_the_cores_play() -> None:
    assert (counts(16, 2)["actor"], counts(16, 2)["inference"]) == (14, 2)


def test_what_the_configuration_says_counts() -> None:
    assert counts(16, actors__count=3, inference__servers=2) | {"actor": 3, "inference": 2} == counts(
        16, actors__count=3, inference__servers=2
    )


def test_home_is_of_the_kinds_that_its_labels_say() -> None:
    config = tiny_config(inference__servers={"on-demand": 2}, actors__count={"on-demand": 3})
    program = plan(config, Machine(8, 0), labels={"ray.io/market-type": "on-demand"})

    assert (program.count("inference"), program.count("actor")) == (2, 3)
    assert plan(config, Machine(8, 0)).count("inference") == 4


def test_a_server_is_given_at_the_start_what_it_is_given_later() -> None:
    for gpus, learn in ((0, True), (1, True), (2, True), (1, False)):
        program = plan(CONFIG, Machine(16, gpus), learn=learn)
        role = program.role("inference")
        assert program.server(role.count, gpus).num_gpus == pytest.approx(role.num_gpus)


def test_a_run_without_matches_has_no_evaluator() -> None:
    assert plan(tiny_config(evaluation__games=0), Machine(2, 0)).count("evaluator") == 0


def test_who_only_plays_needs_neither_learner_nor_evaluator() -> None:
    roles = [role.name for role in plan(CONFIG, Machine(2, 0), learn=False).roles]

    assert roles == ["store", "replay", "inference", "actor"]


def test_who_only_answers_needs_a_store_and_servers() -> None:
    assert [(role.name, role.count) for role in plan_serving(Machine(4, 0), servers=3).roles] == [
        ("store", 1),
        ("inference", 3),
    ]


@given(st.integers(1, 256), st.integers(0, 8), st.booleans())
def test_a_role_starts_after_all_whom_it_asks_and_ray_has_room_for_everyone(
    cpus: int, gpus: int, learn: bool
) -> None:
    program = plan(CONFIG, Machine(cpus, gpus), learn=learn)
    started: set[str] = set()
    for role in program.roles:
        assert set(role.asks) <= started
        assert role.count >= 1
        started.add(role.name)
    shares = [role.num_gpus for role in program.roles for _ in range(role.count)]
    assert sum(role.count * role.num_cpus for role in program.roles) <= cpus
    assert sum(shares) <= gpus + 1e-9
    assert all(share <= 1 for share in shares)
    if gpus:
        assert program.role("inference").num_gpus > 0


@pytest.mark.parametrize(
    ("visible", "gpus"), [(None, 3), ("", 0), ("-1", 0), ("1", 1), ("0,2", 2), ("0,1,2,3,4", 3)]
)
def test_the_gpus_of_a_machine_are_those_that_cuda_may_see(
    visible: str | None, gpus: int, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
    monkeypatch.setattr("cluster.run.program.NVIDIA", str(tmp_path))
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert Machine.here().gpus == gpus
    assert Machine.here().cpus >= 1


@given(st.integers(1, 40), st.integers(1, 8))
def test_every_part_that_evaluates_or_learns_has_room_on_one_gpu(servers: int, gpus: int) -> None:
    share = plan_serving(Machine(4, gpus), servers=servers).role("inference").num_gpus
    on_one_gpu = int(1 / share + 1e-9)

    assert 0 < share <= 1
    assert on_one_gpu * gpus >= servers + 1
    assert plan_serving(Machine(4, 0), servers=servers).role("inference").num_gpus == 0


def test_what_does_not_fit_into_the_memory_at_home_is_left_out() -> None:
    def at_home(memory_gib: float, gpus: int = 0) -> tuple[int, int]:
        program = plan(CONFIG, Machine(64, gpus, memory_bytes=int(memory_gib * 2**30)))
        return program.count("actor"), program.count("inference")

    assert at_home(1000) == (32, 32)
    assert at_home(13) == (12, 9)  # and one actor in reserve
    assert at_home(0) == (1, 1)
    assert at_home(5, gpus=1) == (9, 1)


def test_where_no_machine_can_join_a_kind_that_none_is_of_is_refused() -> None:
    check_kinds_at_home(tiny_config(actors__count={"home": 1, "spot": 12}), Machine(2, 0))
    with pytest.raises(UsageError, match=r"actors\.count names 'spto', which no machine is"):
        check_kinds_at_home(tiny_config(actors__count={"home": 1, "spto": 12}), Machine(2, 0))
    with pytest.raises(UsageError, match=r"inference\.servers names 'hme'"):
        check_kinds_at_home(tiny_config(inference__servers={"hme": 1}), Machine(2, 0))
