"""Further engines of a bundle: each is built and checked by itself, on any machine.

An engine with fp32 must give what torch gives, as the first engine. One with fp16 or int8 must not
lose more than ``export.max_metric_drop`` of the metric of any head.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mtl_ray.artifact import publish
from mtl_ray.backends.backend import AnyEngine, first_line
from mtl_ray.backends.config import engine_name
from mtl_ray.evaluation.measure import measure
from mtl_ray.evaluation.metrics import head_metrics
from mtl_ray.export.build import Built, TracedGraph, build, form_for, sign, trace
from mtl_ray.export.calibrate import calibration_samples
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.parity import MetricPair, Parity
from mtl_ray.export.verify import BATCHES, check_samples, val_samples, verify
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.inference.config import SlideConfig
from mtl_ray.inference.signature import FurtherEngine
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.inputs.input import placed
from mtl_ray.loading.config import DataConfig
from mtl_ray.samples import Sample
from mtl_ray.tasks.task import Metric

_log = logging.getLogger(__name__)

WARM_UP, MOST_RUNS, MOST_S = 5, 200, 4.0
"""Calls before the clock starts; most calls and most seconds that are timed."""


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """What one engine is built from.

    Attributes:
        checkpoint: its URI.
        engine: to build.
        config: of the export.
        data: where samples are.
        plugins: modules of the engine and the checkpoint.
        slide: of the export's config.
    """

    checkpoint: str
    engine: AnyEngine
    config: ExportConfig
    data: DataConfig
    plugins: tuple[str, ...] = ()
    slide: SlideConfig | Literal["stored"] | None = "stored"


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Of single samples on one thread, without what comes before and after the network.

    Attributes:
        p50_ms, p99_ms: milliseconds of a call.
        per_second: samples a second.
    """

    p50_ms: float
    p99_ms: float
    per_second: float


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """An engine that was built and checked, or the reason why it was not.

    Attributes:
        name: see ``engine_name``.
        failure: one sentence; None if it is in the bundle.
        files: its files by name.
        signature: its part of the signature.
        parity: what was compared.
        latency: None if it did not run.
        build_s: seconds of its build.
        about: facts that it states, such as the precision that it runs with.
    """

    name: str
    failure: str | None = None
    files: Mapping[str, bytes]
    signature: FurtherEngine | None = None
    parity: Parity | None = None
    latency: Latency | None = None
    build_s: float = 0.0
    about: Mapping[str, str]

    @property
    def num_bytes(self) -> int:
        """Of its files."""
        return sum(map(len, self.files.values()))


MoreEngines = Callable[[], Sequence[BuiltEngine]]
"""Builds all further engines."""


def build_engine(request: EngineRequest) -> BuiltEngine:
    """Builds and checks one engine; what it cannot do, and every error of its library, is its
    ``failure``: the other engines of the bundle do not depend on it.
    """
    name = engine_name(request.engine)
    try:
        if (reason := request.engine.unavailable()) is not None:
            return _failed(name, reason)
        predictor = open_checkpoint(request.checkpoint, slide=request.slide)
        config = form_for(request.engine, request.config)
        return _built(request, predictor, trace(predictor, config), config)
    except ValueError as error:
        return _failed(name, str(error))
    except Exception as error:
        _log.exception("%s failed", name)
        said = dict.fromkeys((type(error).__name__, first_line(error)))  # one if it has no message
        return _failed(name, ": ".join(said))


def _failed(name: str, reason: str, parity: Parity | None = None) -> BuiltEngine:
    return BuiltEngine(name=name, failure=reason, files={}, about={}, parity=parity)


def _built(
    request: EngineRequest, predictor: TorchPredictor, traced: TracedGraph, config: ExportConfig
) -> BuiltEngine:
    name = engine_name(config.engine)
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as folder:
        calibration = None
        if config.engine.precision == "int8":
            unsigned = sign(predictor, traced, config, ("none",), request.plugins)
            calibration = calibration_samples(
                request.data, predictor.canvas, config.calibration, unsigned
            )
        start = time.monotonic()
        built = build(predictor, traced, config, Path(scratch), request.plugins, calibration)
        build_s = time.monotonic() - start
        files = {
            key: value if isinstance(value, bytes) else value.read_bytes()
            for key, value in built.files.items()
        }
        content = {**files, "signature.json": built.signature.to_json()}
        publish(folder, content, kind="bundle")
        # opened from its files, as a server does
        bundle = BundlePredictor(folder, threads=1, batch=max(BATCHES))
        parity = _checked(request, predictor, traced, bundle, config)
        if parity.failures:
            return _failed(name, parity.reason, parity)
        return BuiltEngine(
            name=name,
            files=files,
            signature=_further(built),
            parity=parity,
            latency=latency_of(bundle),
            build_s=build_s,
            about=dict(bundle.session.about),
        )


