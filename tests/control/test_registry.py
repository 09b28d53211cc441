"""The registry gives each model one number, remembers where it came from, and lets nobody overtake unseen."""

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.keys import Key
from control.lineage import ancestors, data_digest, descendants, hash_source
from control.model_cards import Elo, Match, Rating, Stage
from control.registry import FILE_NAME, ModelRegistry
from control.registry_tables import TRANSITIONS, AliasMovedError
from control.sequential import PairCounts
from core.errors import DataError, TamenError, UsageError
from core.files import digest, file_digest
from tests.control.registered import KEY, OTHER, WHO, add, reign, weights

NOW = 1_800_000_000.0
CONDITIONS = "simulations=16 opening_plies=2"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[ModelRegistry]:
    made = ModelRegistry(tmp_path / "runs", clock=lambda: NOW)
    yield made
    made.close()


def test_what_is_registered_is_found_as_it_was(registry: ModelRegistry, tmp_path: Path) -> None:
    games = tmp_path / "games"
    games.mkdir()
    (games / "a.trmph").write_text("#3,a1b2 b\n")
    file = weights(tmp_path, b"first")
    first = registry.register(KEY, file, config={"lr": 0.1}, metrics={"loss": 0.5}, who=WHO)
    second = registry.register(
        KEY,
        weights(tmp_path, b"second"),
        config={"lr": 0.1, "blocks": [1, 2], "note": None},
        metrics={"loss": 0.25},
        sources=[hash_source(games)],
        parent=first,
        games=70,
        elo=Elo(120.0, 80.0, 160.0, 400),
        who=WHO,
    )
    model = ModelRegistry(registry.folder).get(second)
    assert (first, second) == ("hex5_2p-v1", "hex5_2p-v2")
    assert (model.parent, model.stage, model.version, model.games) == (first, "development", 2, 70)
    assert model.config == {"lr": 0.1, "blocks": [1, 2], "note": None}
    assert (model.metrics, model.elo) == ({"loss": 0.25}, Elo(120.0, 80.0, 160.0, 400))
    assert (model.created_at, model.who, model.aliases) == (NOW, WHO, ("latest",))
    assert model.data_digest == data_digest([hash_source(games)])
    assert model.file.read_bytes() == b"second"
    assert (model.digest, model.bytes) == (digest(b"second"), 6)
    assert registry.models(OTHER) == []
    assert [each.id for each in registry.models()] == [first, second]


def test_the_same_model_is_registered_once(registry: ModelRegistry, tmp_path: Path) -> None:
    file, copy = weights(tmp_path, b"same"), tmp_path / "copy.safetensors"
    copy.write_bytes(b"same")
    first = registry.register(KEY, file, config={"a": 1, "b": 2}, metrics={"loss": 1.0}, who=WHO)
    again = registry.register(KEY, copy, config={"b": 2, "a": 1}, metrics={"loss": 2.0}, who="another")
    assert again == first
    assert registry.get(first).metrics == {"loss": 1.0}
    assert len(registry.history(KEY)) == 2
    settings = registry.register(KEY, file, config={"a": 1, "b": 3}, metrics={}, who=WHO)
    other = registry.register(OTHER, file, config={"a": 1, "b": 2}, metrics={}, who=WHO)
    assert (settings, other) == ("hex5_2p-v2", "tic_tac_toe_2p-v1")
    assert sorted(path.name for path in (registry.folder / "models").rglob("*") if path.is_file()) == [
        "hex5_2p-v1.safetensors",
        "hex5_2p-v2.safetensors",
        "tic_tac_toe_2p-v1.safetensors",
    ]


def test_a_champion_is_that_of_its_key_alone(registry: ModelRegistry) -> None:
    ours, theirs = add(registry, 1), add(registry, 1, key=OTHER)
    registry.promote(ours, expected=None, who=WHO, why="first")
    registry.promote(theirs, expected=None, who=WHO, why="first")
    assert {model.id for model in registry.models(stage="production")} == {ours, theirs}
    assert registry.get("hex5_2p@champion").id == ours
    assert registry.get("tic_tac_toe_2p@champion").id == theirs


