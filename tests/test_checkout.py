"""What the repository holds is plain files: a link leads to another place on every machine."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_no_file_of_the_repository_is_a_symbolic_link() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = listed.stdout.splitlines()
    assert lines
    links = [line.split("\t")[1] for line in lines if line.startswith("120000 ")]
    assert not links, "git rm --cached them and name them in .gitignore"
