"""The types that a column of a shard may have: what annotations and inputs are stored as."""

from typing import Literal

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
"""A value of each: int, str, bytes, (N,) int64, (N,) float32, (N,) bool, a tuple of bytes, (N, 4) float32, (N,) int64 by name."""