def test_moves_are_written_down_with_who_and_why(registry: ModelRegistry) -> None:
    first, second = add(registry, 1), add(registry, 2)
    registry.propose(second, expected=None, who="pilot", why="trained")
    assert registry.get("hex5_2p@candidate").id == second
    registry.promote(second, expected=None, who="pilot", why="61 %\nof 200 games")
    told = [(m.act, m.model, m.what, m.before, m.after, m.who, m.why) for m in registry.history(model=second)]
    assert told == [
        ("register", second, "stage", None, "development", WHO, "registered"),
        ("register", second, "latest", first, second, WHO, "registered"),
        ("propose", second, "stage", "development", "staging", "pilot", "trained"),
        ("propose", second, "candidate", None, second, "pilot", "trained"),
        ("promote", second, "stage", "staging", "production", "pilot", "61 % of 200 games"),
        ("promote", second, "candidate", second, None, "pilot", "61 % of 200 games"),
        ("promote", second, "champion", None, second, "pilot", "61 % of 200 games"),
    ]
    assert registry.alias(KEY, "candidate") is None
    assert all(move.at == NOW for move in registry.history())


def test_promotion_may_be_repeated_and_a_stale_one_is_refused(registry: ModelRegistry) -> None:
    first, second, third = (add(registry, n) for n in range(3))
    registry.promote(first, expected=None, who=WHO, why="first")
    registry.promote(second, expected=first, who=WHO, why="better")
    before = registry.history()
    registry.promote(second, expected=first, who=WHO, why="better, said again after a crash")
    with pytest.raises(AliasMovedError, match="champion was left as it is"):
        registry.promote(third, expected=first, who=WHO, why="had met the one before")
    with pytest.raises(AliasMovedError):
        registry.rollback(KEY, expected=first, who=WHO, why="had seen the one before")
    assert registry.history() == before
    registry.propose(third, expected=None, who=WHO, why="next")
    registry.propose(third, expected=None, who=WHO, why="next, said again")
    with pytest.raises(AliasMovedError):
        registry.propose(add(registry, 9), expected=None, who=WHO, why="did not see the third")


def test_rolled_back_twice_it_goes_two_champions_back(registry: ModelRegistry) -> None:
    one, two, three, four = (add(registry, n) for n in range(4))
    for model in (one, two, three):
        reign(registry, model)
    assert registry.rollback(KEY, expected=three, who=WHO, why="worse") == two
    assert registry.rollback(KEY, expected=two, who=WHO, why="worse too") == one
    with pytest.raises(UsageError, match="cannot be rolled back"):
        registry.rollback(KEY, expected=one, who=WHO, why="there is none before")
    reign(registry, four)
    assert registry.champion_before(KEY) == one
    stages = {model.id: model.stage for model in registry.models(KEY)}
    assert stages == {one: "archived", two: "archived", three: "archived", four: "production"}
    with pytest.raises(UsageError, match="cannot be rolled back"):
        registry.rollback(OTHER, expected="", who=WHO, why="nobody there")


def test_who_was_rejected_does_not_come_back(registry: ModelRegistry) -> None:
    one, two, three = (add(registry, n) for n in range(3))
    for model in (one, two, three):
        reign(registry, model)
    registry.set_stage(two, "development", who=WHO, why="look again")
    registry.set_stage(two, "rejected", who=WHO, why="it cheats")
    assert registry.rollback(KEY, expected=three, who=WHO, why="worse") == one
    for model in (two, three):
        with pytest.raises(UsageError, match="--to development"):
            registry.promote(model, expected=one, who=WHO, why="again")
        with pytest.raises(UsageError, match="--to development"):
            registry.propose(model, expected=None, who=WHO, why="again")
    registry.set_stage(two, "development", who=WHO, why="it was a mistake")
    registry.promote(two, expected=one, who=WHO, why="again")


