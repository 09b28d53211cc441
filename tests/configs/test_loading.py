import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.loading import dump, load, load_file, override, preset_names, setting_names
from configs.schema import RunConfig
from core.errors import UsageError

LONG_SETTINGS = [name for name in setting_names() if "." in name]


def refusal(*overrides: str, preset: str = "hex5") -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(preset, overrides)
    return caught.value


def test_an_override_goes_over_the_preset_and_the_last_one_counts() -> None:
    config = load("hex5", ["learner.batch_rows=64", "learner.batch_rows=128", "seed=7"])
    assert (config.learner.batch_rows, config.seed, config.game) == (128, 7, "hex5")
    assert config.learner.publish_every_steps == load("hex5").learner.publish_every_steps


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("learner.learning_rate=1e-3", "learner", "learning_rate", 0.001),
        ("learner.clip_norm=1", "learner", "clip_norm", 1.0),
        ("stop.minutes=null", "stop", "minutes", None),
        ("stop.minutes=", "stop", "minutes", None),
        ("actors.count=auto", "actors", "count", "auto"),
        ("actors.count=3", "actors", "count", 3),
        ("search.root_symmetry=false", "search", "root_symmetry", False),
        ("evaluation.opponents=[random, mcts:9]", "evaluation", "opponents", ("random", "mcts:9")),
        ("search={algorithm: puct}", "search", "algorithm", "puct"),
        ("search.minimax_widths=[13, 8]", "search", "minimax_widths", (13, 8)),
    ],
)
def test_values_are_written_as_yaml(override: str, section: str, key: str, value: object) -> None:
    assert load("hex5", [override]).model_dump()[section][key] == value


def test_the_gpu_size_changes_what_the_preset_says_and_nothing_else() -> None:
    small, large = load("hex13"), load("hex13", size="gpu")
    assert large.network.channels > small.network.channels
    assert large.search.temperature_plies == small.search.temperature_plies
    assert load("hex13", ["network.channels=8"], size="gpu").network.channels == 8


def test_a_configuration_can_be_overridden_later() -> None:
    config = override(load("hex5"), ["learner.batch_rows=64", "seed=7"])
    assert config == load("hex5", ["learner.batch_rows=64", "seed=7"])
    with pytest.raises(UsageError, match="there is no setting called 'sed'"):
        override(config, ["sed=7"])


def test_an_entry_of_a_setting_leaves_its_other_entries_and_the_whole_does_not() -> None:
    first = load("forge", ["rollout.env_options.opponent=self", "rollout.env_options.more=5"], "cpu")
    usual = load("forge", [], "cpu").rollout.env_options
    assert first.rollout.env_options == usual | {"opponent": "self", "more": 5}
    assert override(first, ["rollout.env_options.more=6"]).rollout.env_options["opponent"] == "self"
    assert override(first, ["rollout.env_options={more: 6}"]).rollout.env_options == {"more": 6}
    assert load("cartpole", ["rollout.env_options.more=5"], "cpu").rollout.env_options == {"more": 5}


def test_an_unknown_preset_is_answered_with_the_nearest() -> None:
    error = refusal(preset="hex6")
    assert "hex4, hex5, hex7, pong, forge, hex11, hex13, acrobot, cartpole" in error.why
    assert error.fix.startswith("did you mean hex")
    assert refusal(preset="hexx").fix == "did you mean hex7 or hex5 or hex4?"
    assert refusal(preset="ttt").fix == "did you mean tic_tac_toe?"


def test_a_preset_is_a_name_and_never_a_path() -> None:
    assert "there is no preset called '../presets/hex5'" in refusal(preset="../presets/hex5").what


@pytest.mark.parametrize(
    ("override", "unknown", "nearest"),
    [
        ("lerner.batch_rows=1", "lerner", "did you mean learner?"),
        ("learner.batchrows=1", "learner.batchrows", "did you mean learner.batch_rows"),
        ("batch_rows=1", "batch_rows", "did you mean learner.batch_rows?"),
        ("learner.min_rows=1", "learner.min_rows", "did you mean replay.min_rows?"),
        ("sead=1", "sead", "did you mean seed"),
        ("learner.lr=1", "learner.lr", "did you mean learner.learning_rate?"),
        ("lr=1", "lr", "did you mean learner.learning_rate?"),
        ("search.sims=1", "search.sims", "did you mean search.simulations?"),
        ("replay.spi=1", "replay.spi", "did you mean replay.samples_per_insert"),
        ("learner.ema=1", "learner.ema", "did you mean learner.ema_decay?"),
        ("network.width=1", "network.width", "did you mean network."),
        ("=1", "", "choose one of them"),
    ],
)
def test_an_unknown_setting_is_answered_with_the_nearest(override: str, unknown: str, nearest: str) -> None:
    error = refusal(override)
    assert error.what == f"there is no setting called {unknown!r}"
    assert error.fix.startswith(nearest)


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("learner.batch_rows=0", "a whole number (at least 1)"),
        ("learner.batch_rows=1.5", "a whole number (at least 1)"),
        ("learner.batch_rows=yes", "a whole number (at least 1)"),
        ("learner.batch_rows='3'", "a whole number (at least 1)"),
        ("learner.batch_rows={a: 1}", "a whole number (at least 1)"),
        ("learner.ema_decay=1", "a number (at least 0 and less than 1)"),
        ("learner.learning_rate=.nan", "a number (more than 0)"),
        ("learner.value_mix=.nan", "a number (at least 0 and at most 1)"),
        ("learner.clip_norm=.inf", "a number (more than 0)"),
        ("learner.value_mix=2020-02-02", "a number (at least 0 and at most 1)"),
        (
            "actors.count=many",
            "a whole number (at least 1 and at most 1024) or auto or {name: …}, each of it a whole number (at least 0"
            " and at most 1024) or auto",
        ),
        ("actors.games_per_group=9000", "a whole number (at least 1 and at most 8192)"),
        ("search.algorithm=alphabeta", "gumbel or puct or minimax"),
        ("search.minimax_widths=13", "a list of 1 to 8, each of it a whole number (at least 1)"),
        ("search.minimax_widths=[13, 0]", "a list of 1 to 8, each of it a whole number (at least 1)"),
        ("search.root_symmetry=1", "true or false"),
        ("evaluation.opponents=random", "a list, each of it text"),
        ("evaluation.opponents=[1]", "a list, each of it text"),
        ("stop.games=0", "a whole number (at least 1) or null"),
        ("seed=-1", "a whole number (at least 0)"),
        ("game=5", "text"),
    ],
)
def test_a_wrong_value_is_answered_with_the_allowed_ones(override: str, allowed: str) -> None:
    error = refusal(override)
    name = override.partition("=")[0]
    assert error.what.startswith(f"{name} = ")
    assert error.why == f"it must be {allowed}"
    suggestion = error.fix.removeprefix("write ").strip("'")
    assert suggestion.startswith(f"{name}=")
    assert load("hex5", [suggestion])


