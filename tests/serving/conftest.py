from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving.bundles import make_bundle, two_halves


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Makes a bundle with the named heads."""
    return lambda *heads: make_bundle(tmp_path_factory.mktemp("bundles") / "-".join(heads), *heads)


@pytest.fixture(scope="session")
def picture() -> bytes:
    return two_halves()


@pytest.fixture
def picture_file(picture: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(picture)
    return path
