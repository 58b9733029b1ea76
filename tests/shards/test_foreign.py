"""TFRecords that other programs wrote, with ObjectiveMTL's keys only."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_ray.shards import tfrecord
from mtl_ray.shards.example import Feature, encode_example
from tests.shards.framing import framed


def _jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def example(features: dict[str, Feature]) -> bytes:
    return b"".join(encode_example(features))


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _read(
    path: Path, features: dict[str, Feature], keypoints: tuple[str, ...] = ()
) -> tfrecord.Sample:
    path.write_bytes(framed(example(features)))
    (sample,) = tfrecord.read_records(path, keypoints)
    return sample


BOXES = {
    f"bbox/{name}": _ints(value, value + 1)
    for value, name in enumerate(("xmin", "ymin", "xmax", "ymax"))
}


def test_detection(tmp_path: Path) -> None:
    sample = _read(
        tmp_path / "f", {"name": [b"a"], "image": [_jpeg(8, 6)], "bbox/class": _ints(4, 5), **BOXES}
    )
    assert (sample.key, sample.height, sample.width, sample.labels, sample.semantic) == (
        "a",
        6,
        8,
        None,
        None,
    )
    assert sample.instances is not None
    assert sample.instances.boxes_xyxy.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert sample.instances.classes.tolist() == [4, 5]
    assert sample.instances.areas.tolist() == [4, 4]


def test_the_size_is_that_of_the_image_as_shown(tmp_path: Path) -> None:
    sample = _read(tmp_path / "f", {"image_name": [b"a"], "image": [_jpeg(8, 6, orientation=6)]})
    assert (sample.height, sample.width, sample.instances) == (8, 6, None)


def test_no_objects_is_not_the_same_as_not_annotated(tmp_path: Path) -> None:
    empty: dict[str, Feature] = {name: _ints() for name in (*BOXES, "bbox/class")}
    sample = _read(tmp_path / "f", {"name": [b"a"], "image": [_jpeg(8, 6)], **empty})
    assert sample.instances is not None
    assert len(sample.instances) == 0


def test_one_label_and_several(tmp_path: Path) -> None:
    sized: dict[str, Feature] = {
        "name": [b"a"],
        "image": [b"?"],
        "height": _ints(6),
        "width": _ints(8),
    }
    assert _read(tmp_path / "f", {**sized, "label": _ints(3)}).labels.tolist() == [3]  # type: ignore[union-attr]
    several = {**sized, "label": _ints(3, 0, 5), "confidence": _ints(1, 1, 0)}
    assert _read(tmp_path / "f", several).labels.tolist() == [3, 0]  # type: ignore[union-attr]


def test_people_with_nodes_and_attributes(tmp_path: Path) -> None:
    features: dict[str, Feature] = {
        "image_id": [b"a"],
        "image": [_jpeg(8, 6)],
        "bbox/class": _ints(4, 5),
        **BOXES,
    }
    features |= {
        "property": _ints(0, 1),
        "gender": _ints(1),
        "age": _ints(0),
        "difficult": _ints(1, 0),
        "truncated": _ints(0, 1),
    }
    features |= {"nose/x": _ints(-1, 3), "nose/y": _ints(-1, 4)}
    instances = _read(tmp_path / "f", features, ("nose",)).instances
    assert instances is not None
    assert instances.keypoints is not None
    assert instances.keypoints.tolist() == [[[-1, -1, 0]], [[3, 4, 2]]]
    assert {name: values.tolist() for name, values in instances.attributes.items()} == {
        "gender": [-1, 1],
        "age": [-1, 0],
    }
    assert (instances.difficult.tolist(), instances.truncated.tolist()) == (
        [True, False],
        [False, True],
    )


def test_segmentation(tmp_path: Path) -> None:
    assert (
        _read(
            tmp_path / "f", {"name": [b"a"], "image": [_jpeg(8, 6)], "segmentation": [b"png"]}
        ).semantic
        == b"png"
    )


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        ({"name": [b"a"]}, "a record has no image; it has name"),
        (
            {"name": [b"a"], "image": [_jpeg(8, 6)], "bbox/class": _ints(1)},
            "1 boxes, but not as many values",
        ),
        (
            {"name": [b"a"], "image": [_jpeg(8, 6)], "label": [b"3"]},
            "bytes where label should be numbers",
        ),
        ({"name": [b"a"], "image": _ints(3)}, "numbers where image should be bytes"),
    ],
    ids=["no image", "short column", "bytes", "numbers"],
)
def test_what_does_not_fit_is_told(
    tmp_path: Path, features: dict[str, Feature], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        _read(tmp_path / "f", features)


@pytest.mark.parametrize(
    "at", [0, 9, 30, -1], ids=["length", "its checksum", "content", "its checksum too"]
)
def test_a_changed_byte_is_found(tmp_path: Path, at: int) -> None:
    data = bytearray(
        framed(
            example({"name": [b"a"], "image": [b"i" * 50], "height": _ints(1), "width": _ints(1)})
        )
    )
    data[at] ^= 1
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(ValueError, match="CRC-32C"):
        list(tfrecord.read_records(tmp_path / "f"))


def test_a_file_cut_short_is_told(tmp_path: Path) -> None:
    data = framed(example({"name": [b"a"], "image": [b"i" * 50]}))
    for length in (5, 15, len(data) - 1):
        (tmp_path / "f").write_bytes(data[:length])
        with pytest.raises(ValueError, match="is cut short"):
            list(tfrecord.read_records(tmp_path / "f"))
