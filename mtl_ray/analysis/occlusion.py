"""Recall of occluded and of separated objects, from stored predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mtl_ray import storage
from mtl_ray.analysis.executor import Executor
from mtl_ray.analysis.hidden import hidden_in
from mtl_ray.analysis.paired import PICKLES, Likeness, Paired
from mtl_ray.evaluation.occlusion import hidden_objects, read_list, write_list
from mtl_ray.tasks.detection.columns import Scored
from mtl_ray.tasks.detection.occlusion import Hidden, HiddenObject, Lists, OcclusionCounts

IMAGES_OF_A_TASK = 200
KINDS: tuple[Hidden, Hidden] = ("occluded", "separated")


@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """What was found of the two lists.

    Attributes:
        recall: percent by list, NaN where no object of it was looked for.
        found: objects found by list.
        looked_for: objects of images of the data by list.
        elsewhere: objects of images that the data does not have; they do not count.
    """

    recall: Mapping[Hidden, float]
    found: Mapping[Hidden, int]
    looked_for: Mapping[Hidden, int]
    elsewhere: int

    def to_json(self) -> dict[str, float | None]:
        """``occluded_recall`` and ``separated_recall`` in percent, None where nothing was looked for."""
        return {f"{kind}_recall": self.recall[kind] if self.looked_for[kind] else None for kind in KINDS}


def occlusion(paired: Paired, lists: Lists, *, kind: Likeness = "segm", score: float = 0.3, iou: float = 0.75) -> Occlusion:
    """Looks for the objects of the lists among the detections.

    Args:
        paired: predictions, and the images they belong to; an image without a detection is one where nothing was found.
        lists: the occluded and the separated objects.
        kind: whether masks or boxes must overlap.
        score: detections of a lower score find nothing.
        iou: how much they must overlap.
    """
    if kind == "bbox":
        paired = paired.without_masks()
    counts = OcclusionCounts(lists, paired.names, score_threshold=score, iou_threshold=iou)
    for image in paired.images:
        counts.update(paired.file_names[image.key], image.found)
    return Occlusion(
        recall={name: 100 * value for name, value in counts.recall().items()},
        found=counts.found,
        looked_for=counts.looked_for,
        elsewhere=sum(len(objects) for objects in lists.values()) - sum(counts.looked_for.values()),
    )


def read_hidden(uri: str) -> list[HiddenObject]:
    """A list of hidden objects: a pickle such as ``occluded_coco.pkl``, or JSON.

    Raises:
        FileNotFoundError, ValueError: if it cannot be read.
    """
    if not uri.endswith(PICKLES):
        return read_list(uri)
    from mtl_ray.weights.unpickle import load_pickle

    return hidden_objects(uri, load_pickle(storage.read(uri)))


def lists_of(paired: Paired, occluded: str | None, separated: str | None, executor: Executor) -> Lists:
    """The lists at two URIs, or where none are given those that are told from the annotated masks.

    Raises:
        FileNotFoundError, ValueError: if a list cannot be read, only one is given, or the data has no masks.
    """
    if occluded is not None and separated is not None:
        return {"occluded": read_hidden(occluded), "separated": read_hidden(separated)}
    if occluded is not None or separated is not None:
        raise ValueError("--occluded and --separated go together")
    return derive(paired, executor)


def derive(paired: Paired, executor: Executor) -> Lists:
    """The occluded and the separated objects among the annotated ones (see ``hidden_in``).

    Raises:
        ValueError: if the data has no masks.
    """
    if all(image.truth.masks is None for image in paired.images):
        raise ValueError("the data has no masks, by which occluded objects are told; give the lists with --occluded and --separated")
    starts = range(0, len(paired.images), IMAGES_OF_A_TASK)
    parts = executor(
        partial(_hidden, paired.images, paired.file_names, paired.names),
        [(start, min(start + IMAGES_OF_A_TASK, len(paired.images))) for start in starts],
        "occlusion",
    )
    return {kind: [each for part in parts for found, each in part if found == kind] for kind in KINDS}


def _hidden(
    images: Sequence[Scored], file_names: Mapping[str, str], names: Sequence[str], rows: tuple[int, int]
) -> list[tuple[Hidden, HiddenObject]]:
    found: list[tuple[Hidden, HiddenObject]] = []
    for image in images[slice(*rows)]:
        for place, kind in hidden_in(image.truth, image.height, image.width).items():
            assert image.truth.masks is not None
            x1, y1, x2, y2 = image.truth.boxes_xyxy[place].tolist()
            each = HiddenObject(
                file_name=file_names[image.key],
                name=names[int(image.truth.classes[place])],
                box_xyxy=(x1, y1, x2, y2),
                height=image.height,
                width=image.width,
                mask=image.truth.masks[place],
            )
            found.append((kind, each))
    return found


def write_lists(folder: str, lists: Lists) -> list[str]:
    """Writes occluded.json and separated.json, which a config's ``evaluate.occlusion`` and this tool take; gives their URIs."""
    uris = [storage.join(folder, f"{kind}.json") for kind in KINDS]
    for kind, uri in zip(KINDS, uris, strict=True):
        write_list(uri, lists[kind])
    return uris
