"""The files of the trials of a search."""

from pathlib import Path

import pytest

from mtl_ray.tuning.record import Records, Trial, TrialResult


@pytest.mark.parametrize("content", ["", "[" * 100_000, "null", "{}", '{"number": "one"}'], ids=len)
@pytest.mark.parametrize("name", ["trial.json", "result.json"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    records = Records(str(tmp_path))
    assert records.propose(Trial(number=0, parameters={"a": 1}, overrides=["a=1"]))
    assert records.finish(0, TrialResult(state="complete", values=[0.5]))
    assert records.read()[1][0].values == [0.5]
    next(tmp_path.rglob(name)).write_text(content)
    with pytest.raises(ValueError, match=rf"{name} is damaged: ") as caught:
        records.read()
    assert "\n" not in str(caught.value)
