"""How much is exported: the tier, the factor that takes effect, and an estimate that comes true."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.control import DECISIONS, DecisionsConfig, ExportConfig, GameConfig, TierConfig
from control.export_settings import Selection, export_settings, override_export, tier_of
from core.errors import UsageError

CONFIG = ExportConfig()
WITHIN = 0.05


def exported(selection: Selection, lengths: Sequence[int]) -> int:
    """Do what an exporter does that follows the rule, with games of these lengths, the oldest first."""
    taken = range(selection.first_game(len(lengths)), len(lengths))
    return sum(len(selection.positions(f"run/{k}", lengths[k])) for k in taken)


@pytest.mark.parametrize(
    ("games", "tier", "max_games", "sample_every", "epochs", "batch_rows"),
    [
        (0, "small", None, 1, 100, 64),
        (9_999, "small", None, 1, 100, 128),
        (10_000, "medium", 50_000, 1, 75, 256),
        (49_999, "medium", 50_000, 1, 75, 256),
        (50_000, "large", 100_000, 2, 50, 512),
        (199_999, "large", 100_000, 2, 50, 512),
        (200_000, "xlarge", 150_000, 3, 30, 1024),
        (10**9, "xlarge", 150_000, 3, 30, 1024),
    ],
)
def test_the_tier_is_that_of_the_number_of_games(
    games: int, tier: str, max_games: int | None, sample_every: int, epochs: int, batch_rows: int
) -> None:
    settings = export_settings("square8", games, CONFIG)
    assert (settings.tier, settings.selection.max_games) == (tier, max_games)
    assert (settings.sample_every, settings.epochs, settings.batch_rows) == (sample_every, epochs, batch_rows)


@pytest.mark.parametrize(
    ("game", "games", "stride", "samples"),
    [
        ("square8", 1_000, Fraction(1), 60_000),
        ("square19", 1_000, Fraction(3, 2), 133_333),
        ("square19", 100_000, Fraction(3), 6_666_667),
        ("hexagonal", 20_000, Fraction(6, 5), 1_333_333),
        ("hex8", 1_000, Fraction(1), 40_000),  # no position is taken more than once
        ("hex8", 100_000, Fraction(8, 5), 2_500_000),
        ("square8", 300_000, Fraction(3), 3_000_000),
    ],
)
def test_the_factor_of_a_game_takes_effect(game: str, games: int, stride: Fraction, samples: int) -> None:
    settings = export_settings(game, games, CONFIG)
    assert (settings.selection.stride, settings.estimated_samples) == (stride, samples)


def test_measured_moves_go_before_those_of_the_table() -> None:
    settings = export_settings("square8", 1_000, CONFIG, moves_per_game=41.5)
    assert (settings.estimated_samples, settings.measured) == (41_500, True)
    unlisted = export_settings("hex13", 1_000, CONFIG, moves_per_game=70)
    assert unlisted.estimated_samples == 70_000


def test_a_game_of_which_nobody_knows_the_length_is_told_with_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"hex13[\s\S]*export\.games"):
        export_settings("hex13", 1_000, CONFIG)


def test_the_table_is_a_setting() -> None:
    config = DECISIONS.override(
        DecisionsConfig(), ["export.games={hex13: {moves_per_game: 70, sample_factor: 2.5}}"]
    )
    settings = export_settings("hex13", 1_000, config.export)
    assert settings.selection.stride == Fraction(5, 2)
    with pytest.raises(UsageError):
        export_settings("square8", 1_000, config.export)


def test_no_more_games_are_taken_than_give_the_samples_aimed_at() -> None:
    config = ExportConfig(target_samples=300_000)
    assert export_settings("square8", 40_000, config).selection.max_games == 5_000
    assert export_settings("square8", 100_000, config).selection.max_games == 10_000  # every other position
    assert export_settings("square8", 100_000, config).estimated_samples == 300_000
    assert (
        export_settings("square8", 300_000, ExportConfig(target_samples=10**9)).selection.max_games == 150_000
    )


def test_small_exports_have_small_batches_and_say_so() -> None:
    settings = export_settings("tic_tac_toe", 1_000, CONFIG)
    assert (settings.batch_rows, settings.batch_capped_from) == (64, 128)
    assert export_settings("tic_tac_toe", 9_000, CONFIG).batch_capped_from is None


def test_the_newest_games_are_taken() -> None:
    selection = Selection(max_games=3, stride=Fraction(1))
    assert [selection.first_game(games) for games in (0, 2, 3, 10)] == [0, 0, 0, 7]
    assert Selection(max_games=None, stride=Fraction(1)).first_game(10) == 0


def test_which_positions_are_taken_hangs_on_the_id_and_the_seed_alone() -> None:
    selection = Selection(max_games=None, stride=Fraction(9, 2))
    # Written down, so that it is the same on every machine and in every process.
    assert selection.positions("run/0", 20) == [0, 4, 9, 13, 18]
    assert selection.positions("run/0", 14) == [0, 4, 9, 13]
    starts = {tuple(selection.positions(f"run/{k}", 20)) for k in range(50)}
    assert len(starts) == 9
    assert selection.positions("run/0", 20) != Selection(None, Fraction(9, 2), seed=1).positions("run/0", 20)


def test_at_every_stride_each_position_is_taken_as_often_as_any_other() -> None:
    for stride in (Fraction(2), Fraction(3, 2), Fraction(9, 2)):
        selection = Selection(None, stride)
        games = 4_000
        counts = Counter(p for k in range(games) for p in selection.positions(f"g{k}", 12))
        expected = games / stride
        spread = 5 * math.sqrt(games / 4)
        assert all(abs(counts[p] - expected) < spread for p in range(12)), stride


strides = st.builds(
    lambda every, factor: max(Fraction(1), every * Fraction(str(factor))),
    st.integers(1, 20),
    st.sampled_from([0.5, 0.8, 1.0, 1.2, 1.25, 1.5, 2.7]),
)


@given(strides, st.text(max_size=20), st.integers(0, 400))
def test_a_game_gives_its_length_over_the_stride_rounded_up_or_down(
    stride: Fraction, game_id: str, moves: int
) -> None:
    taken = Selection(None, stride).positions(game_id, moves)
    assert taken == sorted(set(taken))
    assert all(0 <= p < moves for p in taken)
    assert math.floor(moves / stride) <= len(taken) <= math.ceil(moves / stride)


@given(st.integers(0, 2**32), st.data())
def test_the_estimate_is_within_five_percent_of_what_is_exported(seed: int, data: st.DataObject) -> None:
    draw = random.Random(seed)
    shape = data.draw(st.sampled_from(["even", "short", "two kinds", "long tail", "all alike"]))
    most = data.draw(st.integers(5, 150))
    lengths = [
        {
            "even": draw.randint(1, most),
            "short": draw.randint(1, 3),
            "two kinds": most if draw.random() < 0.1 else 1,
            "long tail": min(1 + int(draw.expovariate(1 / most)), 10 * most),
            "all alike": most,
        }[shape]
        for _ in range(3_000)
    ]
    tier = TierConfig(
        name="any",
        below_games=None,
        max_games=data.draw(st.none() | st.integers(2_000, 4_000)),
        sample_every=data.draw(st.integers(1, 3)),
        epochs=1,
        batch_rows=1,
    )
    factor = data.draw(st.sampled_from([0.8, 1.0, 1.2, 1.5]))
    config = ExportConfig(tiers=(tier,), games={"game": GameConfig(moves_per_game=1, sample_factor=factor)})
    taken = lengths[-(tier.max_games or len(lengths)) :]
    settings = export_settings("game", len(lengths), config, moves_per_game=sum(taken) / len(taken))

    made = exported(settings.selection, lengths)
    # A game gives its share rounded up or down by lot, which of games of a move or two is more than 5 %.
    by_lot = 5 * math.sqrt(len(taken) / 4)
    assert abs(settings.estimated_samples - made) <= max(WITHIN * made, by_lot)


def test_beginning_each_game_at_its_first_position_would_miss_the_estimate() -> None:
    lengths = [7] * 3_000
    selection = Selection(None, Fraction(3))
    estimate = selection.estimate(len(lengths), 7.0)
    naive = sum(len(range(0, moves, 3)) for moves in lengths)
    assert abs(estimate - naive) > 0.2 * naive
    assert abs(estimate - exported(selection, lengths)) < WITHIN * naive


@pytest.mark.parametrize(
    "setting",
    [
        "export.games={hex5: {moves_per_game: 0}}",
        "export.games={hex5: {moves_per_game: 10, sample_factor: -1}}",
        "export.games={hex5: {moves_per_game: .nan}}",
        "export.tiers=[]",
        "export.tiers=[{name: a, below_games: 5, max_games: null, sample_every: 1, epochs: 1, batch_rows: 1}]",
        "export.tiers=[{name: a, below_games: null, max_games: null, sample_every: 0, epochs: 1, batch_rows: 1}]",
        "export.batch_caps=[{below_samples: 9, batch_rows: 1}, {below_samples: 9, batch_rows: 2}]",
        "export.target_samples=0",
        "export.seed=-1",
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: str) -> None:
    with pytest.raises(UsageError):
        DECISIONS.override(DecisionsConfig(), [setting])


def test_a_persons_own_numbers_go_before_those_of_tiers_and_table() -> None:
    given = override_export(CONFIG, "square19", max_games=70, sample_every=2, seed=9)
    found = export_settings("square19", 60_000, given, moves_per_game=10)
    assert found.selection == Selection(70, Fraction(2), 9)  # without the game's factor, 1.5
    assert (found.tier, found.estimated_samples) == ("large", 350)
    unknown = override_export(CONFIG, "pente", max_games=None, sample_every=3, seed=0)
    assert export_settings("pente", 5, unknown, moves_per_game=30).estimated_samples == 50
    assert override_export(CONFIG, "square19", max_games=None, sample_every=None, seed=0) == CONFIG


@pytest.mark.parametrize("name", ["max_games", "sample_every", "seed"])
def test_a_persons_number_that_is_none_is_refused_by_its_name(name: str) -> None:
    numbers = {"max_games": 1, "sample_every": 1, "seed": 0}
    override_export(CONFIG, "hex5", **numbers)
    with pytest.raises(UsageError, match=f"{name}={numbers[name] - 1} is not allowed"):
        override_export(CONFIG, "hex5", **numbers | {name: numbers[name] - 1})


def test_tiers_out_of_order_are_refused() -> None:
    small, medium, large, xlarge = CONFIG.tiers
    for tiers in ((medium, small, large, xlarge), (small, small, xlarge), (xlarge, xlarge), (small, medium)):
        with pytest.raises(ValueError, match="tiers"):
            ExportConfig(tiers=tiers)
    assert tier_of(10**6, ExportConfig(tiers=(small, xlarge))).name == "xlarge"


@pytest.mark.parametrize(("games", "moves"), [(-1, 5.0), (1.5, 5.0), (5, -1.0), (5, math.nan), (5, math.inf)])
def test_numbers_that_are_none_are_refused(games: int, moves: float) -> None:
    with pytest.raises(UsageError):
        export_settings("square8", games, CONFIG, moves_per_game=moves)
    with pytest.raises(UsageError):
        Selection(None, Fraction(1, 2))
