"""The types that a column of a shard may have, and how a row becomes features of a
``tf.train.Example``.

Annotations and inputs say what they are stored as with these types; ``shards/`` writes them as
Arrow and as TFRecords.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ColumnType = Literal[
    "int32",
    "string",
    "binary",
    "list<int64>",
    "list<float32>",
    "list<bool>",
    "list<binary>",
    "list<xyxy>",
    "map<list<int64>>",
]
"""A value of each: int, str, bytes, (N,) int64, (N,) float32, (N,) bool, a tuple of bytes, (N,
4) float32, (N,) int64 by name.
"""
Feature = list[bytes] | NDArray[np.int64] | NDArray[np.float32]
"""What an Example holds under a name."""
ReadFeature = list[memoryview] | NDArray[np.int64] | NDArray[np.float32]
"""The same as it is read: bytes are views of the record."""
Features = Mapping[str, ReadFeature]


def row_to_features(
    prefix: str, columns: Mapping[str, ColumnType], row: Mapping[str, Any]
) -> dict[str, Feature]:
    """The features of a row: ``PREFIX/COLUMN``, and ``PREFIX/COLUMN/NAME`` for the entries of a
    map. Null columns are left out.
    """
    found: dict[str, Feature] = {}
    for name, kind in columns.items():
        value = row.get(name)
        if value is None:
            continue
        if kind == "map<list<int64>>":
            found |= {
                f"{prefix}/{name}/{key}": np.asarray(values, np.int64)
                for key, values in value.items()
            }
        else:
            found[f"{prefix}/{name}"] = _to_feature(kind, value)
    return found


def _to_feature(kind: ColumnType, value: Any) -> Feature:
    match kind:
        case "int32":
            return np.array([value], np.int64)
        case "string":
            return [str(value).encode()]
        case "binary":
            return [value]
        case "list<binary>":
            return list(value)
        case "list<float32>" | "list<xyxy>":
            return np.asarray(value, np.float32).ravel()
        case _:
            return np.asarray(value).astype(np.int64)


def row_from_features(
    prefix: str, columns: Mapping[str, ColumnType], features: Features
) -> dict[str, Any]:
    """The inverse of ``row_to_features``; a column that is not there is None.

    Raises:
        ValueError: if a feature is of another type than its column.
    """
    return {
        name: _from_feature(f"{prefix}/{name}", kind, features) for name, kind in columns.items()
    }


def _from_feature(name: str, kind: ColumnType, features: Features) -> Any:
    if kind == "map<list<int64>>":
        start = f"{name}/"
        return {
            key.removeprefix(start): numbers(features, key, np.int64)
            for key in features
            if key.startswith(start)
        }
    if name not in features:
        return None
    match kind:
        case "int32":
            return int(first_number(features, name))
        case "string":
            return (first_bytes(features, name) or b"").decode()
        case "binary":
            return first_bytes(features, name)
        case "list<binary>":
            return tuple(bytes(value) for value in byte_list(features, name))
        case "list<float32>":
            return numbers(features, name, np.float32)
        case "list<xyxy>":
            return numbers(features, name, np.float32).reshape(-1, 4)
        case "list<bool>":
            return numbers(features, name, np.bool_)
        case _:
            return numbers(features, name, np.int64)


def numbers(features: Features, name: str, dtype: type) -> NDArray[Any]:
    """The numbers under a name; none if it is not there.

    Raises:
        ValueError: if there are bytes.
    """
    values = features.get(name, [])
    if isinstance(values, list) and values:
        raise ValueError(f"a record has bytes where {name} should be numbers")
    return np.asarray(values, dtype)


def first_number(features: Features, name: str) -> int:
    """The first number under a name.

    Raises:
        ValueError: if there is none.
    """
    found = numbers(features, name, np.int64)
    if not len(found):
        raise ValueError(f"a record has no number under {name}")
    return int(found[0])


def byte_list(features: Features, name: str) -> list[memoryview]:
    """The bytes under a name; none if it is not there.

    Raises:
        ValueError: if there are numbers.
    """
    values = features.get(name, [])
    if not isinstance(values, list):
        if len(values):
            raise ValueError(f"a record has numbers where {name} should be bytes")
        return []
    return values


def first_bytes(features: Features, name: str) -> bytes | None:
    """The first bytes under a name."""
    values = byte_list(features, name)
    return bytes(values[0]) if values else None
