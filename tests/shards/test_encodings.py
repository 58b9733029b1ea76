"""Both encodings give back every Sample exactly, and refuse what is not theirs."""

import functools
import tempfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.annotations.instances import INSTANCES
from mtl_ray.annotations.labels import LABELS
from mtl_ray.samples import Sample, image_sample
from mtl_ray.shards import arrow, tfrecord
from mtl_ray.shards.example import decode_example, encode_example
from tests.shards.framing import framed
from tests.shards.random_samples import assert_same, samples
from tests.shards.splits import sample

ENCODINGS = pytest.mark.parametrize(
    ("encoding", "block"),
    [(arrow, arrow.ArrowBlock), (tfrecord, tfrecord.RecordBlock)],
    ids=["arrow", "tfrecord"],
)
Blocks = Callable[[memoryview], object]


def _round_trip(
    encoding: ModuleType, block: Blocks, blocks: list[list[Sample]]
) -> list[list[Sample]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        offsets, lengths = encoding.write_blocks(path, blocks)
        data = memoryview(path.read_bytes())
    found = [
        block(data[start : start + length]) for start, length in zip(offsets, lengths, strict=True)
    ]
    return [[each[row] for row in range(len(each))] for each in found]  # type: ignore[arg-type,index]


@ENCODINGS
@settings(max_examples=80, deadline=None)
@given(blocks=st.lists(st.lists(samples(), min_size=1, max_size=4), max_size=3))
def test_every_sample_comes_back_exactly(
    encoding: ModuleType, block: Blocks, blocks: list[list[Sample]]
) -> None:
    found = _round_trip(encoding, block, blocks)
    assert [len(each) for each in found] == [len(each) for each in blocks]
    for one, other in zip(chain(*found), chain(*blocks), strict=True):
        assert_same(one, other)


@ENCODINGS
def test_classes_are_read_without_the_rest(
    encoding: ModuleType, block: Blocks, tmp_path: Path
) -> None:
    rows = [sample(index) for index in range(6)]
    encoding.write_blocks(tmp_path / "file", [rows])
    (start,), (length,) = encoding.write_blocks(tmp_path / "file", [rows])
    found = block(memoryview((tmp_path / "file").read_bytes())[start : start + length])
    assert [each.tolist() for each in found.classes(LABELS)] == [[0], [1], [2], [0], [1], [2]]  # type: ignore[attr-defined]
    assert [each.tolist() for each in found.classes(INSTANCES)] == [[], [0], [], [0, 1, 0], [], [0]]  # type: ignore[attr-defined]


@functools.cache
def _encoded(encoding: ModuleType) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        (start,), (length,) = encoding.write_blocks(path, [[sample(1, 20), sample(3, 20)]])
        return path.read_bytes()[start : start + length]


@ENCODINGS
@settings(max_examples=150, deadline=None)
@given(
    damage=st.lists(st.tuples(st.integers(0, 2**20 - 1), st.integers(0, 255)), max_size=4),
    cut=st.none() | st.floats(0, 1),
)
def test_damaged_bytes_are_a_value_error_or_samples(
    encoding: ModuleType, block: Blocks, damage: list[tuple[int, int]], cut: float | None
) -> None:
    """Checksums stand before this; but where one is forged, nothing worse than a ValueError may
    come of it.
    """
    content = bytearray(_encoded(encoding))
    for place, byte in damage:
        content[place % len(content)] = byte
    try:
        found = block(
            memoryview(bytes(content[: None if cut is None else int(len(content) * cut)]))
        )
        rows = [found[row] for row in range(len(found))]  # type: ignore[arg-type,index]
    except ValueError:
        assert damage or cut is not None, "whole bytes are read"
    else:
        assert all(isinstance(row, Sample) for row in rows)


def test_other_programs_read_the_arrow_file(tmp_path: Path) -> None:
    arrow.write_blocks(tmp_path / "file", [[sample(0), sample(1)], [sample(2)]])
    table = pa.ipc.open_file(tmp_path / "file").read_all()
    assert table.column("key").to_pylist() == ["00000", "00001", "00002"]
    assert table.column("image")[2].as_py() == sample(2).image
    assert table.schema.metadata == {b"format": b"mtl_ray sample", b"version": b"1"}


def _protobuf_example() -> type:
    """The class tf.train.Example made by the protobuf library from its published definition."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="test", syntax="proto3")
    repeated, optional, field = (
        descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
        descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
        descriptor_pb2.FieldDescriptorProto,
    )
    for name, kind in (
        ("BytesList", field.TYPE_BYTES),
        ("FloatList", field.TYPE_FLOAT),
        ("Int64List", field.TYPE_INT64),
    ):
        file.message_type.add(name=name).field.add(
            name="value", number=1, type=kind, label=repeated
        )
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), 1):
        type_name = f".test.{name.title().replace('_', '')}"
        feature.field.add(
            name=name,
            number=number,
            type=field.TYPE_MESSAGE,
            type_name=type_name,
            label=optional,
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=optional)
    entry.field.add(
        name="value", number=2, type=field.TYPE_MESSAGE, type_name=".test.Feature", label=optional
    )
    features.field.add(
        name="feature",
        number=1,
        type=field.TYPE_MESSAGE,
        type_name=".test.Features.FeatureEntry",
        label=repeated,
    )
    example = file.message_type.add(name="Example")
    example.field.add(
        name="features",
        number=1,
        type=field.TYPE_MESSAGE,
        type_name=".test.Features",
        label=optional,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Example"))


EXAMPLE = _protobuf_example()
_FEATURES = st.dictionaries(
    st.text(max_size=5),
    st.lists(st.binary(max_size=9), max_size=3)
    | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5).map(
        lambda values: np.array(values, np.int64)
    )
    | st.lists(st.floats(width=32), max_size=5).map(lambda values: np.array(values, np.float32)),
    max_size=4,
)


def _plain(values: object) -> object:
    if isinstance(values, list):
        return [bytes(value) for value in values]
    return [str(value) for value in values.tolist()]  # type: ignore[attr-defined]


@settings(max_examples=100, deadline=None)
@given(features=_FEATURES)
def test_examples_are_those_of_the_protobuf_library(features: dict[str, object]) -> None:
    theirs = EXAMPLE.FromString(b"".join(encode_example(features)))  # type: ignore[attr-defined,arg-type]
    read = {
        name: getattr(feature, feature.WhichOneof("kind")).value
        for name, feature in theirs.features.feature.items()
    }
    assert {
        name: [value if isinstance(value, bytes) else str(value) for value in values]
        for name, values in read.items()
    } == {name: _plain(values) for name, values in features.items()}
    ours = decode_example(memoryview(theirs.SerializeToString()))
    assert {name: _plain(values) for name, values in ours.items()} == {
        name: _plain(values) for name, values in features.items()
    }


def test_a_reader_of_tensorboard_reads_the_records(tmp_path: Path) -> None:
    """It checks lengths and masked checksums."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    tfrecord.write_blocks(tmp_path / "file", [[sample(0), sample(1)], [sample(2)]])
    reader = PyRecordReader_New(filename=str(tmp_path / "file"))
    names = []
    for _ in range(3):
        reader.GetNext()
        names.append(
            EXAMPLE.FromString(reader.record()).features.feature["name"].bytes_list.value[0]
        )  # type: ignore[attr-defined]
    assert names == [b"00000", b"00001", b"00002"]


def test_the_index_leads_to_every_record(tmp_path: Path) -> None:
    tfrecord.write_blocks(tmp_path / "file", [[sample(0), sample(1)], [sample(2)]])
    data = (tmp_path / "file").read_bytes()
    lines = [
        tuple(map(int, line.split(" ")))
        for line in tfrecord.index_text(tmp_path / "file").splitlines()
    ]
    assert sum(size for _, size in lines) == len(data)
    for row, (offset, size) in enumerate(lines):
        payload = data[offset + 12 : offset + size - 4]
        assert data[offset : offset + size] == framed(payload)
        assert decode_example(memoryview(payload))["name"] == [f"{row:05d}".encode()]


def test_the_keys_are_those_that_others_look_for(tmp_path: Path) -> None:
    points = np.array([[[1.4, 2.6, 2], [9, 9, 0]], [[3, 4, 1], [5, 6, 2]]], np.float32)
    two = sample(2 + 1).instances
    assert two is not None
    instances = Instances(
        boxes_xyxy=np.array([[0.4, 1.6, 10, 20], [5, 6, 7, 8]], np.float32),
        **{
            name: getattr(two, name)[:2]
            for name in ("classes", "ids", "areas", "crowd", "difficult", "truncated")
        },
        keypoints=points,
    )
    whole = image_sample(
        key="a/b.jpg",
        image=b"jpeg",
        height=30,
        width=40,
        labels=np.array([7]),
        instances=instances,
        semantic=b"png",
    )
    tfrecord.write_blocks(tmp_path / "file", [[whole]], keypoints=("nose", "tail"))
    features = EXAMPLE.FromString((tmp_path / "file").read_bytes()[12:-4]).features.feature  # type: ignore[attr-defined]
    numbers = {
        **{"height": [30], "width": [40], "label": [7], "confidence": [1], "bbox/class": [0, 1]},
        **{
            "bbox/xmin": [0, 5],
            "bbox/ymin": [2, 6],
            "bbox/xmax": [10, 7],
            "bbox/ymax": [20, 8],
            "difficult": [0, 0],
            "truncated": [0, 0],
        },
        **{"nose/x": [1, 3], "nose/y": [3, 4], "tail/x": [-1, 5], "tail/y": [-1, 6]},
    }
    assert {name: list(features[name].int64_list.value) for name in numbers} == numbers
    assert {
        name: list(features[name].bytes_list.value) for name in ("name", "image", "segmentation")
    } == {
        "name": [b"a/b.jpg"],
        "image": [b"jpeg"],
        "segmentation": [b"png"],
    }


def test_a_record_without_an_image_has_no_size() -> None:
    payload = b"".join(encode_example({"name": [b"a"], "mtl/annotated": [b"instances"]}))
    block = tfrecord.RecordBlock(memoryview(framed(payload)))
    for read in (lambda: block.integers("height"), lambda: block[0]):
        with pytest.raises(ValueError, match="a record has no image"):
            read()
