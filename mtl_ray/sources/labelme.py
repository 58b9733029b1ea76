"""labelme: one JSON file of shapes per image (https://github.com/wkentaro/labelme)."""

import base64
import hashlib
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from mtl_ray import storage
from mtl_ray.samples import EncodedImage, Vocabulary, image_sample
from mtl_ray.sources.class_names import find_class_names
from mtl_ray.sources.folders import (
    ORPHAN,
    find_list,
    is_image,
    is_of_a_system,
    not_used,
    passed_over,
    read_ids,
    stamps_of,
)
from mtl_ray.sources.image_reading import (
    ABSENT,
    USUAL_RULE,
    ImageRule,
    absent_image,
    checked_size,
    read_image,
)
from mtl_ray.sources.json_values import parse_json, stated_size
from mtl_ray.sources.labelme_shapes import NO_CLASSES, label_of, labelme_objects
from mtl_ray.sources.object_configs import Labelme
from mtl_ray.sources.objects import to_instances
from mtl_ray.sources.orientation import objects_as_shown
from mtl_ray.sources.paths import Tree, inside
from mtl_ray.sources.source import Reading, SkippedItem, Source, UnreadableError, fingerprint_of

_AT_A_TIME = 16
_LISTS = ("", "splits", "meta")
_JSON = ".json"
_NOT_LABELME = "a JSON file that is not of labelme, passed over"


@dataclass(frozen=True, slots=True)
class ImageLocation:
    """The location of an image.

    Attributes:
        key: its path in the root; for a missing file, the expected path.
        present: whether the file exists.
        as_stated: whether it is at the path in the JSON file.
        error: why the path is invalid; empty if it is valid.
    """

    key: str
    present: bool
    as_stated: bool = False
    error: str = ""


class ImageFinder:
    """Finds the images of JSON files: by ``imagePath``, else beside the file, else anywhere below
    the root, never outside.

    An image at the stated path of one file is not given to another file.

    Args:
        images: paths of images, relative to the root.
        named: ``imagePath`` of every JSON file in the root, by the file's path.
    """

    def __init__(self, images: Iterable[str], named: Mapping[str, str]) -> None:
        self._images = frozenset(images)
        self._tree = Tree("", self._images)
        self._by_stem = {
            posixpath.splitext(path)[0]: path for path in sorted(self._images, reverse=True)
        }
        self._named = {file: name.replace("\\", "/").rstrip("/") for file, name in named.items()}
        self._as_stated = {
            path for file in named if (path := self._stated_path(file)[0]) in self._images
        }
        self.taken = {place.key for file in named if (place := self.find(file)).present}

    def find(self, file: str) -> ImageLocation:
        """The location of the image of a JSON file."""
        said, error = self._stated_path(file)
        if said in self._images:
            return ImageLocation(said, present=True, as_stated=True)
        named, own = self._named[file], posixpath.splitext(file)[0]
        name = posixpath.basename(named)
        beside = (
            posixpath.join(posixpath.dirname(file), name) if name not in ("", ".", "..") else own
        )
        found = (
            self._near(said)
            or self._near(beside)
            or self._tree.find(named)
            or self._by_stem.get(own)
        )
        if found and found not in self._as_stated:
            return ImageLocation(found, present=True)
        return ImageLocation(said or beside, present=False, error=error)

    def _near(self, path: str) -> str | None:
        """The image of this name in the same folder, also if written differently."""
        found = self._tree.find(path)
        return (
            found
            if found is not None and posixpath.dirname(found) == posixpath.dirname(path)
            else None
        )

    def _stated_path(self, file: str) -> tuple[str, str]:
        """The path of the image that a file states, relative to the root; or an empty path and
        the reason.
        """
        named = self._named[file]
        if not named:
            return "", "it has no imagePath, and there is no image with its own name"
        try:
            if named[1:2] == ":":
                inside(named)
            return inside(posixpath.join(posixpath.dirname(file), named)), ""
        except ValueError as error:
            return "", str(error)


