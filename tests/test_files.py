"""Names and weights files."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from search.files import safe_name


@given(st.text(max_size=20) | st.text(st.sampled_from("./\\ab-_ \n"), max_size=9))
def test_a_safe_name_is_one_plain_file_name(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert Path(safe).name == safe
    assert not safe.startswith((".", "-", "_")) or safe[0] == "-"
    assert safe.isascii()
    assert safe_name(safe) == safe