@settings(max_examples=40)
@given(st.lists(st.sampled_from(["propose", "promote", "rollback", "archived", "rejected", "development"])))
def test_whatever_is_done_only_allowed_moves_happen(
    tmp_path_factory: pytest.TempPathFactory, acts: list[str]
) -> None:
    registry = ModelRegistry(tmp_path_factory.mktemp("acts"))
    models = [add(registry, n) for n in range(3)]
    for number, act in enumerate(acts):
        model, champion = models[number % 3], registry.alias(KEY, "champion")
        try:
            if act == "propose":
                registry.propose(model, expected=registry.alias(KEY, "candidate"), who=WHO, why=act)
            elif act == "promote":
                registry.promote(model, expected=champion, who=WHO, why=act)
            elif act == "rollback":
                registry.rollback(KEY, expected=champion or "", who=WHO, why=act)
            else:
                stages: dict[str, Stage] = {each: each for each in TRANSITIONS}  # pyright: ignore[reportAssignmentType]
                registry.set_stage(model, stages[act], who=WHO, why=act)
        except UsageError:
            pass
        moves = [move for move in registry.history() if move.what == "stage" and move.before]
        assert all(move.after in TRANSITIONS[move.before] for move in moves)  # pyright: ignore[reportArgumentType]
        # The champion is who is in production, and the candidate is in staging.
        reigning = [each.id for each in registry.models(KEY, stage="production")]
        assert reigning == [each for each in [registry.alias(KEY, "champion")] if each]
        candidate = registry.alias(KEY, "candidate")
        assert candidate is None or registry.find(candidate).stage == "staging"
        # Each alias is where the history says that it went last.
        for alias in ("champion", "candidate"):
            last = [move.after for move in registry.history() if move.what == alias]
            assert registry.alias(KEY, alias) == (last[-1] if last else None)
    registry.close()


@pytest.mark.parametrize("damage", ["gone", "altered", "shortened"])
def test_a_file_that_is_gone_or_altered_is_told_and_put_back(
    registry: ModelRegistry, tmp_path: Path, damage: str
) -> None:
    model_id = add(registry, 1)
    model = registry.get(model_id)
    whole = model.file.read_bytes()
    if damage == "gone":
        model.file.unlink()
    else:
        model.file.write_bytes(whole[:-1] + (b"" if damage == "shortened" else b"?"))
    state = "gone" if damage == "gone" else "altered"
    assert registry.file_state(model) == state
    with pytest.raises(DataError, match=f"the file of {model_id} is {state}"):
        registry.get("hex5_2p@latest")
    with pytest.raises(DataError):
        registry.promote(model_id, expected=None, who=WHO, why="blind")
    assert registry.alias(KEY, "champion") is None
    assert state.upper() in registry.card(model_id)
    assert add(registry, 1) == model_id
    assert registry.get(model_id).file.read_bytes() == whole
    assert registry.file_state(model) == "ok"


