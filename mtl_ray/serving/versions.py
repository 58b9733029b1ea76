"""What is served at one time, and how it is opened."""

import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial

from mtl_ray.artifact import open_artifact
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.predictor import Predictor
from mtl_ray.inputs.input import empty_batch
from mtl_ray.serving.batch_workers import BatchWorkers
from mtl_ray.serving.config import ServeConfig, ServedModel, version_key
from mtl_ray.serving.pipelines import open_pipeline
from mtl_ray.serving.reply import Reply, RequestError, quoted
from mtl_ray.serving.routes import Routes
from mtl_ray.serving.service import PredictionRequest, Service
from mtl_ray.serving.v2_model import TensorCall, TensorModel

Item = PredictionRequest | TensorCall
"""What the workers of a model take."""
POLL_S = 0.05


class Generation:
    """All that is served at one time; an update replaces it as a whole.

    Args:
        service: the predictors.
        config: limits, versions.
        parallel: concurrent calls of each model.
    """

    def __init__(self, service: Service, config: ServeConfig, parallel: int) -> None:
        self.service = service
        self.config = config
        self.limit = config.max_queued + parallel
        self.routes = Routes(service.predictors, config.models)
        of_model = {
            version_key(name, version): model.parallel
            for name, model in config.models.items()
            if isinstance(model, ServedModel)
            for version in model.versions
        }
        self.workers: dict[str, BatchWorkers[Item, Reply]] = {
            key: BatchWorkers(
                partial(self.replies, key),
                of_model.get(key) or parallel,
                config.max_batch,
                key,
                service.statistics[key].count,
            )
            for key in service.predictors
        }
        self._tensors: dict[str, TensorModel] = {}
        self._lock = threading.Lock()
        self._users = 0

    def __enter__(self) -> "Generation":
        with self._lock:
            self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1

    def tensors(self, key: str) -> TensorModel:
        """The raw tensors of what has a key.

        Raises:
            RequestError: 404 if it is no bundle, and so has none.
        """
        predictor = self.service.predictors[key]
        if not isinstance(predictor, BundlePredictor):
            raise RequestError(404, f"the model {quoted(key)} is no bundle, so it has no tensors")
        with self._lock:
            if key not in self._tensors:
                name, version = self.routes.place_of(key)
                most = self.config.max_images
                self._tensors[key] = TensorModel(name, predictor, most, version)
            return self._tensors[key]

    def is_short(self, key: str) -> bool:
        """Whether the next call of a model takes about as long as the last, and that was short.
        Models that make several calls for large data are none of these.
        """
        predictor = self.service.predictors[key]
        same = isinstance(predictor, BundlePredictor) and predictor.slide is None
        return same and self.workers[key].short

    def replies(self, key: str, items: Sequence[Item]) -> list[Reply]:
        """The answers of one model to requests of all kinds, for its workers."""
        files = [each for each in items if isinstance(each, PredictionRequest)]
        calls = [each for each in items if not isinstance(each, PredictionRequest)]
        of_files = iter(self.service.replies(key, files) if files else ())
        of_calls = iter(self.tensors(key).replies(calls) if calls else ())
        return [
            next(of_files if isinstance(each, PredictionRequest) else of_calls) for each in items
        ]

    def close(self) -> None:
        """Ends the threads of all models."""
        for workers in self.workers.values():
            workers.close()

    def retire(self, at_most_s: float) -> None:
        """Closes when no request uses it any more."""
        give_up = time.monotonic() + at_most_s
        time.sleep(4 * POLL_S)  # a request may have got it, and not entered yet
        while self._users and time.monotonic() < give_up:
            time.sleep(POLL_S)
        self.close()


def open_predictors(
    config: ServeConfig,
    before: Mapping[str, Predictor] | None = None,
    before_config: ServeConfig | None = None,
) -> dict[str, Predictor]:
    """The predictors of all models, versions and pipelines, by key. A bundle that is named twice is
    opened once.

    Args:
        config: names them.
        before: predictors that are served now; those of the same bundle and options are used again,
            others are tried once.
        before_config: their config.

    Raises:
        FileNotFoundError, ValueError: if a bundle cannot be opened or does not run.
    """
    known = (
        {_identity(before_config, key): before[key] for key in before_config.bundles()}
        if before and before_config
        else {}
    )
    found: dict[str, Predictor] = {}
    for key, (uri, engine) in config.bundles().items():
        identity = _identity(config, key)
        if identity in known and _is_of(known[identity], uri):
            found[key] = known[identity]
            continue
        predictor = BundlePredictor(
            uri, threads=_threads(config, key), batch=config.max_batch, engine=engine
        )
        if before is not None:
            predictor.run(empty_batch(predictor.canvas, 1))  # the first request is not slow
        found[key] = known[identity] = predictor
    for name, pipeline in config.pipelines.items():
        opened, known_one = open_pipeline(name, pipeline, found), (before or {}).get(name)
        found[name] = known_one if known_one is not None and opened.same_as(known_one) else opened
    return found


def _is_of(predictor: Predictor, uri: str) -> bool:
    """Whether a predictor is of the bundle that is at a URI now: another may have been written
    there.
    """
    return (
        isinstance(predictor, BundlePredictor)
        and predictor.entries == open_artifact(uri, kind="bundle").entries
    )


def _threads(config: ServeConfig, key: str) -> int:
    model = config.models[key.partition("@")[0]]
    return (model.threads if isinstance(model, ServedModel) else None) or config.threads


def _identity(config: ServeConfig, key: str) -> tuple[str, str | None, int, int]:
    return (*config.bundles()[key], _threads(config, key), config.max_batch)
