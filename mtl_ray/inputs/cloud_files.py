"""Files of point clouds: raw float32 numbers, ``.npy``, ``.pcd`` and ``.ply``, read within limits.

A file is untrusted: its header is checked before memory is taken for what it claims, and nothing in
it is executed. The first bytes decide the format, not the name. A name that promises another format
than raw numbers is a reason to refuse bytes that are none.
"""

import ast
import io
import math
import struct
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from mtl_ray.inputs.cloud_columns import (
    better_count,
    check_points,
    check_size,
    cloud_of_columns,
    feature_names,
)
from mtl_ray.inputs.cloud_pcd import is_pcd, read_pcd
from mtl_ray.inputs.cloud_ply import is_ply, read_ply
from mtl_ray.inputs.point_cloud import MAX_FEATURES, PointCloud

__all__ = ["SUFFIXES", "check_points", "feature_names", "read_cloud_file", "write_npy"]

SUFFIXES = (".bin", ".npy", ".pcd", ".ply")
MAX_NPY_HEADER_BYTES = 10_000
"""The longest header of a ``.npy`` file; numpy's own limit."""

_OTHERS = {
    b"PK\x03\x04": "a zip or .npz file",
    b"LASF": "a .las file",
    b"\x1f\x8b\x08": "a .gz file",
    b"BZh": "a .bz2 file",
    b"\xfd7zXZ": "an .xz file",
    b"7z\xbc\xaf": "a .7z file",
    b"Rar!": "a .rar file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"RIFF": "a WebP image, or a sound or video",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"%PDF": "a PDF file",
    b"\x89HDF": "an HDF5 file",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"ASTM-E57": "an .e57 file",
    b"DRACO": "a Draco file",
    b"glTF": "a glTF file",
    b"#ROSBAG": "a ROS bag",
    b"\x89MCAP": "an .mcap file",
    b"SQLite": "an SQLite file, such as a ROS 2 bag",
}
"""The first bytes of files of other programs. Read as float32, most of them would give points."""
_TEXT_BYTES = 256
"""Bytes at the start of a file that are examined: the numbers of sixteen points are never all
printable characters."""
_TEXT = bytes(range(0x20, 0x7F)) + b"\t\r\n"


def read_cloud_file(
    data: bytes, limit: int, features: int = 4, *, guessed: bool = False
) -> PointCloud:
    """The cloud of a file or of the body of a request. An empty file is a cloud of no points.

    Args:
        data: the file.
        limit: the most numbers, points times features.
        features: numbers of a point in a file of raw float32 numbers.
        guessed: whether they are to be compared with the numbers of the file; see
            ``better_count``.

    Raises:
        TooLargeError: if there are more numbers than allowed.
        ValueError: in one sentence, if it is damaged.
    """
    if data.startswith(npy_format.MAGIC_PREFIX):
        return _read_npy(data, limit)
    if is_pcd(data):
        return read_pcd(data, limit)
    if is_ply(data):
        return read_ply(data, limit)
    if other := _other_format(data):
        raise ValueError(f"this is {other}; write the points as .npy, .pcd or .ply")
    cloud = _read_raw(data, limit, features)
    if guessed and (better := better_count(cloud.points.ravel(), features)) is not None:
        raise ValueError(
            f"read with {features} numbers a point the file is no cloud, but with {better} it is; "
            "the option features says how many a point has"
        )
    return cloud


def _other_format(data: bytes) -> str | None:
    """What a file is that no points are read from; None if it may be raw numbers."""
    for start, what in _OTHERS.items():
        if data.startswith(start):
            return what
    if data and not data[:_TEXT_BYTES].translate(None, _TEXT):
        return "text"
    return None


def is_raw(data: bytes) -> bool:
    """Whether a file can only be numbers without a header: it begins as no other format does."""
    named = data.startswith(npy_format.MAGIC_PREFIX) or is_pcd(data) or is_ply(data)
    return not named and _other_format(data) is None


