"""Property tests draw the same examples in every run."""

import importlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st


def drawn() -> list[tuple[int, str]]:
    seen = []

    @given(st.integers(), st.text())
    def collect(number: int, text: str) -> None:
        seen.append((number, text))

    collect()
    return seen


def test_examples_do_not_depend_on_what_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = drawn()
    assert before == drawn()
    (tmp_path / "full_of_constants.py").write_text(
        f"WORDS = {[f'word {i}' for i in range(500)]}\nNUMBERS = {list(range(7000, 7500))}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("full_of_constants")
    assert before == drawn()