@dataclass(frozen=True, slots=True)
class _Listed:
    """A listed file: the name of its image, its labels, a digest; or the SkippedItem of an
    invalid file.
    """

    image: str = ""
    labels: frozenset[str] = frozenset()
    digest: str = ""
    said: SkippedItem | None = None


@dataclass(frozen=True, slots=True)
class _Record:
    """The key of an image, its JSON file, whether the image file exists, and if not, the error
    of its path.
    """

    key: str
    file: str
    present: bool
    error: str = ""


def open_labelme(config: Labelme, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists the JSON files of a split: those below ROOT/SPLIT, those in the list SPLIT.txt, or all
    if there is neither.

    Raises:
        FileNotFoundError: if there are none.
    """
    root = storage.absolute(config.root)
    paths = [
        path
        for uri in storage.files(root)
        if not is_of_a_system(path := uri.removeprefix(root).lstrip("/"))
    ]
    every = [path for path in paths if path.lower().endswith(_JSON)]
    files, skipped = _files_of(root, config.split, every)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        listed = dict(zip(every, pool.map(partial(_list, root), every), strict=True))
    labels = {label for one in listed.values() for label in one.labels}
    names = find_class_names(root, config.classes) or tuple(sorted(labels - NO_CLASSES))
    finder = ImageFinder(
        filter(is_image, paths),
        {file: one.image for file, one in listed.items() if one.said is None},
    )
    records, more = _records(files, listed, finder)
    skipped += more
    if not records:
        raise FileNotFoundError(
            f"there are no JSON files of labelme for {config.split!r} in {root}{_first_of(skipped)}"
        )
    digests = [listed[record.file].digest for record in records]
    keys = [record.key for record in records]
    return Source(
        vocabulary=Vocabulary(classes={"instances": names}),
        records=records,
        reader=partial(_read, root, rule, {name: number for number, name in enumerate(names)}),
        skipped=(*skipped, *_others(config.split, paths, records, finder)),
        fingerprint=fingerprint_of(
            [*names, *(record.file for record in records), *digests, *stamps_of(root, keys)]
        ),
    )


def _first_of(skipped: Sequence[SkippedItem]) -> str:
    return (
        f", the first of {len(skipped)}: {skipped[0].file}: {skipped[0].reason}" if skipped else ""
    )


def _files_of(root: str, split: str, every: list[str]) -> tuple[list[str], list[SkippedItem]]:
    below = [file for file in every if file.startswith(f"{split}/")]
    if below:
        return below, []
    by_stem = {posixpath.basename(file)[: -len(_JSON)]: file for file in every}
    by_path = {file[: -len(_JSON)]: file for file in every}
    try:
        ids, skipped = read_ids(find_list(root, split, _LISTS), root, by_stem)
    except FileNotFoundError:
        if any(name.endswith(".txt") and name != "classes.txt" for name in storage.names(root)):
            raise
        return every, []
    tree = Tree("", by_path)
    found: dict[str, str | None] = {}
    for name in ids:
        stem = name.rpartition(".")[0] if is_image(name) or name.lower().endswith(_JSON) else name
        path = tree.find(stem)
        found[name] = (
            by_path[path]
            if path is not None
            else by_stem.get(posixpath.basename(stem.replace("\\", "/")))
        )
    skipped += [
        SkippedItem(name, "", "is listed, but there is no JSON file of this name")
        for name, file in found.items()
        if file is None
    ]
    return list(dict.fromkeys(file for file in found.values() if file is not None)), skipped


def _records(
    files: Sequence[str], listed: Mapping[str, _Listed], finder: ImageFinder
) -> tuple[list[_Record], list[SkippedItem]]:
    """A record for each file of labelme. An image belongs to one file; files with a matching
    ``imagePath`` come first.
    """
    records: dict[str, _Record] = {}
    skipped: list[SkippedItem] = []
    places = {file: finder.find(file) for file in files if listed[file].said is None}
    owners: dict[str, str] = {}
    for file in sorted(
        places, key=lambda file: (not places[file].as_stated, bool(places[file].error))
    ):
        owners.setdefault(places[file].key, file)
    for file in files:
        if said := listed[file].said:
            skipped.append(said)
        elif (owner := owners[places[file].key]) != file:
            taken = (
                f"another annotation file shows the same image: {owner} shows {places[file].key}"
            )
            skipped.append(SkippedItem(file, "", places[file].error or taken))
        else:
            place = places[file]
            records[file] = _Record(place.key, file, place.present, place.error)
    return list(records.values()), skipped


def _others(
    split: str, paths: Sequence[str], records: Sequence[_Record], finder: ImageFinder
) -> list[SkippedItem]:
    """Notes on images without annotations and on other files in the folders of the split."""
    folders = {posixpath.dirname(path) for record in records for path in (record.key, record.file)}
    inner = [
        path for path in paths if posixpath.dirname(path) in folders or path.startswith(f"{split}/")
    ]
    free = [path for path in inner if is_image(path) and path not in finder.taken]
    return [*not_used(free), *passed_over(inner, expected=(_JSON, ".txt"))]


def _parse(root: str, file: str) -> tuple[bytes, dict[str, Any]]:
    """A file's bytes and content.

    Raises:
        UnreadableError: if it is not a JSON file of labelme.
    """
    try:
        data = storage.read(storage.join(root, file))
        content = parse_json(data)
    except FileNotFoundError:
        raise UnreadableError(file, "listed but not there") from None
    except OSError as error:
        raise UnreadableError(file, error.strerror or "cannot be opened") from None
    except ValueError as error:
        raise UnreadableError(file, f"not JSON: {error}") from None
    if not isinstance(content, dict) or {"shapes", "imagePath", "imageData"}.isdisjoint(content):
        raise UnreadableError(file, _NOT_LABELME)
    if not isinstance(content.get("shapes"), list):
        raise UnreadableError(file, "not a JSON file of labelme: it has no list of shapes")
    return data, content


def _list(root: str, file: str) -> _Listed:
    try:
        data, content = _parse(root, file)
    except UnreadableError as error:
        reason = error.item.reason
        return _Listed(said=SkippedItem(file, "", reason, note=reason == _NOT_LABELME))
    named = content.get("imagePath")
    labels = frozenset(map(label_of, content["shapes"]))
    return _Listed(
        named if isinstance(named, str) else "", labels, hashlib.sha256(data).hexdigest()
    )


def _read(root: str, rule: ImageRule, index: Mapping[str, int], record: _Record) -> Reading:
    _, content = _parse(root, record.file)
    stated = stated_size(content, "imageHeight", "imageWidth")
    image = _image(root, record, content.get("imageData"), rule, stated)
    found, skipped = objects_as_shown(
        partial(labelme_objects, content["shapes"], record.file, index), image, stated, record.file
    )
    instances, invalid = to_instances(found, record.file, image.height, image.width, masks=True)
    absent = [] if image.data else [SkippedItem(record.key, "", ABSENT, note=True)]
    sample = image_sample(
        key=record.key,
        image=image.data,
        height=image.height,
        width=image.width,
        instances=instances,
    )
    return sample, [*skipped, *invalid, *absent]


def _image(
    root: str, record: _Record, data: Any, rule: ImageRule, stated: tuple[int, int] | None
) -> EncodedImage:
    """The image file, or the copy in the JSON file if it is missing."""
    if record.present:
        return read_image(storage.join(root, record.key), record.key, rule, stated)
    if isinstance(data, str) and data:
        try:
            # behind "data:image/png;base64,"
            image = base64.b64decode("".join(data.rpartition(",")[2].split()), validate=True)
            height, width = checked_size(image, rule.max_pixels)
            return EncodedImage(data=image, height=height, width=width)
        except ValueError as error:
            raise UnreadableError(record.file, f"its imageData is not an image: {error}") from None
    if rule.needed:
        raise UnreadableError(record.file, record.error or f"{ORPHAN}: {record.key}")
    return absent_image(record.key, rule, stated)