def test_a_file_altered_behind_its_time_of_change_is_found_by_who_reads_it(registry: ModelRegistry) -> None:
    model = registry.get(add(registry, 1))
    found = model.file.stat()
    model.file.write_bytes(b"x" * model.bytes)
    os.utime(model.file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert registry.file_state(model) == "ok"
    assert registry.file_state(model, thorough=True) == "altered"
    with pytest.raises(DataError, match="altered"):
        registry.get(model.id)


def test_a_file_restored_from_a_copy_is_as_good_as_it_was(registry: ModelRegistry) -> None:
    model = registry.get(add(registry, 1))
    whole = model.file.read_bytes()
    model.file.unlink()
    model.file.write_bytes(whole)
    assert registry.file_state(model) == "ok"


def test_nothing_is_registered_when_the_file_cannot_be_read(registry: ModelRegistry, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        registry.register(KEY, tmp_path / "no.safetensors", config={}, metrics={}, who=WHO)
    assert registry.models() == []
    assert not list(registry.folder.rglob("*.incoming"))


def test_parents_are_of_the_same_key_and_known(registry: ModelRegistry) -> None:
    first = add(registry, 1)
    theirs = add(registry, 1, key=OTHER)
    with pytest.raises(UsageError, match=f"'{theirs}' cannot be parent of a model of hex5_2p"):
        add(registry, 2, parent=theirs)
    with pytest.raises(UsageError, match="not registered"):
        add(registry, 2, parent="hex5_2p-v7")
    second = add(registry, 2, parent=first)
    third, fork = add(registry, 3, parent=second), add(registry, 4, parent=first)
    parents = registry.parents(KEY)
    assert parents == {first: None, second: first, third: second, fork: first}
    assert ancestors(parents, third) == [second, first]
    assert descendants(parents, first) == [second, fork, third]
    assert "made of: hex5_2p-v2 ← hex5_2p-v1" in registry.card(third)


def test_a_lineage_that_was_tampered_with_is_said_to_be_damaged() -> None:
    with pytest.raises(DataError, match="its own ancestor"):
        ancestors({"a": "b", "b": "a"}, "a")
    with pytest.raises(DataError, match="not registered"):
        ancestors({"a": "b"}, "a")
    assert descendants({"a": "b", "b": "a"}, "a") == ["b"]


def test_data_is_known_by_all_its_bytes(tmp_path: Path) -> None:
    long = tmp_path / "long.bin"
    long.write_bytes(b"\0" * 12_000_000 + b"1")
    before = hash_source(long)
    assert (before.bytes, before.digest) == (12_000_001, digest(long.read_bytes()))
    long.write_bytes(b"\0" * 12_000_000 + b"2")  # the same size, and the same beginning
    assert hash_source(long).digest != before.digest
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a").write_text("a")
    held = hash_source(folder)
    (folder / "deep" / "a").rename(folder / "deep" / "b")
    assert hash_source(folder).digest != held.digest
    assert data_digest([before, held]) == data_digest([held, before]) != data_digest([held])
    assert data_digest([]) is None
    with pytest.raises(UsageError, match="there is no data"):
        hash_source(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "changed",
    [
        {"metrics": {"loss": float("nan")}},
        {"metrics": {"loss": float("inf")}},
        {"metrics": {"loss": "low"}},
        {"metrics": {"won": True}},
        {"config": {"lr": float("nan")}},
        {"config": {"lr": object()}},
        {"config": {"widths": (1, 2)}},
        {"config": {1: 2}},
        {"games": -1},
        {"games": 1.5},
        {"games": 2**63},
        {"who": " "},
        {"why": "x" * 5000},
        {"who": "\x1b[2J"},
        {"key": Key("../hex5")},
        {"key": Key("open_spiel:chess")},
        {"key": Key("hex5", -2)},
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    registry: ModelRegistry, tmp_path: Path, changed: dict[str, object]
) -> None:
    given = {"key": KEY, "config": {}, "metrics": {}, "who": WHO} | changed
    with pytest.raises(UsageError):
        registry.register(given.pop("key"), weights(tmp_path, b"x"), **given)  # pyright: ignore[reportArgumentType]
    assert registry.models() == []


@pytest.mark.parametrize(
    "name", ["hex5_2p-v2", "hex5_2p", "hex5_2p@best", "hex5_2p@champion", "", "@", "../x@latest"]
)
def test_a_name_of_nobody_is_told(registry: ModelRegistry, name: str) -> None:
    add(registry, 1)
    with pytest.raises(UsageError):
        registry.get(name)
    with pytest.raises(UsageError):
        registry.promote(name, expected=None, who=WHO, why="who?")


def test_games_are_recorded_once_and_never_changed(registry: ModelRegistry) -> None:
    first, second = add(registry, 1), add(registry, 2)
    match = Match(second, first, PairCounts((1, 2, 5, 4, 8)), 8, CONDITIONS, 7, 0, NOW)
    assert (match.wins, match.draws, match.losses, match.games) == (24, 8, 8, 40)
    registry.record(match)
    registry.record(replace(match, played_at=NOW + 60))
    registry.record(replace(match, first_pair=20))
    registry.record(replace(match, opponent="mcts:400"))
    assert registry.matches(second, first) == [match, replace(match, first_pair=20)]
    assert registry.next_pair(second, first, 7, CONDITIONS) == 40
    assert (
        registry.next_pair(second, first, 8, CONDITIONS)
        == registry.next_pair(second, "random", 7, CONDITIONS)
        == 0
    )
    registry.record(Match(second, "random", PairCounts(), 0, CONDITIONS, 7, 0, NOW, set_aside=25))
    assert registry.next_pair(second, "random", 7, CONDITIONS) == 25
    assert [each.opponent for each in registry.matches(second)] == [first, first, "mcts:400", "random"]
    with pytest.raises(DataError, match="recorded otherwise"):
        registry.record(replace(match, pairs=PairCounts((1, 2, 5, 5, 7)), draws=9))
    theirs = add(registry, 1, key=OTHER)
    for opponent in (theirs, "hex5_2p-v99", " "):
        with pytest.raises(UsageError):
            registry.record(replace(match, opponent=opponent))
    with pytest.raises(UsageError):
        registry.record(replace(match, model="hex5_2p-v99"))
    assert "| hex5_2p-v1 | 24 | 8 | 8 | 70.0%" in registry.card(second)


def test_games_of_the_same_openings_under_other_conditions_are_others(registry: ModelRegistry) -> None:
    first, second = add(registry, 1), add(registry, 2)
    match = Match(second, first, PairCounts((0, 0, 0, 0, 20)), 0, CONDITIONS, 7, 0, NOW)
    other = replace(match, conditions="simulations=64 opening_plies=2", pairs=PairCounts((20, 0, 0, 0, 0)))
    for each in (match, other):
        registry.record(each)
    assert registry.matches(second) == [match, other]
    assert registry.matches(second, first, conditions=other.conditions) == [other]
    assert registry.next_pair(second, first, 7, "simulations=1 opening_plies=0") == 0
    assert all(each.conditions in registry.card(second) for each in (match, other))
    with pytest.raises(UsageError, match="conditions"):
        registry.record(replace(match, conditions=" "))


def test_games_are_known_by_the_stage_that_they_were_played_in(registry: ModelRegistry) -> None:
    first, second = add(registry, 1), add(registry, 2)
    match = Match(second, first, PairCounts((0, 0, 0, 0, 20)), 0, CONDITIONS, 7, 0, NOW)
    registry.record(match)
    reign(registry, second)
    registry.record(replace(match, first_pair=20))
    registry.record(match)  # again, which changes nothing
    assert registry.matches(second, stage="development") == [match]
    assert registry.matches(second, stage="production") == [replace(match, first_pair=20)]
    assert registry.next_pair(second, first, 7, CONDITIONS) == 40


def test_reigns_are_counted_and_one_that_comes_back_is_another(registry: ModelRegistry) -> None:
    assert registry.reign(KEY) == (0, None)
    one, two = add(registry, 1), add(registry, 2)
    registry.promote(add(registry, 1, key=OTHER), expected=None, who=WHO, why="of another key")
    for number, model in ((1, one), (2, two)):
        reign(registry, model)
        assert registry.reign(KEY) == (number, model)
    registry.promote(two, expected=one, who=WHO, why="said again after a crash")
    assert registry.reign(KEY) == (2, two)
    registry.rollback(KEY, expected=two, who=WHO, why="worse")
    assert registry.reign(KEY) == (3, one)


@pytest.mark.parametrize(
    ("draws", "seed", "first_pair"), [(9, 0, 0), (3, 0, 0), (18, 0, 0), (8, -1, 0), (8, 0, 2**63), (8, 0, -1)]
)
def test_games_that_cannot_have_been_are_refused(draws: int, seed: int, first_pair: int) -> None:
    # Pairs of ¼ and ¾ have one draw each, those of ½ none or two: here 6, 8, … 16.
    with pytest.raises(UsageError):
        Match("hex5_2p-v1", "random", PairCounts((1, 2, 5, 4, 8)), draws, CONDITIONS, seed, first_pair, NOW)


def test_ratings_are_kept_with_the_stage_that_they_were_made_in(registry: ModelRegistry) -> None:
    model = add(registry, 1)
    first, early, late = Elo(50.0, 0.0, 100.0, 9), Elo(100.0, 50.0, 150.0, 40), Elo(90.0, 60.0, 120.0, 10)
    for elo in (first, early):
        registry.rate(model, elo, conditions=CONDITIONS)
    reign(registry, model)
    registry.rate(model, late, conditions="others")
    assert registry.ratings(model) == [
        Rating(first, "development", CONDITIONS),
        Rating(early, "development", CONDITIONS),
        Rating(late, "production", "others"),
    ]
    # Those of a champion are of few games each, so they do not take the place of the one that it was promoted with.
    assert registry.find(model).elo == early
    unrated = add(registry, 2)
    reign(registry, unrated)
    registry.rate(unrated, late, conditions=CONDITIONS)
    assert registry.find(unrated).elo == late
    for low, rating, high, games in (
        (0, float("nan"), 1, 1),
        (0, 2, 1, 1),
        (0, 1, float("inf"), 9),
        (0, 1, 2, 0),
    ):
        with pytest.raises(UsageError):
            Elo(rating, low, high, games)
    with pytest.raises(UsageError):
        registry.rate("hex5_2p-v9", late, conditions=CONDITIONS)


def test_a_record_of_the_future_is_said_to_be_so_and_order_stays(tmp_path: Path) -> None:
    ahead = ModelRegistry(tmp_path / "runs", clock=lambda: NOW + 3600)
    first = add(ahead, 1)
    registry = ModelRegistry(tmp_path / "runs", clock=lambda: NOW)
    second = add(registry, 2)
    assert [model.id for model in registry.models()] == [first, second]
    assert registry.alias(KEY, "latest") == second
    assert "by a clock that was 3600 s ahead" in registry.card(first)
    assert "ahead" not in registry.card(second)
    for bad in (float("nan"), -1.0, 1e30):
        with pytest.raises(UsageError, match="moment"):
            add(ModelRegistry(tmp_path / "runs", clock=lambda at=bad: at), 3)


def test_the_registry_of_another_program_and_damaged_records_are_told(tmp_path: Path) -> None:
    foreign = sqlite3.connect(tmp_path / FILE_NAME)
    foreign.execute("CREATE TABLE models (x)")
    foreign.commit()
    with pytest.raises(DataError, match="not this program's"):
        ModelRegistry(tmp_path)
    registry = ModelRegistry(tmp_path / "runs")
    model = add(registry, 1)
    with sqlite3.connect(tmp_path / "runs" / FILE_NAME) as ours:
        ours.execute("UPDATE models SET config = '{'")
    with pytest.raises(DataError, match=f"record of {model} is damaged"):
        registry.get(model)


def test_a_card_tells_everything_and_breaks_no_table(registry: ModelRegistry, tmp_path: Path) -> None:
    odd = tmp_path / "a|b.trmph"
    odd.write_text("#3,a1")
    model = registry.register(
        KEY,
        weights(tmp_path, b"card"),
        config={"lr": 0.125},
        metrics={"loss": 0.5},
        sources=[hash_source(odd)],
        games=1234,
        elo=Elo(120.4, 80.0, 160.0, 400),
        who=WHO,
    )
    page = registry.card(model)
    told = [f"# {model}", "+120 (+80 to +160, 400 games)", "1,234", '"lr": 0.125', "| loss | 0.5 |", "a\\|b"]
    assert [each for each in told if each not in page] == []
    assert file_digest(odd)[0] in page


def test_an_error_of_the_registry_is_one_a_person_can_mend(registry: ModelRegistry) -> None:
    with pytest.raises(TamenError) as caught:
        registry.get("hex5_2p-v3")
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == ["why", "do"]
