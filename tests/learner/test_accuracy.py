"""What is counted as foretold is what a slow count by the words of the definition finds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.accuracy import BINS, FIRST_PLY, Accuracy

CELLS = 9


def random_rows(seed: int, count: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    cells = rng.integers(-1, 2, (count, CELLS)).astype(np.int8)
    cells[:, rng.integers(CELLS)] = 0
    action = np.array([rng.choice(np.flatnonzero(line == 0)) for line in cells], np.int16)
    action[rng.random(count) < 0.2] = -1
    plies = rng.integers(1, 8, count).astype(np.int16)
    rows = {
        "action": action,
        "outcome": rng.integers(-1, 2, count).astype(np.int8),
        "game": rng.integers(0, 5, count).astype(np.uint64),
        "ply": rng.integers(0, plies + 1).astype(np.int16),
        "plies": plies,
    }
    policy = rng.integers(0, 4, (count, CELLS)).astype(np.float32)  # with ties
    value = rng.choice([-1.0, -0.4, 0.0, 0.3, 1.0], count).astype(np.float32)
    return rows, cells, policy, value


def plainly(rows: dict[str, np.ndarray], cells: np.ndarray, policy: np.ndarray, value: np.ndarray) -> dict:
    first, three, moves, right, known, late, late_right, squares = 0, 0, 0, 0, 0, 0, 0, 0.0
    bins: dict[int, list[tuple[float, float]]] = {}
    for r in range(len(value)):
        action, outcome = int(rows["action"][r]), int(rows["outcome"][r])
        if action >= 0 and rows["ply"][r] >= FIRST_PLY:
            legal = [a for a in range(CELLS) if cells[r, a] == 0]
            best = sorted(legal, key=lambda a: (-policy[r, a], a))
            moves += 1
            first += best[0] == action
            three += action in best[:3]
        if outcome:
            known += 1
            good = (value[r] > 0 and outcome > 0) or (value[r] < 0 and outcome < 0)
            right += good
            squares += (float(value[r]) - outcome) ** 2
            if rows["ply"][r] >= rows["plies"][r] / 2:
                late += 1
                late_right += good
            probability = (1 + float(value[r])) / 2
            bins.setdefault(min(BINS - 1, int(probability * BINS)), []).append(
                (probability, (1 + outcome) / 2)
            )
    off = sum(abs(sum(said - came for said, came in pairs)) for pairs in bins.values())
    return {
        "policy_top1": first / moves if moves else None,
        "policy_top3": three / moves if moves else None,
        "value_accuracy": right / known if known else None,
        "value_accuracy_second_half": late_right / late if late else None,
        "value_mse": squares / known if known else None,
        "expected_error": off / known if known else None,
    }


@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), cut=st.integers(0, 60))
def test_figures_are_those_of_a_plain_count_whatever_the_parts(seed: int, count: int, cut: int) -> None:
    rows, cells, policy, value = random_rows(seed, count)
    accuracy = Accuracy()
    for part in (slice(0, cut), slice(cut, count)):
        accuracy.add(
            {name: column[part] for name, column in rows.items()}, cells[part], policy[part], value[part]
        )
    report = accuracy.report()
    found = report | {"expected_error": report["calibration"]["expected_error"]}
    for name, expected in plainly(rows, cells, policy, value).items():
        assert found[name] == (None if expected is None else pytest.approx(expected, abs=1e-6)), name
    assert report["games"] == len(set(rows["game"].tolist()))
    assert report["positions"] == count
    assert sum(line["positions"] for line in report["calibration"]["table"]) == np.count_nonzero(
        rows["outcome"]
    )


def test_each_ply_has_its_own_figures() -> None:
    rows, cells, policy, value = random_rows(5, 200)
    accuracy = Accuracy()
    accuracy.add(rows, cells, policy, value)
    by_ply = {line["ply"]: line for line in accuracy.report()["by_ply"]}
    assert sorted(by_ply) == sorted(set(rows["ply"].tolist()))
    for ply, line in by_ply.items():
        chosen = rows["ply"] == ply
        expected = plainly(
            {name: column[chosen] for name, column in rows.items()},
            cells[chosen],
            policy[chosen],
            value[chosen],
        )
        for name in ("policy_top1", "policy_top3", "value_accuracy", "value_mse"):
            wanted = expected[name]
            assert line[name] == (None if wanted is None else pytest.approx(wanted, abs=1e-6)), (ply, name)


def test_nothing_seen_is_no_share() -> None:
    report = Accuracy().report()
    assert report["positions"] == report["games"] == 0
    assert report["policy_top1"] is None
    assert report["value_accuracy_second_half"] is None
    assert report["by_ply"] == []


def test_a_network_that_says_nothing_foretells_nothing() -> None:
    rows, cells, policy, value = random_rows(1, 50)
    accuracy = Accuracy()
    accuracy.add(rows, cells, np.full_like(policy, np.nan), np.full_like(value, np.nan))
    report = accuracy.report()
    assert report["policy_top1"] == report["policy_top3"] == report["value_accuracy"] == 0
