"""From an address to the scene that goes on the canvas: read, decoded (or kept from before) and augmented."""

import random
import threading
from collections import OrderedDict
from dataclasses import dataclass

from mtl_ray.inputs.image_header import TooManyPixelsError
from mtl_ray.loading.augment import augmented
from mtl_ray.loading.config import DataConfig, Mosaic
from mtl_ray.loading.reader import Address, Reader, Where
from mtl_ray.loading.scene import Fault, Scene, scene_of
from mtl_ray.shards.order import key_of


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sample's key, its scene (None if it could not be read), and what could not be read for it."""

    key: str
    scene: Scene | None
    faults: tuple[Fault, ...]


class Preparer:
    """Makes scenes; threads may share it. What it makes depends on the address and the seed alone.

    Attributes:
        partners: how many other samples it needs for one.
    """

    def __init__(self, data: DataConfig, reader: Reader, seed: int) -> None:
        """Keeps up to ``data.cache_mb`` of decoded scenes.

        Raises:
            ValueError: if an augmentation does not fit what the splits annotate.
        """
        self.partners = 3 if any(isinstance(change, Mosaic) and change.p > 0 for change in data.augment) else 0
        if self.partners and reader.vocabulary.exclusive_labels:
            raise ValueError("data.augment: a mosaic joins four images, but each image of this data set has exactly one label")
        self._data = data
        self._reader = reader
        self._seed = seed
        self._cache = SceneCache(data.cache_mb * 2**20)

    def prepare(self, address: Address) -> Prepared:
        """The augmented scene at an address.

        Raises:
            ValueError: if its shard is damaged. A sample that does not decode is a fault instead.
        """
        key, scene = self._scene(address.where)
        if isinstance(scene, Fault):
            return Prepared(key, None, (scene,))
        if not self._data.augment:
            return Prepared(key, scene, ())
        faults: list[Fault] = []

        def partners() -> list[Scene]:
            found = [self._scene(where)[1] for where in address.partners]
            faults.extend(each for each in found if isinstance(each, Fault))
            return [scene if isinstance(each, Fault) else each for each in found]

        numbers = random.Random(key_of(self._seed, address.lane, address.position))
        changed = augmented(scene, self._data.augment, numbers, partners, self._data.canvas)
        return Prepared(key, changed, tuple(faults))

    def _scene(self, where: Where) -> tuple[str, Scene | Fault]:
        kept = self._cache.get(where)
        if kept is not None:
            return kept
        sample = self._reader.read(where)
        try:
            scene = scene_of(sample, self._reader.recodings[where[0]], self._reader.vocabulary.classes, self._data.max_pixels)
        except TooManyPixelsError as error:
            return sample.key, Fault(sample.key, f"{error}; data.max_pixels allows more")
        except ValueError as error:
            return sample.key, Fault(sample.key, str(error))
        self._cache.put(where, (sample.key, scene))
        return sample.key, scene


class SceneCache:
    """The scenes used last, up to a number of bytes."""

    def __init__(self, limit_bytes: int) -> None:
        """Keeps nothing if the limit is 0."""
        self._limit = limit_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._scenes: OrderedDict[Where, tuple[str, Scene]] = OrderedDict()

    def get(self, where: Where) -> tuple[str, Scene] | None:
        """What is kept of a sample."""
        with self._lock:
            if where in self._scenes:
                self._scenes.move_to_end(where)
            return self._scenes.get(where)

    def put(self, where: Where, keyed: tuple[str, Scene]) -> None:
        """Keeps a scene, and lets go of those that were not used for longest."""
        size = keyed[1].num_bytes
        with self._lock:
            if size > self._limit or where in self._scenes:
                return
            self._scenes[where] = keyed
            self._bytes += size
            while self._bytes > self._limit:
                self._bytes -= self._scenes.popitem(last=False)[1][1].num_bytes
