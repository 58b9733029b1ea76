"""From an address to the scene that goes into the batch: read, decoded (or kept from before) and
augmented.
"""

import random
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from mtl_ray.inputs.input import TooLargeError
from mtl_ray.loading.augment import augmented, num_partners
from mtl_ray.loading.config import JOINING, CopyPaste, DataConfig
from mtl_ray.loading.object_bank import open_banks
from mtl_ray.loading.plan import BatchPlan
from mtl_ray.loading.reader import Address, Reader, Where
from mtl_ray.loading.scene import InvalidSample, Scene, SceneRule
from mtl_ray.shards.order import key_of

FurtherFields = Mapping[str, frozenset[str]]
"""By kind of annotation, the further arrays that some head reads."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sample's key, its scene (None if it could not be read), and what could not be read for
    it.
    """

    key: str
    scene: Scene | None
    invalid: tuple[InvalidSample, ...]


def scene_rules(data: DataConfig, reader: Reader, fields: FurtherFields) -> list[SceneRule]:
    """How the samples of each split become scenes."""
    fields = _with_cut(data, reader, fields)
    return [
        SceneRule(
            input=data.canvas.input,
            kinds={kind: space.mappers[kind.name] for kind in reader.kinds},
            fields=fields,
            known_classes=space.known_classes,
            mirror=reader.vocabulary.mirror,
            limit=data.max_pixels,
        )
        for space in reader.label_spaces
    ]


def _with_cut(data: DataConfig, reader: Reader, fields: FurtherFields) -> FurtherFields:
    """The further arrays that heads read, and those that copy-paste needs."""
    sources = range(len(reader.label_spaces))
    changes = (each for source in sources for each in data.augment_of(source))
    if not any(isinstance(each, CopyPaste) for each in changes):
        return fields
    return {
        kind.name: fields.get(kind.name, frozenset()) | kind.cut_fields for kind in reader.kinds
    }


class Preparer:
    """Makes scenes; threads may share it. What it makes depends on the address, the plan of the
    batch and the seed alone.

    Attributes:
        partners: how many other samples it needs for one.
    """

    def __init__(self, data: DataConfig, reader: Reader, seed: int, fields: FurtherFields) -> None:
        """Keeps up to ``data.cache_mb`` of decoded scenes.

        Raises:
            ValueError: if a transform does not fit what the splits annotate, or needs objects that
                cannot be read.
        """
        sources = range(len(reader.label_spaces))
        transforms = [each for source in sources for each in data.augment_of(source)]
        self.partners = max(num_partners(data.augment_of(source)) for source in sources)
        joining = [each.type for each in transforms if isinstance(each, JOINING) and each.p > 0]
        if joining and reader.vocabulary.exclusive_labels:
            raise ValueError(
                f"data.augment: {joining[0]} joins images, but each image of this dataset has "
                "exactly one label"
            )
        self._reader = reader
        self._rules = scene_rules(data, reader, fields)
        self._seed = seed
        self._cache = SceneCache(data.cache_mb * 2**20)
        self._banks = open_banks(transforms, reader.vocabulary.classes, data.max_pixels)

    def prepare(self, address: Address, plan: BatchPlan) -> Prepared:
        """The augmented scene at an address, for a batch.

        Raises:
            ValueError: if its shard is damaged. A sample that does not decode is an invalid sample
                instead.
        """
        key, scene = self._scene(address.where)
        if isinstance(scene, InvalidSample):
            return Prepared(key, None, (scene,))
        transforms = plan.augment[address.where[0]]
        if not transforms:
            return Prepared(key, scene, ())
        invalid: list[InvalidSample] = []

        def partners(start: int, stop: int) -> list[Scene]:
            found = [self._scene(where)[1] for where in address.partners[start:stop]]
            invalid.extend(each for each in found if isinstance(each, InvalidSample))
            return [scene if isinstance(each, InvalidSample) else each for each in found]

        rng = random.Random(key_of(self._seed, address.lane, address.position))
        rule = plan.canvases[address.where[0]]
        changed = augmented(scene, transforms, rng, partners, rule, self._banks)
        return Prepared(key, changed, tuple(invalid))

    def _scene(self, where: Where) -> tuple[str, Scene | InvalidSample]:
        kept = self._cache.get(where)
        if kept is not None:
            return kept
        sample = self._reader.read(where)
        try:
            scene = self._rules[where[0]].decode(sample)
        except TooLargeError as error:
            return sample.key, InvalidSample(sample.key, f"{error}; data.max_pixels allows more")
        except ValueError as error:
            return sample.key, InvalidSample(sample.key, str(error))
        self._cache.put(where, (sample.key, scene), scene.num_bytes(self._rules[where[0]].input))
        return sample.key, scene


class SceneCache:
    """The scenes used last, up to a number of bytes."""

    def __init__(self, limit_bytes: int) -> None:
        """Keeps nothing if the limit is 0."""
        self._limit = limit_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._scenes: OrderedDict[Where, tuple[tuple[str, Scene], int]] = OrderedDict()

    def get(self, where: Where) -> tuple[str, Scene] | None:
        """What is kept of a sample."""
        with self._lock:
            if where not in self._scenes:
                return None
            self._scenes.move_to_end(where)
            return self._scenes[where][0]

    def put(self, where: Where, keyed: tuple[str, Scene], size_bytes: int) -> None:
        """Keeps a scene, and lets go of those that were not used for longest."""
        with self._lock:
            if size_bytes > self._limit or where in self._scenes:
                return
            self._scenes[where] = keyed, size_bytes
            self._bytes += size_bytes
            while self._bytes > self._limit:
                self._bytes -= self._scenes.popitem(last=False)[1][1]
