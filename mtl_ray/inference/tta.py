"""Test-time augmentation: a predictor that predicts on several variants of each image and fuses
what it finds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.artifact import open_artifact
from mtl_ray.inference.config import TtaConfig, parse_tta
from mtl_ray.inference.predictor import Predictions, Predictor, artifact_kind, open_predictor
from mtl_ray.inference.stored_config import stored_tta
from mtl_ray.inputs.image import STEP, Canvas
from mtl_ray.inputs.input import AnyCanvas
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.head_classes import head_vocabulary
from mtl_ray.tasks.optional import FusingTask
from mtl_ray.tasks.task import HeadKind


@runtime_checkable
class Resizable(Protocol):
    """A predictor that can run its network at another size."""

    def with_canvas(self, canvas: AnyCanvas) -> Predictor:
        """The same network, on another canvas.

        Raises:
            ValueError: if its graph has a fixed size.
        """
        ...


class AugmentedPredictor:
    """Predicts on variants of each image; see ``Predictor``.

    Args:
        predictor: predicts on a variant.
        config: which variants, and how they are fused.

    Raises:
        ValueError: if the input is no image, the predictions of a head cannot be fused, or the
            network has one size only.
    """

    def __init__(self, predictor: Predictor, config: TtaConfig) -> None:
        canvas = predictor.canvas
        if not isinstance(canvas, Canvas):
            raise ValueError(
                "test-time augmentation changes images, but the input is "
                f"{canvas.input.name}; leave out --tta"
            )
        self._fused: dict[str, FusingTask] = {}
        for name, head in predictor.heads.items():
            if not isinstance(head.task, FusingTask):
                raise ValueError(
                    f"test-time augmentation averages scores, and the head {name!r} predicts none "
                    f"for each class ({head.task.schema_name}); leave out --tta"
                )
            self._fused[name] = head.task
        self.heads: Mapping[str, HeadKind] = predictor.heads
        self.vocabulary: Vocabulary = predictor.vocabulary
        self.canvas: AnyCanvas = canvas
        self.plugins = predictor.plugins
        self.config = config
        self._predictors = [
            _at_scale(predictor, canvas, scale) for scale in dict.fromkeys(config.scales)
        ]

    def predict(self, raws: Sequence[Any]) -> list[Predictions]:
        """See ``Predictor``."""
        variants = [found for each in self._predictors for found in self._variants(each, raws)]
        return [
            {
                name: task.fused(
                    [found[image][name] for found in variants], self.config, self.heads[name]
                )
                for name, task in self._fused.items()
            }
            for image in range(len(raws))
        ]

    def _variants(self, predictor: Predictor, raws: Sequence[Any]) -> list[list[Predictions]]:
        """The predictions on each image as it is and, if wanted, mirrored."""
        plain = predictor.predict(raws)
        if not self.config.flip:
            return [plain]
        mirrored = predictor.predict([_mirrored(raw) for raw in raws])
        return [plain, [self._back(*pair) for pair in zip(mirrored, raws, strict=True)]]

    def _back(self, found: Predictions, raw: NDArray[np.uint8]) -> Predictions:
        """Predictions on a mirrored image, on the image itself."""
        size = self.canvas.input.size(raw)
        return {
            name: task.mirrored(
                found[name], size, head_vocabulary(self.heads[name], self.vocabulary)
            )
            for name, task in self._fused.items()
        }


def _mirrored(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(raw[:, ::-1])


def _at_scale(predictor: Predictor, canvas: Canvas, scale: float) -> Predictor:
    """The predictor on a canvas of another size, rounded to sizes at which an exported graph
    runs.
    """
    if scale == 1:
        return predictor
    height, width = (
        max(side % STEP or STEP, side + STEP * round((scale - 1) * side / STEP))
        for side in (canvas.height, canvas.width)
    )
    if not isinstance(predictor, Resizable):
        raise ValueError("a served model predicts at its own size; leave out scales of --tta")
    return predictor.with_canvas(replace(canvas, height=height, width=width))


def open_with_tta(
    target: str,
    tta: str | None,
    *,
    threads: int = 0,
    api_key: str | None = None,
    engine: str | None = None,
) -> Predictor:
    """The predictor at an address, with test-time augmentation if it is wanted.

    Args:
        target: see ``open_predictor``.
        tta: what ``parse_tta`` reads; None for ``evaluate.tta`` of the target's config, if it has
            one.
        threads: see ``open_predictor``.
        api_key: see ``open_predictor``.
        engine: see ``open_predictor``.

    Raises:
        ValueError, FileNotFoundError: see ``open_predictor`` and ``AugmentedPredictor``.
    """
    config = None if tta is None else parse_tta(tta)
    predictor = open_predictor(target, threads=threads, api_key=api_key, engine=engine)
    if tta is None:
        config = _config_of(target)
    return predictor if config is None else AugmentedPredictor(predictor, config)


def _config_of(target: str) -> TtaConfig | None:
    """``evaluate.tta`` of a run, a checkpoint or a bundle."""
    if target.startswith(("http://", "https://")):
        return None
    kind = artifact_kind(target)
    if kind is None and storage.names(storage.join(target, "checkpoints")):
        from mtl_ray.inference.checkpoint import find_checkpoint

        target, kind = find_checkpoint(target), "checkpoint"
    return None if kind is None else stored_tta(open_artifact(target, kind=kind))
