"""The tables of nuScenes and Lyft: JSON lists of rows, which refer to each other by tokens.

The large ones have more than a gigabyte, so they are read in pieces, and only what the chosen
scenes need is kept.
"""

import codecs
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtl_ray import storage
from mtl_ray.sources.json_values import number, shown, whole

LIDAR = "LIDAR_TOP"
_AT_ONCE = 8 << 20
_LONGEST_ROW = 1 << 20
"""Characters; rows of nuScenes have a few hundred."""
_BLANK = " \t\r\n"
_DECODER = json.JSONDecoder()
Row = Mapping[str, Any]


def read_rows(uri: str, file: str) -> Iterator[Row]:
    """The rows of a table, one after the other; a table of any size needs little memory.

    Args:
        uri: of the table.
        file: its name, for messages.

    Raises:
        FileNotFoundError: if there is no such table.
        ValueError: in one sentence, if it is not a list of JSON objects.
    """
    text, place, started, fed = "", 0, False, iter(_pieces(uri, file))
    while True:
        place = _skip(text, place)
        if place < len(text) and started and text[place] == "]":
            break
        if place < len(text) and not started:
            if text[place] != "[":
                raise ValueError(f"{file} is not a table: a list of rows with tokens")
            started, place = True, place + 1
            continue
        try:
            row, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            piece = next(fed, None)
            if piece is None or len(text) - place > _LONGEST_ROW + _AT_ONCE:
                raise ValueError(f"{file} is cut short or not JSON: {_cut(error)}") from None
            text, place = text[place:] + piece, 0
            continue
        if not isinstance(row, dict):
            raise ValueError(f"{file} is not a table: a row is {shown(row)}")
        yield row


