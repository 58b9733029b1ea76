"""labelme: a JSON file of shapes beside each picture (https://github.com/wkentaro/labelme)."""

import base64
import binascii
import hashlib
import json
import posixpath
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from mtl_ray import storage
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.class_names import find_class_names
from mtl_ray.sources.config import Labelme
from mtl_ray.sources.folders import find_list, read_ids, stamps_of
from mtl_ray.sources.labelme_shapes import NO_CLASSES, objects
from mtl_ray.sources.objects import to_instances
from mtl_ray.sources.picture import USUAL_RULE, ImageRule, Picture, read_picture, shown_size
from mtl_ray.sources.source import Reading, Reject, Source, UnreadableError, fingerprint_of

_AT_A_TIME = 16
_LISTS = ("", "splits", "meta")


@dataclass(frozen=True, slots=True)
class _Listed:
    """What the listing needs of a file: the key of its picture, its labels, a digest; or why it cannot be read."""

    key: str
    labels: frozenset[str]
    digest: str
    fault: str = ""


def open_labelme(config: Labelme, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists the JSON files of a split: those below ROOT/SPLIT, or those that SPLIT.txt lists, or all where there is neither.

    Raises:
        FileNotFoundError: if there are none.
    """
    root = storage.absolute(config.root)
    every = [uri.removeprefix(root).lstrip("/") for uri in storage.files(root) if uri.endswith(".json")]
    files, rejects = _files_of(root, config.split, every)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        listed = dict(zip(every, pool.map(partial(_list, root), every), strict=True))
    labels = {label for one in listed.values() for label in one.labels}
    names = find_class_names(root, config.classes) or tuple(sorted(labels - NO_CLASSES))
    records: dict[str, str] = {}
    for file in files:
        key, fault = listed[file].key, listed[file].fault
        fault = fault or (f"shows {key}, as {records[key]} does" if key in records else "")
        if fault:
            rejects.append(Reject(file, "", fault))
        else:
            records[key] = file
    if not records:
        why = f", the first of {len(rejects)}: {rejects[0].file}: {rejects[0].reason}" if rejects else ""
        raise FileNotFoundError(f"there are no JSON files of labelme for {config.split!r} in {root}{why}")
    digests = [listed[file].digest for file in records.values()]
    return Source(
        vocabulary=Vocabulary(classes={"instances": names}),
        records=list(records.items()),
        reader=partial(_read, root, {name: number for number, name in enumerate(names)}),
        rejects=tuple(rejects),
        fingerprint=fingerprint_of([*names, *records.values(), *digests, *stamps_of(root, records)]),
    )


def _files_of(root: str, split: str, every: list[str]) -> tuple[list[str], list[Reject]]:
    below = [file for file in every if file.startswith(f"{split}/")]
    if below:
        return below, []
    by_stem = {posixpath.basename(file).removesuffix(".json"): file for file in every}
    try:
        ids, rejects = read_ids(find_list(root, split, _LISTS), root, by_stem)
    except FileNotFoundError:
        if any(name.endswith(".txt") and name != "classes.txt" for name in storage.names(root)):
            raise
        return every, []
    found = {name: by_stem.get(posixpath.basename(name).rpartition(".")[0]) or by_stem.get(posixpath.basename(name)) for name in ids}
    rejects += [Reject(name, "", "is listed, but there is no JSON file of this name") for name, file in found.items() if file is None]
    return [file for file in found.values() if file is not None], rejects


def _parse(root: str, file: str) -> tuple[bytes, dict[str, Any]]:
    """A file's bytes and content.

    Raises:
        UnreadableError: if it is no JSON of labelme.
    """
    try:
        text = storage.read(storage.join(root, file))
        content = json.loads(text)
    except FileNotFoundError:
        raise UnreadableError(file, "listed but not there") from None
    except (ValueError, RecursionError) as error:
        raise UnreadableError(file, f"not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list) or not isinstance(content.get("imagePath"), str):
        raise UnreadableError(file, "no JSON of labelme: it needs shapes and imagePath")
    return text, content


def _list(root: str, file: str) -> _Listed:
    try:
        text, content = _parse(root, file)
    except UnreadableError as error:
        return _Listed("", frozenset(), "", error.reject.reason)
    named = content["imagePath"].replace("\\", "/")
    key = posixpath.normpath(posixpath.join(posixpath.dirname(file), named))
    if key.startswith(("/", "..")) or named[1:2] == ":":
        key = posixpath.join(posixpath.dirname(file), posixpath.basename(named))  # as written on another machine: beside its JSON
    labels = frozenset(str(shape.get("label", "")) for shape in content["shapes"] if isinstance(shape, dict))
    return _Listed(key, labels, hashlib.sha256(text).hexdigest())


def _read(root: str, index: Mapping[str, int], record: tuple[str, str]) -> Reading:
    key, file = record
    _, content = _parse(root, file)
    picture = _picture(root, key, content.get("imageData"), file)
    said = content.get("imageHeight") or picture.height, content.get("imageWidth") or picture.width
    if said != (picture.height, picture.width):
        raise UnreadableError(file, f"annotated as {said[1]} x {said[0]} pixels, the picture is {picture.width} x {picture.height}")
    found, rejects = objects(content["shapes"], file, index, picture.height, picture.width)
    instances, bad = to_instances(found, file, picture.height, picture.width, masks=True)
    return Sample(key=key, image=picture.data, height=picture.height, width=picture.width, instances=instances), [*rejects, *bad]


def _picture(root: str, key: str, data: Any, file: str) -> Picture:
    """The picture's file, or where there is none the copy of it in the JSON."""
    if not isinstance(data, str) or storage.exists(storage.join(root, key)):
        return read_picture(storage.join(root, key), key)
    try:
        image = base64.b64decode(data, validate=True)
        return Picture(image, *shown_size(image))
    except (binascii.Error, ValueError) as error:
        raise UnreadableError(file, f"its imageData is no picture: {error}") from None
