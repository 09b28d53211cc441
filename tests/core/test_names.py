import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UsageError
from core.names import checked_name


@pytest.mark.parametrize("name", ["a", "7", "hex5-first", "run_2.1", "A" * 64])
def test_a_plain_name_passes_unchanged(name: str) -> None:
    assert checked_name(name, what="run") == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a..b", "-rf", ".hidden", "_x", "a/b", "a\\b", "a b", "a\n", "\n", "é", "a\0", "A" * 65],
)
def test_a_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(UsageError) as refusal:
        checked_name(name, what="model")
    assert refusal.value.what == f"model name {name!r} is not allowed"
    assert "1-64 letters" in refusal.value.why
    assert "hex5-first" in refusal.value.fix


@given(st.text(alphabet="aZ0._-/~ \n\\é", max_size=70))
def test_whatever_passes_is_a_single_visible_path_component(name: str) -> None:
    try:
        checked_name(name, what="run")
    except UsageError:
        return
    assert 1 <= len(name) <= 64
    assert name.isascii()
    assert name.isprintable()
    assert not set(name) & set("/\\ ~")
    assert name[0].isalnum()
    assert ".." not in name