def test_settings_that_contradict_each_other_are_refused() -> None:
    error = refusal("search.simulations=4", "search.cheap_simulations=5")
    assert error.what == "the settings of search do not go together"
    assert error.why == "cheap_simulations must not exceed simulations"
    error = refusal("replay.capacity_rows=10")
    assert "is more than capacity_rows=10: so many rows could never be there" in error.why
    assert "replay.min_rows to at most 10" in error.fix


def test_a_batch_that_could_never_be_drawn_is_refused_with_what_mends_it() -> None:
    settings = ["replay.samples_per_insert_slack_rows=100", "learner.batch_rows=201"]
    error = refusal(*settings)
    assert "learner.batch_rows=201" in error.why
    assert "to at least 101" in error.fix
    assert load("hex5", [settings[0], "learner.batch_rows=200"]).learner.batch_rows == 200
    error = refusal("search.algorithm=minimax", "search.minimax_widths=[13, 8]")
    assert error.why == "with minimax_widths [13, 8] simulations must be at least 117"


def test_a_section_is_no_value_and_a_setting_has_one() -> None:
    assert "learner is a section with the settings batch_rows" in refusal("learner=3").why
    assert refusal("learner").why == "a setting is written section.key=value"
    assert "the value of seed cannot be read" in refusal("seed=[").what


@given(st.sampled_from([*LONG_SETTINGS, "learner", "game"]), st.text("[]{}:,'1e-.naulrt x!&*\n", max_size=20))
def test_no_override_raises_anything_but_a_usage_error(name: str, value: str) -> None:
    with contextlib.suppress(UsageError):
        assert isinstance(load("hex5", [f"{name}={value}"]), RunConfig)


def test_a_dumped_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = load("hex5", ["learner.learning_rate=1e-7", "stop.minutes=0.5", "evaluation.opponents=[]"])
    file = tmp_path / "config.yaml"
    file.write_text(dump(config))
    assert load_file(file) == config
    assert load_file(file) != load("hex5")


def test_a_dump_names_every_setting(tmp_path: Path) -> None:
    text = dump(load("hex5"))
    assert all(f"{name.rpartition('.')[2]}:" in text for name in setting_names())


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "holds no settings"),
        (b"- a", "holds no settings"),
        (b"\xff", "cannot be read"),
        (b"seed: 1", "the setting game is missing"),
        (b"game: hex5\nnetwrk: {}", "there is no setting called 'netwrk'"),
        (b"game: hex5\ngpu: {}", "there is no setting called 'gpu'"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=what):
        load_file(file)


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml cannot be read"):
        load_file(tmp_path / "none.yaml")


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("size", ["cpu", "gpu"])
def test_every_preset_is_sound_at_both_sizes(preset: str, size: str) -> None:
    config = load(preset, [], "gpu" if size == "gpu" else "cpu")
    assert config.game == preset or config.environment
    rows_in_slack = 2 * config.replay.samples_per_insert_slack_rows
    assert config.learner.batch_rows <= rows_in_slack
    one_chunk = config.actors.chunk_rows * config.replay.samples_per_insert
    assert one_chunk <= rows_in_slack, "a single chunk would make the actor pause"


@pytest.mark.parametrize("preset", preset_names())
def test_the_table_of_presets_tells_what_is_in_them(preset: str) -> None:
    table = (Path(__file__).parents[2] / "docs" / "running.md").read_text()
    (line,) = (line for line in table.splitlines() if line.startswith(f"| `{preset}` |"))
    _, second, third, stops, _ = (cell.strip() for cell in line.strip("|").split("|"))

    config = load(preset)
    assert stops == ("–" if config.stop.minutes is None else f"{config.stop.minutes:g} min")
    if config.environment:
        assert second == f"`{config.environment}`"
        assert third == config.policy_gradient.algorithm.upper().replace("VTRACE", "V-trace")
    else:
        assert second == f"{config.network.blocks} × {config.network.channels}"
        assert third == str(config.search.simulations)
