"""YOLO: a text file a picture, boxes or polygons as shares of its width and height."""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import yaml

from mtl_ray import storage
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.class_names import collect, find_class_names, read_class_names
from mtl_ray.sources.config import Yolo
from mtl_ray.sources.folders import find_list, is_picture, pictures_by_stem, pictures_in, read_each, read_ids, stamps_of, subfolders
from mtl_ray.sources.objects import to_instances
from mtl_ray.sources.picture import USUAL_RULE, ImageRule, read_picture
from mtl_ray.sources.source import Reading, Reject, Source, UnreadableError, fingerprint_of
from mtl_ray.sources.yolo_lines import classes_in, has_polygon, objects

_LISTS = ("", "meta", "splits")


@dataclass(frozen=True, slots=True)
class _Layout:
    root: str
    num_classes: int
    masks: bool


@dataclass(frozen=True, slots=True)
class _Record:
    """A picture (its path in the root and its key), and its label file; None if there is none: nothing is on the picture."""

    picture: str
    key: str
    labels: str | None


def open_yolo(config: Yolo, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists a split.

    Raises:
        FileNotFoundError: if there is no such split.
        ValueError: if data.yaml cannot be read, or says that there are keypoints.
    """
    root = storage.absolute(config.root)
    described = _read_description(root)
    if described.get("kpt_shape"):  # some of their lines look like polygons
        raise ValueError(f"{root}: data.yaml says kpt_shape: keypoints in YOLO's lines are not read; bring the set to COCO")
    keys, rejects = _find_pictures(root, config.split, described)
    word = config.labels or "labels"
    label_files = {picture: _label_file(picture, word) for picture in keys}
    contents = read_each({picture: storage.join(root, file) for picture, file in label_files.items()})
    beside = not all(f"/{word}/" in f"/{file}" for file in label_files.values())
    names = _class_names(root, config.classes, described, "/" if beside else f"/{word}/")
    masks = any(has_polygon(content) for content in contents.values())
    return Source(
        vocabulary=Vocabulary(classes={"instances": names}),
        records=[_Record(picture, key, label_files[picture] if picture in contents else None) for picture, key in keys.items()],
        reader=partial(_read, _Layout(root, len(names), masks)),
        rejects=tuple(rejects),
        fingerprint=fingerprint_of([*names, *keys, *(contents.get(picture, b"") for picture in keys), *stamps_of(root, keys)]),
    )


def _read_description(root: str) -> Mapping[str, Any]:
    """What data.yaml says; nothing where there is none."""
    for name in ("data.yaml", "dataset.yaml"):
        if storage.exists(storage.join(root, name)):
            try:
                content = yaml.safe_load(storage.read(storage.join(root, name)))
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise ValueError(f"{root}/{name} is not YAML: {error}") from None
            return content if isinstance(content, dict) else {}
    return {}


def _find_pictures(root: str, split: str, described: Mapping[str, Any]) -> tuple[dict[str, str], list[Reject]]:
    """The keys of a split's pictures by their paths in the root: those of a folder, or those of a list."""
    said = described.get(split)
    listed = [named for named in (said if isinstance(said, list) else [said]) if isinstance(named, str)]
    within = str(described.get("path") or "/")  # a folder of the root, or as often one of the machine on which the file was written
    inner = {named: _place(root, posixpath.normpath(posixpath.join(within, named))) for named in listed if not within.startswith("/")}
    places = [place for named in listed if (place := inner.get(named) or _place(root, named))]
    if len(places) > 1:
        return {f"{place}/{name}": f"{place}/{name}" for place in places for name in pictures_in(storage.join(root, place))}, []
    alias = {"val": "valid", "valid": "val"}.get(split, split)
    usual = [place for name in dict.fromkeys((split, alias)) for place in (f"images/{name}", f"{name}/images", name)]
    for place in [*places, *usual]:
        if place.endswith(".txt"):
            return _listed(root, storage.join(root, place))
        if _place(root, place) is not None:
            return {f"{place}/{name}": name for name in pictures_in(storage.join(root, place))}, []
    return _listed(root, find_list(root, split, _LISTS))


def _place(root: str, named: str) -> str | None:
    """Where in the root that is which data.yaml calls so (often as seen from another folder); None if there is nothing."""
    for place in (named, named.replace("../", "")):
        place = place.removeprefix("./").rstrip("/")
        parent, _, last = place.rpartition("/")
        folder = storage.join(root, parent) if parent else root
        if last in (storage.names(folder) if last.endswith(".txt") else subfolders(folder)):
            return place
    return None


def _listed(root: str, uri: str) -> tuple[dict[str, str], list[Reject]]:
    """The pictures of a list: paths, or ids of pictures in images/."""
    by_id = pictures_by_stem(storage.join(root, "images"))
    entries, rejects = read_ids(uri, root, by_id)
    pictures = [entry if is_picture(entry) else f"images/{by_id.get(entry, entry)}" for entry in entries]
    return {picture: picture.removeprefix("./").removeprefix("images/") for picture in pictures}, rejects


def _label_file(picture: str, word: str) -> str:
    """The last folder called images becomes labels; a picture under no such folder has its label file beside it."""
    stem = picture.rpartition(".")[0] if is_picture(picture) else picture
    before, found, after = f"/{stem}".rpartition("/images/")
    return f"{before}/{word}/{after}.txt".lstrip("/") if found else f"{stem}.txt"


def _class_names(root: str, classes: str | None, described: Mapping[str, Any], part: str) -> tuple[str, ...]:
    """The names that the user, data.yaml or classes.txt gives; else the numbers in all text files whose path has a part."""
    if classes:
        return read_class_names(storage.absolute(classes))
    said = described.get("names")
    if isinstance(said, dict):
        said = [said[key] for key in sorted(said)]
    if isinstance(said, Sequence) and not isinstance(said, str) and said:
        return tuple(map(str, said))
    if names := find_class_names(root, None):
        return names
    files = [uri for uri in storage.files(root) if uri.endswith(".txt") and part in uri.removeprefix(root)]
    found = {str(number) for content in read_each({uri: uri for uri in files}).values() for number in classes_in(content)}
    return collect(found)


def _read(layout: _Layout, record: _Record) -> Reading:
    picture = read_picture(storage.join(layout.root, record.picture), record.picture)
    file = record.labels or record.picture
    try:
        text = storage.read(storage.join(layout.root, record.labels)).decode("utf-8-sig") if record.labels else ""
    except UnicodeDecodeError:
        raise UnreadableError(file, "not UTF-8 text") from None
    found, rejects = objects(text, file, layout.num_classes, picture.height, picture.width)
    instances, bad = to_instances(found, file, picture.height, picture.width, masks=layout.masks)
    sample = Sample(key=record.key, image=picture.data, height=picture.height, width=picture.width, instances=instances)
    return sample, [*rejects, *bad]
