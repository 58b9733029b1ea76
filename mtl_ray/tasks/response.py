"""The JSON of a head's prediction, with masks in the form that a client asks for."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.head_classes import head_vocabulary
from mtl_ray.tasks.task import HeadKind

MaskForm = Literal["rle", "polygon", "none"]
"""rle: COCO's compressed run lengths, ``{"size": [height, width], "counts": "..."}``. polygon: a
list of polygons ``[x, y, x, y, ...]`` in pixels, whose filling gives the same pixels. none: left
out.
"""
MASK_FORMS: tuple[MaskForm, ...] = get_args(MaskForm)


@runtime_checkable
class MaskTask(Protocol):
    """A task whose predictions may have masks."""

    masks_in_response: bool

    def to_response(
        self,
        prediction: Any,
        vocabulary: Vocabulary,
        score_threshold: float,
        image_file: str | None = None,
        *,
        masks: MaskForm = "rle",
        size: Mapping[str, int] | None = None,
    ) -> Any:
        """As ``Task.to_response``; ``size`` has height and width of the image."""
        ...


class Responder:
    """Makes the JSON of a head's predictions. What is the same for all of them is prepared once,
    since it takes longer than the rest.

    Args:
        head: that predicts.
        vocabulary: of the predictor.
    """

    def __init__(self, head: HeadKind, vocabulary: Vocabulary) -> None:
        self._task = head.task
        self._with_masks = head.task if isinstance(head.task, MaskTask) else None
        self._vocabulary = head_vocabulary(head, vocabulary)

    def response(
        self,
        prediction: Any,
        score_threshold: float,
        *,
        masks: MaskForm = "rle",
        size: Mapping[str, int],
        image_file: str | None = None,
    ) -> Any:
        """The JSON of the prediction of one sample.

        Args:
            prediction: of the head.
            score_threshold: entries with a lower score are left out.
            masks: their form.
            size: of the data (``Input.size``).
            image_file: see ``Task.to_response``.
        """
        own = self._vocabulary
        if self._with_masks is not None:
            return self._with_masks.to_response(
                prediction, own, score_threshold, image_file, masks=masks, size=size
            )
        return self._task.to_response(prediction, own, score_threshold, image_file)


def responders(heads: Mapping[str, HeadKind], vocabulary: Vocabulary) -> dict[str, Responder]:
    """One for each head of a predictor with a vocabulary."""
    return {name: Responder(head, vocabulary) for name, head in heads.items()}