def _pieces(uri: str, file: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    length = storage.size(uri)
    for start in range(0, length, _AT_ONCE):
        data = storage.read(uri, start, min(start + _AT_ONCE, length))
        try:
            yield decoder.decode(data, final=start + _AT_ONCE >= length)
        except UnicodeDecodeError:
            raise ValueError(f"{file} is not UTF-8 text") from None


def _skip(text: str, place: int) -> int:
    """The next character that is neither blank nor a comma."""
    while place < len(text) and (text[place] in _BLANK or text[place] == ","):
        place += 1
    return place


def _cut(error: Exception) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else str(error)[:100]


@dataclass(frozen=True, slots=True)
class SensorData:
    """A measurement of a sensor: a row of ``sample_data``."""

    token: str
    sample: str
    pose: str
    sensor: str
    time: float
    file: str
    previous: str
    key: bool
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class NuscenesAnnotation:
    """A row of ``sample_annotation``; ``place`` is x, y, z in the global frame, width, length,
    height, and the quaternion w, x, y, z.
    """

    token: str
    sample: str
    instance: str
    attributes: tuple[str, ...]
    place: tuple[float, ...]
    previous: str
    next: str
    lidar_points: int
    radar_points: int


@dataclass(frozen=True, kw_only=True)
class NuscenesTables:
    """What the chosen scenes need of the tables.

    Attributes:
        scenes: names by token.
        samples: (scene token, microseconds) of the chosen samples, by token, in the order of the
            table.
        channels: names of sensors such as LIDAR_TOP, by token of the calibrated sensor.
        sensors: rows of ``calibrated_sensor`` by token.
        poses: rows of ``ego_pose`` by token, those that are needed.
        lidar: measurements of the lidar, by token.
        keys: measurements that belong to a sample, by token of the sample and channel.
        annotations: by token, in the order of the table.
        categories: name of the category by token of the instance.
        attributes: names by token.
        annotated: whether objects are annotated at all.
    """

    scenes: Mapping[str, str]
    samples: Mapping[str, tuple[str, float]]
    channels: Mapping[str, str]
    sensors: Mapping[str, Row]
    poses: Mapping[str, Row]
    lidar: Mapping[str, SensorData]
    keys: Mapping[str, Mapping[str, SensorData]]
    annotations: Mapping[str, NuscenesAnnotation]
    categories: Mapping[str, str]
    attributes: Mapping[str, str]
    annotated: bool
    invalid: Sequence[tuple[str, str, str]] = field(default=())
    """Table, row and reason of rows that were left out."""


def read_tables(
    folder: str, chosen: Callable[[str], bool], cameras: Sequence[str]
) -> NuscenesTables:
    """Reads the tables of a version.

    Args:
        folder: with the tables.
        chosen: whether the scene of a name is wanted.
        cameras: channels of the cameras.

    Raises:
        FileNotFoundError: if a table is not there.
        ValueError: in one sentence, if one is damaged.
    """
    reader = _Reader(folder)
    channel = {row["token"]: row["channel"] for row in reader.rows("sensor", "token", "channel")}
    sensors = {
        row["token"]: row for row in reader.rows("calibrated_sensor", "token", "sensor_token")
    }
    channels = {token: str(channel.get(row["sensor_token"], "")) for token, row in sensors.items()}
    scenes = {
        row["token"]: row["name"]
        for row in reader.rows("scene", "token", "name")
        if chosen(row["name"])
    }
    samples = {
        row["token"]: (row["scene_token"], reader.number(row, "timestamp"))
        for row in reader.rows("sample", "token", "scene_token")
        if row["scene_token"] in scenes
    }
    lidar, keys = _measurements(reader, samples, channels, cameras)
    needed = {each.pose for each in lidar.values()}
    needed |= {each.pose for of_sample in keys.values() for each in of_sample.values()}
    poses = {
        row["token"]: row for row in reader.rows("ego_pose", "token") if row["token"] in needed
    }
    names = storage.names(folder)
    objects, annotated = dict[str, NuscenesAnnotation](), False
    if "sample_annotation.json" in names:
        objects, annotated = _objects(reader, samples)
    return NuscenesTables(
        scenes=scenes,
        samples=samples,
        channels=channels,
        sensors=sensors,
        poses=poses,
        lidar=lidar,
        keys=keys,
        annotations=objects,
        categories=_categories(reader) if objects else {},
        attributes={row["token"]: row["name"] for row in reader.rows("attribute", "token", "name")}
        if objects and "attribute.json" in names
        else {},
        annotated=annotated,
        invalid=tuple(reader.invalid),
    )


class _Reader:
    """Reads tables of one folder; rows without what they must have are listed in ``invalid``."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.invalid: list[tuple[str, str, str]] = []

    def rows(self, table: str, *texts: str) -> Iterator[Row]:
        """The rows that have texts in some columns."""
        file = f"{self._folder.rpartition('/')[2]}/{table}.json"
        uri = storage.join(self._folder, f"{table}.json")
        if not storage.exists(uri):
            raise FileNotFoundError(f"there is no table {file} in {self._folder}")
        for place, row in enumerate(read_rows(uri, file), start=1):
            if all(isinstance(row.get(name), str) and row[name] for name in texts):
                yield row
            else:
                reason = f"a row without {' or '.join(texts)}"
                self.invalid.append((file, f"row {place}", reason))

    def number(self, row: Row, name: str) -> float:
        """A number of a row; NaN if it has none."""
        value = number(row.get(name))
        return float("nan") if value is None else value


def _measurements(
    reader: _Reader,
    samples: Mapping[str, Any],
    channels: Mapping[str, str],
    cameras: Sequence[str],
) -> tuple[dict[str, SensorData], dict[str, dict[str, SensorData]]]:
    """All measurements of the lidar by token, and those of key frames by sample and channel."""
    lidar: dict[str, SensorData] = {}
    keys: dict[str, dict[str, SensorData]] = {}
    wanted = {LIDAR, *cameras}
    texts = ("token", "sample_token", "ego_pose_token", "calibrated_sensor_token", "filename")
    for row in reader.rows("sample_data", *texts):
        channel = channels.get(row["calibrated_sensor_token"], "")
        key = row.get("is_key_frame") is True
        if row["sample_token"] not in samples or channel not in wanted:
            continue
        if channel != LIDAR and not key:
            continue
        data = SensorData(
            token=row["token"],
            sample=row["sample_token"],
            pose=row["ego_pose_token"],
            sensor=row["calibrated_sensor_token"],
            time=reader.number(row, "timestamp"),
            file=row["filename"],
            previous=str(row.get("prev") or ""),
            key=key,
            width=whole(row.get("width")) or 0,
            height=whole(row.get("height")) or 0,
        )
        if channel == LIDAR:
            lidar[data.token] = data
        if key:
            keys.setdefault(data.sample, {})[channel] = data
    return lidar, keys


def _objects(
    reader: _Reader, samples: Mapping[str, Any]
) -> tuple[dict[str, NuscenesAnnotation], bool]:
    """The annotations of the samples by token, and whether the table has any: that of the test data
    is empty.
    """
    found: dict[str, NuscenesAnnotation] = {}
    annotated = False
    for row in reader.rows("sample_annotation", "token", "sample_token", "instance_token"):
        annotated = True
        if row["sample_token"] not in samples:
            continue
        attributes = row.get("attribute_tokens")
        found[row["token"]] = NuscenesAnnotation(
            token=row["token"],
            sample=row["sample_token"],
            instance=row["instance_token"],
            attributes=tuple(map(str, attributes)) if isinstance(attributes, list) else (),
            place=_place(row),
            previous=str(row.get("prev") or ""),
            next=str(row.get("next") or ""),
            lidar_points=_count(row, "num_lidar_pts"),
            radar_points=_count(row, "num_radar_pts"),
        )
    return found, annotated


def _place(row: Row) -> tuple[float, ...]:
    """Position, size and rotation; NaN for what is no number."""
    numbers: list[float] = []
    for name, count in (("translation", 3), ("size", 3), ("rotation", 4)):
        values = row.get(name)
        if not isinstance(values, list) or len(values) != count:
            return (float("nan"),) * 10
        numbers += [float("nan") if (each := number(value)) is None else each for value in values]
    return tuple(numbers)


def _count(row: Row, name: str) -> int:
    value = whole(row.get(name))
    return -1 if value is None else value


def _categories(reader: _Reader) -> dict[str, str]:
    names = {row["token"]: row["name"] for row in reader.rows("category", "token", "name")}
    return {
        row["token"]: str(names.get(row["category_token"], ""))
        for row in reader.rows("instance", "token", "category_token")
    }