def _further(built: Built) -> FurtherEngine:
    signature = built.signature
    return FurtherEngine(
        engine=signature.engine,
        files=signature.files,
        inputs=signature.inputs,
        outputs=signature.outputs,
        layout=signature.layout,
    )


def _checked(
    request: EngineRequest,
    predictor: TorchPredictor,
    traced: TracedGraph,
    bundle: BundlePredictor,
    config: ExportConfig,
) -> Parity:
    """The parity of an engine, by its precision."""
    data, vocabulary = request.data, predictor.vocabulary
    if config.engine.precision == "fp32":
        samples = check_samples(data, vocabulary, config.samples).samples
        return verify(predictor, traced.graph, bundle, samples, config)
    try:
        return compare_loss(predictor, bundle, lambda: val_samples(data, vocabulary), config)
    except FileNotFoundError as error:
        raise ValueError(
            f"{config.engine.precision} is judged by the metric of the validation split, which "
            f"cannot be read: {error}"
        ) from error


def compare_loss(
    reference: TorchPredictor,
    bundle: BundlePredictor,
    read: Callable[[], Iterable[Sample]],
    config: ExportConfig,
) -> Parity:
    """The loss of the main metric of each head by an engine of less precision, on what ``read``
    gives.
    """
    results = [head_metrics(each.heads, each.vocabulary) for each in (reference, bundle)]
    measure(reference, islice(read(), config.metric_samples), results[0])
    parity = Parity(layout=config.layout, samples=0, canvases=[bundle.canvas])
    parity.samples, parity.batches = _measure_alone_too(
        bundle, islice(read(), config.metric_samples), results[1], config.metric_samples // 4
    )
    for head, ours in results[0].items():
        theirs = results[1][head]
        first, second = (float(each.result()[ours.main]) for each in (ours, theirs))
        parity.metrics.append(MetricPair(head=head, metric=ours.main, torch=first, bundle=second))
        loss = second - first if ours.main in ours.lower_is_better else first - second
        if not loss <= config.max_metric_drop:  # NaN, where nothing is annotated, is no proof
            parity.failures.append(
                f"{head}/{ours.main} is {first:.4f} in torch and {second:.4f} in this engine, a "
                f"loss above {config.max_metric_drop:g} (export.max_metric_drop)"
                if np.isfinite(loss)
                else f"{head}/{ours.main} cannot be compared: the samples have no annotation"
            )
        elif first <= config.max_metric_drop and ours.main not in ours.lower_is_better:
            parity.too_low.append(
                f"{head}/{ours.main} is {first:.4f} in torch, so a loss above "
                f"{config.max_metric_drop:g} is not possible and nothing was tested (Fix: a "
                "trained model, or a smaller export.max_metric_drop)"
            )
    return parity


def _measure_alone_too(
    bundle: BundlePredictor,
    samples: Iterator[Sample],
    metrics: Mapping[str, Metric[Any]],
    alone: int,
) -> tuple[int, tuple[int, ...]]:
    """Measures a bundle in whole batches, but for some samples, which go alone as most requests of
    a server do: an engine may be wrong in either. Returns the number of samples, and the sizes of
    the batches.
    """
    single = copy(bundle)
    single.batch = 1
    parts = [
        (bundle, measure(bundle, islice(samples, bundle.batch), metrics)),
        (single, measure(single, islice(samples, alone), metrics)),
        (bundle, measure(bundle, samples, metrics)),
    ]
    sizes = {min(each.batch, part.largest) for each, part in parts if part.samples}
    return sum(part.samples for _, part in parts), tuple(sorted(sizes))


def latency_of(bundle: BundlePredictor) -> Latency:
    """Times single samples of generated data."""
    _, raw = bundle.canvas.input.generate(np.random.default_rng(0))
    arrays, _ = placed([raw], bundle.canvas)
    for _ in range(WARM_UP):
        bundle.run(arrays)
    seconds = np.array(list(islice(_timed(bundle, arrays), MOST_RUNS)))
    return Latency(
        p50_ms=float(np.median(seconds) * 1e3),
        p99_ms=float(np.quantile(seconds, 0.99) * 1e3),
        per_second=float(len(seconds) / seconds.sum()),
    )


def _timed(bundle: BundlePredictor, arrays: Mapping[str, Any]) -> Iterator[float]:
    until = time.perf_counter() + MOST_S
    while (start := time.perf_counter()) < until:
        bundle.run(arrays)
        yield time.perf_counter() - start


def requests_of(
    checkpoint: str,
    config: ExportConfig,
    data: DataConfig,
    plugins: tuple[str, ...],
    slide: SlideConfig | Literal["stored"] | None = "stored",
) -> list[EngineRequest]:
    """A request for each further engine of a config; one that is there twice is built once."""
    engines = (config.engine, *config.engines)
    return [
        EngineRequest(
            checkpoint=checkpoint,
            engine=engine,
            config=replace(config, engines=()),
            data=data,
            plugins=plugins,
            slide=slide,
        )
        for i, engine in enumerate(config.engines, 1)
        if engine not in engines[:i]
    ]
