"""Keys are told apart from everything else."""

import pytest

from control.keys import Key, parse_key
from core.errors import UsageError


@pytest.mark.parametrize("key", [Key("hex5"), Key("tic_tac_toe"), Key("square8", 4)])
def test_a_key_is_read_as_it_is_written(key: Key) -> None:
    assert parse_key(str(key)) == key


@pytest.mark.parametrize(
    "text", ["hex5", "hex5_p", "hex5_0p", "_2p", "../hex5_2p", "a/b_2p", "hex5_2p\n", ""]
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_key(text)
