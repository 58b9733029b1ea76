"""From a checkpoint to a published bundle: the graph is traced, compared with torch, and only then
written.
"""

import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from mtl_ray import storage
from mtl_ray.artifact import MANIFEST, open_artifact, publish
from mtl_ray.backends.config import engine_name
from mtl_ray.config.validate import read_record
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.export.build import Built, build, check_engine, trace
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.engines import (
    BuiltEngine,
    EngineRequest,
    MoreEngines,
    build_engine,
    latency_of,
    requests_of,
)
from mtl_ray.export.engines_report import EngineRow, engines_report, notes_of, rows_of
from mtl_ray.export.mmdeploy import dump_info
from mtl_ray.export.parity import Parity, ParityError
from mtl_ray.export.verify import CheckSamples, DecodedSample, check_samples, verify
from mtl_ray.inference.bundle import RANGE_FILE, BundlePredictor
from mtl_ray.inference.checkpoint import find_checkpoint, open_checkpoint
from mtl_ray.inference.config import SlideConfig
from mtl_ray.inference.predictor import artifact_kind
from mtl_ray.inference.statistics import STATISTICS_FILE, statistics_of
from mtl_ray.inference.stored_config import read_config
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.loading.config import DataConfig

RunEngines = Callable[
    [Callable[[EngineRequest], BuiltEngine], Sequence[EngineRequest]], Sequence[BuiltEngine]
]
"""Calls the function for each request, here or elsewhere; the results are in order."""


def run_here(
    function: Callable[[EngineRequest], BuiltEngine], requests: Sequence[EngineRequest]
) -> list[BuiltEngine]:
    """See ``RunEngines``: one after the other in this process."""
    return [function(request) for request in requests]


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """What a bundle repeats of the ``state.json`` of its checkpoint."""

    step: int
    metrics: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class WrittenBundle:
    """A bundle that was written.

    Attributes:
        uri: of the bundle.
        bytes: size of the engine's files.
        parity: its difference from torch.
        samples: the samples that it was checked on, in words.
        notes: what its engine cannot do, and the heads of which nothing was compared.
        engines: a row for each engine, if there are further ones.
    """

    uri: str
    bytes: int
    parity: Parity
    samples: str
    notes: tuple[str, ...] = ()
    engines: tuple[EngineRow, ...] = ()


def export(
    target: str,
    to: str,
    config: ExportConfig,
    data: DataConfig | None = None,
    plugins: tuple[str, ...] = (),
    run_engines: RunEngines = run_here,
    slide: SlideConfig | Literal["stored"] | None = "stored",
) -> WrittenBundle:
    """Writes the bundle of a checkpoint.

    Args:
        target: URI of a checkpoint, or of a run, whose best checkpoint is used.
        to: URI of the bundle, which must not exist.
        config: layout, names, sizes, tolerances.
        data: samples for the comparison with torch; by default the data that the checkpoint was
            trained on.
        plugins: modules of the engine, beside those of the checkpoint.
        run_engines: builds the further engines (``config.engines``).
        slide: class maps in windows; by default ``evaluate.slide`` of the checkpoint.

    Raises:
        ParityError: if the graph differs from torch; nothing is written then.
        ValueError: if the bundle exists, the checkpoint is incomplete, its network cannot be
            traced, or the engine is not installed.
    """
    to = storage.absolute(to)
    check_engine(config)
    if storage.exists(storage.join(to, MANIFEST)):
        raise ValueError(f"{to} holds a bundle already. Fix: remove it, or write to another place")
    checkpoint = open_artifact(checkpoint_of(target), kind="checkpoint")
    predictor = open_checkpoint(checkpoint.uri, slide=slide)
    data = data or read_config(checkpoint).data
    samples = check_samples(data, predictor.vocabulary, config.samples)
    state = read_record(
        checkpoint.read("state.json"), _Measured, storage.join(checkpoint.uri, "state.json")
    )
    metrics = {"checkpoint": checkpoint.uri, "step": state.step, "metrics": state.metrics}
    further = {
        "config.yaml": checkpoint.read("config.yaml"),
        "metrics.json": json.dumps(metrics, indent=1).encode(),
    }
    requests = requests_of(checkpoint.uri, config, data, plugins, slide)
    more = (lambda: run_engines(build_engine, requests)) if requests else None
    return write_bundle(predictor, samples, to, config, further, plugins, more)


def checkpoint_of(target: str) -> str:
    """The URI of a checkpoint: ``target`` itself, or the best one if ``target`` is a run."""
    return target if artifact_kind(target) else find_checkpoint(target)


