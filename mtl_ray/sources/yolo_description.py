"""Reads data.yaml (or darknet's obj.data) of a YOLO dataset: folders or lists of splits, and
class names.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from mtl_ray import storage
from mtl_ray.sources.class_names import MOST_CLASSES, read_class_names, text_of
from mtl_ray.sources.paths import Tree
from mtl_ray.sources.source import SkippedItem

_FILES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
_YAML = (".yaml", ".yml")
_DARKNET = (".data", ".names")
_NOTHING = frozenset({"", "~", "null", "none"})
_ALIASES = {
    "val": ("val", "valid", "validation"),
    "valid": ("valid", "val", "validation"),
    "validation": ("validation", "val", "valid"),
}
_PATH_IN_QUOTES = re.compile(r"""^(\s*(?:-\s*|[\w-]+:\s*))"([^"\n]*\\[^"\n]*)"\s*$""", re.MULTILINE)
"""A Windows path in double quotes, where YAML treats backslashes as escapes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class YoloDescription:
    """The description of a dataset; empty if it has no such file.

    Attributes:
        file: name of the description.
        path: the folder of the splits; often of another machine.
        splits: the folders or lists of each split.
        names: class names by number; None if there are none.
        keypoints: whether the lines of label files have keypoints.
    """

    file: str = ""
    path: str = ""
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    keypoints: bool = False

    def places(self, split: str) -> list[str]:
        """The folders or lists of a split."""
        said = next((self.splits[name] for name in aliases(split) if self.splits.get(name)), ())
        absolute = re.compile(r"[/\\~]|[A-Za-z]:")
        return [
            f"{self.path}/{place}" if self.path and not absolute.match(place) else place
            for place in said
        ]


def aliases(split: str) -> tuple[str, ...]:
    """Alternative names of a split, its own first."""
    return _ALIASES.get(split, (split,))


def read_yolo_description(root: str, files: Sequence[str]) -> YoloDescription:
    """Reads data.yaml, or another YAML file of the root with names, or obj.data and obj.names.

    Args:
        root: the dataset.
        files: all its files, relative to the root.

    Raises:
        ValueError: if the file cannot be read.
    """
    here = {name.lower(): name for name in files if "/" not in name}
    for name in filter(None, map(here.get, _FILES)):
        return _of_yaml(root, name, files)
    for name in (here[low] for low in sorted(here) if low.endswith(_YAML)):
        if _load(root, name).get("names"):
            return _of_yaml(root, name, files)
    return _of_darknet(
        root, [name for name in here.values() if name.lower().endswith(_DARKNET)], files
    )


def _of_yaml(root: str, name: str, files: Sequence[str]) -> YoloDescription:
    said = _load(root, name)
    return YoloDescription(
        file=name,
        path=_text(said.get("path")),
        splits={
            key: _texts(value) for key, value in said.items() if key not in ("names", "path", "nc")
        },
        names=_names(said.get("names"), f"{root}/{name}", root, files),
        keypoints=bool(_texts(said.get("kpt_shape"))),
    )


def _load(root: str, name: str) -> Mapping[str, Any]:
    """A YAML file with every scalar as text: ``no`` is not a boolean and ``1.10`` not a number."""
    uri = storage.join(root, name)
    try:
        text = _PATH_IN_QUOTES.sub(
            lambda match: f'{match[1]}"{match[2]}"'.replace("\\", "/"),
            text_of(storage.read(uri)),
        )
        content = yaml.load(text, Loader=yaml.BaseLoader)  # creates only texts, lists and dicts
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{uri} is not YAML: {' '.join(str(error).split())[:300]}") from None
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def _of_darknet(root: str, found: Sequence[str], files: Sequence[str]) -> YoloDescription:
    """Lines "key = value" of obj.data, and its file of names."""
    said: dict[str, str] = {}
    for name in found:
        if name.lower().endswith(".data"):
            lines = (
                line.partition("=") for line in _lines(storage.join(root, name)) if "=" in line
            )
            said |= {key.strip(): value.strip() for key, _, value in lines}
    named = Tree(root, files).find(said["names"]) if said.get("names") else None
    file = named or next((name for name in found if name.lower().endswith(".names")), "")
    names = read_class_names(storage.join(root, file)) if file else None
    splits = {
        key: [value] for key, value in said.items() if key not in ("names", "classes", "backup")
    }
    return YoloDescription(file=file, splits=splits, names=names)


def _lines(uri: str) -> list[str]:
    try:
        return text_of(storage.read(uri)).splitlines()
    except ValueError:
        raise ValueError(f"{uri} is not UTF-8 text") from None


def _names(said: Any, file: str, root: str, files: Sequence[str]) -> tuple[str, ...] | None:
    if isinstance(said, str):
        if said.lower() in _NOTHING:
            return None
        found = Tree(root, files).find(said)
        if found is None:
            raise ValueError(
                f"{file}: names is neither a list, nor a mapping, nor a file in {root}: "
                f"{said[:80]!r}"
            )
        return read_class_names(storage.join(root, found))
    if isinstance(said, dict):
        said = _by_number(said, file)
    if not said:
        return None
    if not all(isinstance(name, str) and name.strip() for name in said):
        raise ValueError(f"{file}: names must be texts, one for each class")
    return tuple(name.strip() for name in said)


def _by_number(said: Mapping[Any, Any], file: str) -> list[Any]:
    """The names of a mapping from or to numbers, in order; a missing number is its own name."""
    for pairs in (said.items(), ((value, key) for key, value in said.items())):
        try:
            numbers = {int(key): value for key, value in pairs}
        except (TypeError, ValueError):
            continue
        if len(numbers) == len(said) and all(0 <= number < MOST_CLASSES for number in numbers):
            return [
                numbers.get(number, str(number)) for number in range(max(numbers, default=-1) + 1)
            ]
    raise ValueError(
        f"{file}: names must be a list, or a mapping from numbers to names, each number once"
    )


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) and value.strip().lower() not in _NOTHING else ""


def _texts(value: Any) -> list[str]:
    return list(filter(None, map(_text, value if isinstance(value, list) else [value])))


def merged(
    names: Iterable[str], file: str
) -> tuple[tuple[str, ...], tuple[int, ...], list[SkippedItem]]:
    """The names without duplicates, the class index of each number, and a note on each
    duplicate.
    """
    index: dict[str, int] = {}
    classes, notes = [], []
    for number, name in enumerate(names):
        if name in index:
            notes.append(
                SkippedItem(
                    file,
                    f"class {number}",
                    f"classes of the same name were merged: {name}",
                    note=True,
                )
            )
        classes.append(index.setdefault(name, len(index)))
    return tuple(index), tuple(classes), notes
