"""Calibrated engines are kept: the same graph, samples and options are not calibrated twice."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from mtl_ray.backends.backend import Calibration, EngineError, Exported
from mtl_ray.backends.onnxruntime import OnnxRuntimeEngine
from mtl_ray.export import calibrated
from mtl_ray.export.calibrated import CalibratingEngine, build_cached

GRAPH = Exported(
    onnx=b"graph",
    program=None,
    example={},
    outputs=("a",),
    calibration=Calibration(batches=[{"image": np.arange(6.0).reshape(1, 6)}]),
)


@dataclass(frozen=True, kw_only=True)
class Counting:
    """An engine that counts how often it is built."""

    packages: ClassVar[tuple[str, ...]] = ("numpy", "no-such-package")
    precision: str = "int8"
    option: int = 0
    built: list[int] = field(default_factory=list, compare=False)

    def build(self, exported: Exported, folder: Path) -> Mapping[str, bytes | Path]:
        self.built.append(1)
        if exported.onnx == b"bad":
            raise EngineError("cannot hold the graph")
        (folder / "weights").write_bytes(b"w" * 100)
        return {"graph": exported.onnx * 2, "weights": folder / "weights"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MTL_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        calibrated, "values_of", lambda engine: {"option": engine.option, "type": "counting"}
    )
    return tmp_path / "cache" / "calibrated"


def build(engine: Any, exported: Exported, folder: Path) -> Mapping[str, bytes]:
    files = build_cached(engine, exported, folder)
    return {
        name: each if isinstance(each, bytes) else each.read_bytes() for name, each in files.items()
    }


def test_the_second_time_nothing_is_calibrated(tmp_path: Path) -> None:
    engine = Counting()
    first = build(engine, GRAPH, tmp_path)
    assert (
        build(engine, GRAPH, tmp_path) == first == {"graph": b"graphgraph", "weights": b"w" * 100}
    )
    assert len(engine.built) == 1


@pytest.mark.parametrize(
    "changed",
    [
        replace(GRAPH, onnx=b"another"),
        replace(GRAPH, calibration=replace(GRAPH.calibration, exclude=("conv",))),
        replace(GRAPH, calibration=Calibration(batches=[{"image": np.zeros((1, 6))}])),
        replace(GRAPH, calibration=Calibration(batches=[{"other": np.arange(6.0).reshape(1, 6)}])),
        replace(GRAPH, calibration=Calibration(batches=[{"image": np.arange(6.0).reshape(6, 1)}])),
    ],
)
def test_another_graph_or_sample_is_calibrated(changed: Exported, tmp_path: Path) -> None:
    engine = Counting()
    build(engine, GRAPH, tmp_path)
    build(engine, changed, tmp_path)
    assert len(engine.built) == 2


def test_another_option_library_or_processor_is_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Counting()
    build(engine, GRAPH, tmp_path)
    build(replace(engine, option=1), GRAPH, tmp_path)
    monkeypatch.setattr(calibrated, "version", lambda name: "99")
    build(engine, GRAPH, tmp_path)
    monkeypatch.setattr(calibrated, "cpu_flags", lambda: frozenset({"another"}))
    build(engine, GRAPH, tmp_path)
    assert len(engine.built) == 4


def test_a_damaged_file_is_built_again(tmp_path: Path, cache: Path) -> None:
    engine = Counting()
    first = build(engine, GRAPH, tmp_path)
    (kept,) = (path for path in cache.iterdir() if path.is_file())
    data = bytearray(kept.read_bytes())
    data[40] ^= 255
    kept.write_bytes(data)
    assert build(engine, GRAPH, tmp_path) == first
    assert build(engine, GRAPH, tmp_path) == first
    assert len(engine.built) == 3


def test_without_room_or_permission_it_is_built_without_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.write_text("a file where the folder should be")
    engine = Counting()
    assert build(engine, GRAPH, tmp_path)
    assert len(engine.built) == 1


def test_a_failure_stays_a_failure(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot hold"):
        build_cached(Counting(), replace(GRAPH, onnx=b"bad"), tmp_path)  # type: ignore[arg-type]


def test_exact_engines_are_not_kept(tmp_path: Path, cache: Path) -> None:
    engine = Counting(precision="fp32")
    build(engine, GRAPH, tmp_path)
    build(engine, GRAPH, tmp_path)
    assert len(engine.built) == 2
    assert isinstance(OnnxRuntimeEngine(), CalibratingEngine)