def checkpoint_config(target: str, overrides: Sequence[str]) -> ExperimentConfig:
    """The config of a checkpoint, or of a run's best one, with changes of the form
    ``section.key=value``.
    """
    checkpoint = open_artifact(checkpoint_of(target), kind="checkpoint")
    return read_config(checkpoint, overrides)


def write_bundle(
    predictor: TorchPredictor,
    checked: CheckSamples,
    to: str,
    config: ExportConfig,
    further: Mapping[str, bytes] = MappingProxyType({}),
    plugins: tuple[str, ...] = (),
    more: MoreEngines | None = None,
) -> WrittenBundle:
    """Traces a model, builds the engine's files, checks them on samples and publishes the bundle.

    It also holds the signature, ``parity.json`` and the ``further`` files, and what ``more`` gives:
    the other engines of ``config.engines``. ``statistics.json`` counts the first
    ``config.metric_samples`` of the split.
    """
    check_engine(config)
    traced = trace(predictor, config)
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as folder:
        built = build(predictor, traced, config, Path(scratch), plugins)
        files: dict[str, bytes | Path] = {
            **built.files,
            "signature.json": built.signature.to_json(),
            **further,
        }
        publish(folder, files, kind="bundle")
        bundle = BundlePredictor(folder)
        parity = verify(predictor, traced.graph, bundle, checked.samples, config)
        if parity.failures:
            raise ParityError(parity)
        engines = more() if more is not None else ()
        files["parity.json"] = _parity_json(parity, checked.source, config, bundle)
        files[RANGE_FILE] = _range_json(parity, config, engines)
        if config.dump_info:
            files |= dump_info(predictor, [raw for _, raw in checked.samples], config)
        if not checked.generated:
            counted = islice(chain(checked.samples, checked.rest), config.metric_samples)
            files[STATISTICS_FILE] = _statistics_json(bundle, counted, max(parity.batches))
        rows: list[EngineRow] = []
        if engines:
            rows = rows_of(_first_row(built, parity, config, bundle, folder), engines)
            files |= engines_report(rows, checked.source)
            files |= _files_of(engines, files.keys())
            kept = tuple(each.signature for each in engines if each.signature is not None)
            files["signature.json"] = replace(built.signature, further=kept).to_json()
        if not publish(to, files, kind="bundle"):
            raise ValueError(f"{to} was written by another process in the meantime")
        num_bytes = built.num_bytes  # the files of some engines are in the scratch folder
    return WrittenBundle(
        uri=to,
        bytes=num_bytes,
        parity=parity,
        samples=checked.source,
        notes=(*config.engine.limits().notes, *parity.notes, *notes_of(rows[1:])),
        engines=tuple(rows),
    )


def _parity_json(
    parity: Parity, source: str, config: ExportConfig, bundle: BundlePredictor
) -> bytes:
    report = {
        **parity.to_json(),
        "source": source,
        "engine": {"type": config.engine.type, **bundle.session.about},
    }
    return json.dumps(report, indent=1, allow_nan=False).encode()


def _statistics_json(
    bundle: BundlePredictor, samples: Iterable[DecodedSample], batch: int
) -> bytes:
    """The statistics of some samples, of which one batch is in memory at a time."""
    raws = (raw for _, raw in samples)
    found = statistics_of(bundle, iter(lambda: list(islice(raws, batch)), []))
    return json.dumps(found.to_json()).encode()


def _range_json(parity: Parity, config: ExportConfig, engines: Sequence[BuiltEngine]) -> bytes:
    """The sizes at which each engine was checked."""
    checked = {engine_name(config.engine): parity.range_json()} | {
        each.name: each.parity.range_json()
        for each in engines
        if each.failure is None and each.parity is not None
    }
    return json.dumps({"version": 1, "engines": checked}, indent=1).encode()


def _first_row(
    built: Built, parity: Parity, config: ExportConfig, bundle: BundlePredictor, folder: str
) -> EngineRow:
    """The row of the engine of the bundle itself, which was published to ``folder``."""
    return EngineRow(
        name=engine_name(config.engine),
        num_bytes=built.num_bytes,
        build_s=None,
        latency=latency_of(BundlePredictor(folder, threads=1)),
        parity=parity,
        about=", ".join(bundle.session.about.values()),
        failure=None,
    )


def _files_of(engines: Sequence[BuiltEngine], taken: Collection[str]) -> dict[str, bytes | Path]:
    """The files of the further engines, none of which is there already.

    Raises:
        ValueError: if two engines have a file of the same name.
    """
    files: dict[str, bytes | Path] = {}
    for engine in engines:
        if twice := sorted({*files, *taken} & engine.files.keys()):
            raise ValueError(
                f"export.engines: {engine.name} and another engine both have a file "
                f"{twice[0]}. Fix: one of them"
            )
        files |= engine.files
    return files
