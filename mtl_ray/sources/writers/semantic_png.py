"""Writes images and index PNGs: images/SPLIT, labels/SPLIT, classes.txt."""

from collections.abc import Iterable
from dataclasses import dataclass

from mtl_ray import storage
from mtl_ray.samples import Sample
from mtl_ray.sources.source import UnreadableError
from mtl_ray.sources.writers.writer import (
    Target,
    Writing,
    needs,
    path_of,
    stem_of,
    unique,
    write_file,
    write_image,
)

_CLASSES = "classes.txt"


@dataclass(frozen=True, slots=True)
class SemanticPngWriter:
    """Writes the maps as grey PNGs of class indices, 255 for no class, and a list ``SPLIT.txt``
    of pairs of files.
    """

    target: Target

    def write(self, sample: Sample) -> Writing:
        """Writes image and map; the record is the pair of their paths."""
        if sample.semantic is None:
            raise UnreadableError(sample.key, "it has no semantic map")
        path = path_of(sample)
        image, label = (
            f"images/{self.target.split}/{path}",
            f"labels/{self.target.split}/{stem_of(path)}.png",
        )
        if self.target.images:
            write_image(storage.join(self.target.uri, image), sample)
        write_file(storage.join(self.target.uri, label), sample.semantic)
        return (image, label), []

    def finish(self, records: Iterable[tuple[str, str]]) -> str:
        """Writes the names of the classes and the list of pairs."""
        pairs = list(records)
        unique((label for _, label in pairs), "map")
        names = "".join(f"{name}\n" for name in self.target.vocabulary.classes["semantic"]).encode()
        classes = storage.join(self.target.uri, _CLASSES)
        if storage.exists(classes) and storage.read(classes) != names:
            raise ValueError(f"{classes} exists already and names other classes")
        storage.write(classes, names)
        uri = storage.join(self.target.uri, f"{self.target.split}.txt")
        if any(" " in name for pair in pairs for name in pair):
            # a list cannot hold names with blanks; readers pair the files by name
            storage.remove(uri)
            return classes
        storage.write(uri, "".join(f"{image} {label}\n" for image, label in pairs).encode())
        return uri


def open_semantic_png_writer(target: Target) -> SemanticPngWriter:
    """A writer of index PNGs.

    Raises:
        ValueError: if the dataset has no semantic maps, or --masks is given.
    """
    needs(target.vocabulary, "semantic", "semantic_png")
    if target.masks is not None:
        raise ValueError("--masks applies to objects; semantic_png has none")
    return SemanticPngWriter(target)
