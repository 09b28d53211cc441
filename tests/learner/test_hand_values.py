"""A network learns what hands are worth, and whatever interrupts it, the result is the same."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.fitting import HandFitSettings
from configs.schema import NetworkConfig, StepConfig
from core.errors import DataError, UsageError
from core.hands import NUM_HANDS, HandValueSpec, Street
from core.seeds import derive_rng
from learner.hand_objective import HandErrors, HandObjective, judge_hands
from learner.hand_rows import load_hand_rows
from learner.hand_values import HandFitting, fit_hand_values
from learner.objective import ROW_ID
from learner.offline import METRICS_FILE, Around
from networks.build import build_net, new_net
from networks.precision import resolve
from networks.weights import Weights
from poker.cards import live_hands
from poker.holdem import board_hands, strengths
from poker.showdowns import values_of_showdowns
from replay.hand_shards import HandShardAbout, hands_on, write_hand_shard
from tests.replay.hand_rows import STACK, about, some_samples, stored

NETWORK = NetworkConfig(layers=(64, 64), precision="fp32")
LEARNER = StepConfig(batch_rows=16, microbatch_rows=16, learning_rate=2e-3, weight_decay=0.0, ema_decay=0.5)
SETTINGS = HandFitSettings(epochs=2, mini_epoch_rows=32, warmup_steps=2)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def lowball_values(board: tuple[int, ...], ranges: np.ndarray) -> np.ndarray:
    """Return [2, H]: what hands win if the weaker one wins, nobody bets, and cards block nothing."""
    strong = strengths(board)[live_hands(board)]
    wins = np.sign(strong[None] - strong[:, None])
    return np.stack([wins @ ranges[1], wins @ ranges[0]])


def solved(
    path: Path, count: int, *, seed: int = 0, boards: int = 4, given: HandShardAbout | None = None
) -> Path:
    """Write samples on a few boards whose values are those of lowball."""
    rows, rng = some_samples(count, seed=seed), derive_rng(seed, "values")
    different = [tuple(sorted(rng.permutation(52)[:5].tolist())) for _ in range(boards)]
    rows["ranges"] = stored(rng.gamma(2.0, size=rows["ranges"].shape))
    for row in range(count):
        board = different[row % boards]
        rows["board"][row] = board
        rows["values"][row] = lowball_values(
            board, rows["ranges"][row].astype(np.float64) / hands_on("river")
        )
    rows["number"] += 1000 * seed
    write_hand_shard(path, rows, given or about())
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    for name, count, seed in (("train_0.npz", 40, 1), ("train_1.npz", 24, 2), ("validation_0.npz", 16, 3)):
        solved(folder / name, count, seed=seed)
    return folder


@dataclass
class FakePublisher:
    published: list[Weights] = field(default_factory=list)

    def publish(self, weights: Weights) -> None:
        self.published.append(weights)

    def newest_version(self) -> int | None:
        return self.published[-1].version if self.published else None


@dataclass
class Told:
    """What a fitting told, and when it is to stop."""

    stop_after: int | None = None
    publisher: FakePublisher = field(default_factory=FakePublisher)
    lines: list[str] = field(default_factory=list)
    progress: list[tuple[float, float, str]] = field(default_factory=list)

    def around(self) -> Around:
        return Around(
            publisher=self.publisher,
            progress=self._hear,
            should_stop=lambda: self.stop_after is not None and len(self.progress) >= self.stop_after,
            log=self.lines.append,
            clock=lambda: 0.0,
        )

    def _hear(self, done: float, total: float, unit: str) -> None:
        if unit == "samples":  # and not of those that are only read
            self.progress.append((done, total, unit))


def fitting(folder: Path, **changes: Any) -> HandFitting:
    return HandFitting(
        train=changes.pop("train", sorted(folder.glob("train_*.npz"))),
        validation=changes.pop("validation", sorted(folder.glob("validation_*.npz"))),
        settings=SETTINGS.model_copy(update=changes.pop("settings", {})),
        network=NETWORK.model_copy(update=changes.pop("network", {})),
        learner=LEARNER.model_copy(update=changes.pop("learner", {})),
        seed=changes.pop("seed", 7),
    )


def figures(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]


def test_a_few_samples_are_learnt_by_heart(shards: Path, tmp_path: Path) -> None:
    train = sorted(shards.glob("train_*.npz"))
    told = Told()
    settings = {"epochs": 30, "mini_epoch_rows": 960, "max_rows": 64}
    fit_hand_values(fitting(shards, settings=settings, network={"layers": (128,)}), tmp_path, told.around())
    (weights,) = told.publisher.published
    spec = HandValueSpec()
    rows = load_hand_rows(train, spec)
    assert len(rows) == 64
    objective, precision = HandObjective(spec, delta=1.0), resolve("fp32", "cpu")
    learnt, before = (
        judge_hands(net, rows.parts(20), objective, precision, delta=1.0)
        for net in (build_net(weights), new_net(spec, NETWORK, seed=1))
    )
    assert learnt["huber"] < 0.005 < 0.1 < before["huber"]
    assert all(each["correlation"] > 0.99 for each in learnt["by_player"])


def test_what_is_learnt_holds_on_boards_never_seen(shards: Path, tmp_path: Path) -> None:
    settings = {"epochs": 60, "mini_epoch_rows": 4000}
    counts = fit_hand_values(fitting(shards, settings=settings), tmp_path, Told().around())
    assert counts["best"]["validation"]["huber"] < 0.02


def test_each_mini_epoch_is_judged_and_written_down(shards: Path, tmp_path: Path) -> None:
    told = Told()
    settings = {"epochs": 1.25, "label_error": 0.003}
    counts = fit_hand_values(fitting(shards, settings=settings), tmp_path, told.around())
    lines = figures(tmp_path)
    assert [line["rows"] for line in lines] == [32, 64, 80]
    assert counts["rows"] == 80
    assert counts["steps"] == 5
    assert counts["finished"]
    assert told.progress[-1] == (80, 80, "samples")
    assert len(told.lines) == 3
    assert all("(labels 0.0030)" in line for line in told.lines)
    for line in lines:
        report = line["validation"]
        assert report["samples"] == 16
        assert report["label_error"] == 0.003
        assert 0 < report["exploitability"] < 0.006
        assert len(report["by_player"]) == 2
    assert lines[-1]["learning_rate"] < lines[0]["learning_rate"]


def test_the_best_weights_are_published_and_not_the_last(shards: Path, tmp_path: Path) -> None:
    """From showdowns to lowball, their opposite, the way leads past nothing, by which it is judged."""
    rows = some_samples(16, seed=5)
    rows["values"][:] = 0.0
    write_hand_shard(tmp_path / "nothing.npz", rows, about())
    judged_by = [tmp_path / "nothing.npz"]
    settings = {"epochs": 15, "mini_epoch_rows": 96}
    told = Told()
    counts = fit_hand_values(
        fitting(shards, validation=judged_by, settings=settings), tmp_path, told.around()
    )
    lines = figures(tmp_path)
    lowest = min(lines, key=lambda line: line["validation"]["huber"])
    assert counts["best"] == lowest != lines[-1]
    (weights,) = told.publisher.published
    spec = HandValueSpec()
    again = judge_hands(
        build_net(weights),
        load_hand_rows(judged_by, spec).parts(1000),
        HandObjective(spec, delta=1.0),
        resolve("fp32", "cpu"),
        delta=1.0,
    )
    assert again["huber"] == lowest["validation"]["huber"]


@pytest.mark.parametrize("stop_after", [1, 2, 5, 7])
def test_stopped_and_gone_on_with_it_ends_with_the_same_bytes(
    shards: Path, tmp_path: Path, stop_after: int
) -> None:
    straight, broken = Told(), Told(stop_after=stop_after)
    fit_hand_values(fitting(shards), tmp_path / "straight", straight.around())
    first = fit_hand_values(fitting(shards), tmp_path / "broken", broken.around())
    assert not first["finished"]
    assert not broken.publisher.published
    second = Told(publisher=broken.publisher)
    assert fit_hand_values(fitting(shards), tmp_path / "broken", second.around())["finished"]
    (one,), (other,) = straight.publisher.published, second.publisher.published
    assert one.to_bytes() == other.to_bytes()
    assert len(straight.progress) == len(broken.progress) + len(second.progress) == 8
    assert figures(tmp_path / "straight") == figures(tmp_path / "broken")


def test_what_is_finished_is_published_again_but_not_done_again(shards: Path, tmp_path: Path) -> None:
    first, second = Told(), Told()
    fit_hand_values(fitting(shards), tmp_path, first.around())
    assert fit_hand_values(fitting(shards), tmp_path, second.around())["finished"]
    assert not second.progress
    assert first.publisher.published[0].to_bytes() == second.publisher.published[0].to_bytes()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"settings": {"epochs": 3}}, "fit.epochs: 2 -> 3"),
        ({"network": {"layers": (8,)}}, "network.layers"),
        ({"learner": {"learning_rate": 1e-3}}, "learner.learning_rate"),
        ({"seed": 8}, "seed: 7 -> 8"),
    ],
)
def test_other_settings_are_refused(
    shards: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    fit_hand_values(fitting(shards), tmp_path, Told(stop_after=2).around())
    with pytest.raises(UsageError, match=named) as caught:
        fit_hand_values(fitting(shards, **changes), tmp_path, Told().around())
    assert len(str(caught.value).splitlines()) == 3


def test_what_is_only_told_may_change(shards: Path, tmp_path: Path) -> None:
    fit_hand_values(fitting(shards), tmp_path, Told(stop_after=2).around())
    told = Told()
    assert fit_hand_values(fitting(shards, settings={"label_error": 0.1}), tmp_path, told.around())[
        "finished"
    ]


def test_what_cannot_be_fitted_to_is_told(shards: Path, tmp_path: Path) -> None:
    train, validation = sorted(shards.glob("train_*.npz")), sorted(shards.glob("validation_*.npz"))
    with pytest.raises(UsageError, match="both learnt from and judged by"):
        fit_hand_values(fitting(shards, validation=train[:1]), tmp_path / "fit", Told().around())
    with pytest.raises(UsageError, match="nothing to learn from"):
        fit_hand_values(fitting(shards, train=[]), tmp_path / "fit", Told().around())
    with pytest.raises(UsageError, match="nothing to judge by"):
        fit_hand_values(fitting(shards, validation=[]), tmp_path / "fit", Told().around())
    other = solved(tmp_path / "other.npz", 2, given=HandShardAbout("river", 20_000, (0.5, 1.0)))
    with pytest.raises(UsageError, match="cannot be mixed"):
        fit_hand_values(fitting(shards, train=[*train, other]), tmp_path / "fit", Told().around())
    turn = tmp_path / "turn.npz"
    write_hand_shard(turn, some_samples(2, street="turn"), about("turn"))
    with pytest.raises(UsageError, match="samples are of the turn"):
        fit_hand_values(fitting(shards, validation=[*validation, turn]), tmp_path / "fit", Told().around())
    (tmp_path / "damaged.npz").write_bytes(other.read_bytes()[:-1])
    (tmp_path / "damaged.npz.json").write_bytes((tmp_path / "other.npz.json").read_bytes())
    with pytest.raises(DataError, match="digest"):
        fit_hand_values(fitting(shards, train=[tmp_path / "damaged.npz"]), tmp_path / "fit", Told().around())


def test_every_pass_has_every_sample_once_whatever_the_batches(shards: Path) -> None:
    rows = load_hand_rows(sorted(shards.glob("train_*.npz")), HandValueSpec())
    batches = [rows.batch(drawn, 24, seed=5) for drawn in range(0, 192, 24)]
    numbers = np.concatenate([batch["seq"] for batch in batches])
    passes = numbers.reshape(3, 64)
    assert all(len(set(one.tolist())) == 64 for one in passes)
    assert not np.array_equal(passes[0], passes[1])
    assert np.array_equal(rows.batch(50, 40, seed=5)["seq"], numbers[50:90])
    assert not np.array_equal(rows.batch(50, 40, seed=6)["seq"], numbers[50:90])
    assert set(ROW_ID) <= batches[0].keys()
    assert len(load_hand_rows(sorted(shards.glob("train_*.npz")), HandValueSpec(), most=50)) == 50


@pytest.mark.parametrize("street", ["river", "turn"])
def test_hands_are_seen_the_weakest_first(tmp_path: Path, street: Street) -> None:
    path, rows = tmp_path / "samples.npz", some_samples(3, street=street)
    write_hand_shard(path, rows, about(street))
    spec = HandValueSpec(street)
    seen = load_hand_rows([path], spec).take(slice(None))
    for row, board in enumerate(rows["board"].tolist()):
        hands = board_hands(tuple(sorted(board)))
        for name in ("ranges", "values"):
            spread = np.zeros((2, NUM_HANDS), np.float16)
            spread[:, live_hands(board)] = rows[name][row]
            assert np.array_equal(seen[name][row], spread[:, hands.numbers])
        masses = seen["ranges"][row].astype(np.float64) / spec.hands
        showdown = values_of_showdowns(hands, masses[None])[0]
        np.testing.assert_allclose(seen["showdown"][row], showdown, atol=1e-3)
        if street == "river":
            assert (np.diff(strengths(tuple(board))[hands.numbers]) >= 0).all()
    assert np.array_equal(seen["pot"], (rows["pot_half"] / STACK).astype(np.float32))
    assert all(one.mismatch(seen[one.name]) is None for one in (*spec.inputs, *spec.outputs))


def test_a_hand_that_nobody_holds_teaches_nothing(shards: Path) -> None:
    spec = HandValueSpec()
    batch = load_hand_rows([shards / "train_0.npz"], spec).batch(0, 4, seed=1)
    objective = HandObjective(spec, delta=1.0)
    said = {"values": torch.randn(4, 2, spec.hands, generator=torch.Generator().manual_seed(1))}

    def loss(values: np.ndarray, ranges: np.ndarray) -> float:
        changed = batch | {"values": values, "ranges": ranges}
        part = {name: torch.from_numpy(changed[name]) for name in objective.columns}
        return float(objective.losses(said, part, objective.totals(changed))["loss"])

    ranges, spoilt = batch["ranges"].copy(), batch["values"].copy()
    ranges[:, 0, :500] = 0
    spoilt[:, 0, :500] = -30
    assert loss(spoilt, ranges) == loss(batch["values"], ranges)
    assert loss(spoilt, batch["ranges"]) > loss(batch["values"], batch["ranges"]) + 1


def test_errors_are_what_the_formulas_say() -> None:
    rng = np.random.default_rng(1)
    said, values = rng.normal(size=(2, 6, 2, 9)) * 2
    errors = HandErrors(delta=1.0)
    spoilt = np.concatenate([values, np.full((6, 2, 1), 1e9)], axis=2)
    ranges = (spoilt < 1e9).astype(np.float16)
    for rows in (slice(0, 4), slice(4, 6)):
        errors.add(
            torch.from_numpy(np.concatenate([said, said[:, :, :1]], axis=2)[rows]),
            torch.from_numpy(spoilt[rows]),
            torch.from_numpy(ranges[rows]),
            torch.full((len(said[rows]),), 0.001),
        )
    report = errors.report()
    distance = np.abs(said - values)
    huber = np.where(distance <= 1, distance**2 / 2, distance - 0.5)
    assert report["samples"] == 6
    assert report["exploitability"] == pytest.approx(0.002)
    assert report["huber"] == pytest.approx(huber.mean())
    assert report["error"] == pytest.approx(distance.mean())
    for player, own in enumerate(report["by_player"]):
        assert own["huber"] == pytest.approx(huber[:, player].mean())
        assert own["error"] == pytest.approx(distance[:, player].mean())
        correlation = np.corrcoef(said[:, player].ravel(), values[:, player].ravel())[0, 1]
        assert own["correlation"] == pytest.approx(correlation)


def test_what_does_not_vary_has_no_correlation() -> None:
    errors = HandErrors(delta=1.0)
    errors.add(torch.zeros(1, 2, 3), torch.ones(1, 2, 3), torch.ones(1, 2, 3), torch.zeros(1))
    assert errors.report()["correlation"] is None
