"""A short run of the chaos runner, with each kind of kill at most once."""

import pytest

from tests.cluster.chaos import main

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.mark.parametrize(("world", "seed"), [("fixed", "3"), ("changing", "4")])
def test_nothing_is_lost_or_repeated(
    world: str, seed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--kills", "3", "--seed", seed, "--every", "6", "--world", world]) == 0, (
        capsys.readouterr().out
    )
    assert "samples lost         0" in capsys.readouterr().out