def check_suffix(data: bytes, name: str) -> None:
    """Compares the name of a file with what it begins with.

    Raises:
        ValueError: if it is named ``.npy``, ``.pcd`` or ``.ply`` and is none of them.
    """
    suffix = name.lower()[-4:]
    if suffix in SUFFIXES[1:] and is_raw(data):
        raise ValueError(f"the file is named {suffix}, but it does not begin as such a file does")


def _read_raw(data: bytes, limit: int, features: int) -> PointCloud:
    """Float32 numbers, little endian, point by point."""
    if not 3 <= features <= MAX_FEATURES:
        raise ValueError(f"a point has {features} numbers; there must be 3 to {MAX_FEATURES}")
    check_size(len(data) // (4 * features), features, limit)
    if len(data) % (4 * features):
        raise ValueError(
            f"{len(data)} bytes are no multiple of {features} float32 numbers of a point"
        )
    points = np.frombuffer(data, "<f4").reshape(-1, features)
    return PointCloud(points=check_points(points), features=feature_names(features))


def _read_npy(data: bytes, limit: int) -> PointCloud:
    """An array (N, F) of real numbers, or (N,) with named fields."""
    shape, fortran, dtype, start = _npy_header(data)
    fields = None if dtype.fields is None else _single_fields(dtype)
    if fields is None and (len(shape) != 2 or not 3 <= shape[1] <= MAX_FEATURES):
        raise ValueError(
            f"the array has the shape {shape}; it must be (points, 3 to {MAX_FEATURES} numbers)"
        )
    if fields is not None and len(shape) != 1:
        raise ValueError(f"the array of named fields has the shape {shape}; it must be (points,)")
    types = [dtype] if fields is None else list(fields.values())
    if any(each.kind not in "iuf" for each in types):
        raise ValueError("the array has something else than real numbers")
    numbers = shape[1] if fields is None else len(types)
    check_size(shape[0], numbers, limit)
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - start != expected:
        raise ValueError(f"the array has {len(data) - start:,} bytes, its header says {expected:,}")
    flat = np.frombuffer(data, dtype, count=math.prod(shape), offset=start)
    if fields is not None:
        return cloud_of_columns(list(fields), [flat[name] for name in fields])
    values = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    with np.errstate(over="ignore", invalid="ignore"):  # becomes infinite or NaN and is refused
        points = np.ascontiguousarray(values, np.float32)
    return PointCloud(points=check_points(points), features=feature_names(shape[1]))


def _single_fields(dtype: np.dtype[Any]) -> dict[str, np.dtype[Any]]:
    """The named fields with their types; those of several numbers are passed over."""
    found = {name: field[0] for name, field in (dtype.fields or {}).items()}
    return {name: type_ for name, type_ in found.items() if type_.subdtype is None}


def _npy_header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """Shape, whether the first axis runs fastest, type, and where the numbers begin."""
    file = io.BytesIO(data)
    try:
        version = npy_format.read_magic(file)
        if version == (3, 0):
            shape, fortran, dtype = _read_array_header_3_0(file)
        else:
            read = {
                (1, 0): npy_format.read_array_header_1_0,
                (2, 0): npy_format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read(file, max_header_size=MAX_NPY_HEADER_BYTES)
    except Exception as error:  # of a parser, on bytes that anyone may send
        raise ValueError("the header of the .npy file is damaged") from error
    if dtype.hasobject:
        raise ValueError("the .npy file has Python objects, which are not read")
    if any(side < 0 for side in shape):
        raise ValueError(f"the array has the shape {shape}")
    return shape, fortran, dtype, file.tell()


def _read_array_header_3_0(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """As numpy's function for 2.0, but the names of fields may have any letters."""
    (length,) = struct.unpack("<I", file.read(4))
    header = ast.literal_eval(file.read(min(length, MAX_NPY_HEADER_BYTES)).decode())
    shape, fortran = header["shape"], header["fortran_order"]
    if not isinstance(shape, tuple) or not all(type(side) is int for side in shape):
        raise ValueError(f"the shape is {shape!r}")
    return shape, bool(fortran), npy_format.descr_to_dtype(header["descr"])


def write_npy(cloud: PointCloud) -> bytes:
    """A ``.npy`` file of (N, F) float32."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(cloud.points, np.float32), allow_pickle=False)
    return file.getvalue()
