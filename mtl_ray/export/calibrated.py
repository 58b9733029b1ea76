"""int8 engines that were calibrated before, below the user's cache folder: a second export of the
same graph on the same samples does not calibrate again.

The key is a hash of all that decides the files: the graph, the samples, the options of the engine,
its code and that of its libraries, and the processor.
"""

import hashlib
import inspect
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from mtl_ray.backends.backend import AnyEngine, Exported
from mtl_ray.backends.onnx_int8 import cpu_flags
from mtl_ray.config.validate import values_of
from mtl_ray.shards.cache import FOLDER_VARIABLE, Cache, user_folder

LIMIT_BYTES = 4 << 30
"""The least recently used files beyond it are removed."""


@runtime_checkable
class CalibratingEngine(Protocol):
    """An engine whose int8 files are kept."""

    @property
    def packages(self) -> tuple[str, ...]:
        """The distributions whose versions decide the files."""
        ...


def build_cached(engine: AnyEngine, exported: Exported, folder: Path) -> Mapping[str, bytes | Path]:
    """The files of an engine as ``build`` gives them; of int8 ones from the cache if they are
    there.

    Raises:
        EngineError: see ``AnyEngine.build``.
    """
    cache = _cache() if engine.precision == "int8" else None
    if cache is None or not isinstance(engine, CalibratingEngine):
        return engine.build(exported, folder)
    made: dict[str, bytes] = {}

    def make() -> bytes:
        for name, file in engine.build(exported, folder).items():
            made[name] = file if isinstance(file, bytes) else file.read_bytes()
        return _packed(made)

    key = _key(engine, engine.packages, exported)
    try:
        data = cache.get(key, make)
    except ValueError:
        if made:  # built, but there is no room to keep it
            return made
        raise
    try:
        return _unpacked(data)
    except (zipfile.BadZipFile, EOFError):
        cache.remove(key)
        return engine.build(exported, folder)


def _cache() -> Cache | None:
    """None if its folder cannot be written."""
    given = os.environ.get(FOLDER_VARIABLE)
    folder = Path(given) / "calibrated" if given else user_folder("calibrated")
    try:
        return Cache(folder, LIMIT_BYTES)
    except OSError:
        return None


def _key(engine: AnyEngine, packages: tuple[str, ...], exported: Exported) -> str:
    digest = hashlib.sha256()
    for part in _parts(engine, packages, exported):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _parts(engine: AnyEngine, packages: tuple[str, ...], exported: Exported) -> Iterator[bytes]:
    """All that decides the files of an int8 engine."""
    facts = {
        "engine": values_of(engine),
        "versions": {name: _version(name) for name in packages},
        "processor": sorted(cpu_flags()),
        "exclude": exported.calibration.exclude,
    }
    yield json.dumps(facts, sort_keys=True).encode()
    for path in sorted(Path(inspect.getfile(type(engine))).parent.glob("*.py")):
        yield path.read_bytes()
    yield exported.onnx
    for batch in exported.calibration.batches:
        for name in sorted(batch):
            values = np.ascontiguousarray(batch[name])
            yield f"{name} {values.dtype.str} {values.shape}".encode()
            yield values.tobytes()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _packed(files: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def _unpacked(data: memoryview) -> dict[str, bytes]:
    """The inverse of ``_packed``; zip has a checksum of each file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
