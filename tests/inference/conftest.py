"""One checkpoint and one bundle for all tests of the room."""

from pathlib import Path

import pytest

from mtl_ray.export.bundle import export
from mtl_ray.export.config import ExportConfig
from tests.inference.tiny import HEADS, write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", HEADS))


@pytest.fixture(scope="session", params=["end2end-uint8", "raw-float32"])
def bundle(
    request: pytest.FixtureRequest, checkpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> str:
    layout, _, kind = request.param.partition("-")
    to = Path(tmp_path_factory.mktemp("bundle")) / request.param
    names = "triton" if layout == "raw" else "readable"
    export(
        checkpoint,
        str(to),
        ExportConfig(
            layout=layout, input=kind, size="fixed", names=names, samples=2, min_agree=0.95
        ),
    )
    return str(to)
