"""Reading files of weights of all kinds and versions, and writing them."""

import argparse
import contextlib
import io
import os
import pickle
import re
import struct
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtl_ray.pickles.pickled_tensors import MAGIC
from mtl_ray.weights.read import read_content, read_weights
from mtl_ray.weights.torch_files import read_torch
from mtl_ray.weights.write import content_hash, encode_weights, write_weights

STATE = OrderedDict(
    {
        "conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2),
        "norm.num_batches_tracked": torch.tensor(7),
        "view": torch.arange(12.0).reshape(3, 4).T[1:],
        "half": torch.tensor([1.5, -2]).half(),
    }
)


def _saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _same(found: dict[str, Tensor], wanted: dict[str, Tensor] = STATE) -> None:
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


def _tar(state: dict[str, Tensor]) -> bytes:
    """In the format of ``torch.save`` before 0.1.10."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return str(keys[id(value)]) if isinstance(value, Tensor) else None

    keys = {id(value): 100 + i for i, value in enumerate(state.values())}
    storages, tensors, content = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pickle.dump(len(state), storages, protocol=2)
    pickle.dump(len(state), tensors, protocol=2)
    for i, value in enumerate(state.values()):
        kind = {
            torch.float32: torch.FloatStorage,
            torch.int64: torch.LongStorage,
            torch.float16: torch.HalfStorage,
        }[value.dtype]
        flat = value.untyped_storage()
        pickle.dump((i, "cpu", kind), storages, protocol=2)
        storages.write(struct.pack("<q", flat.nbytes() // value.itemsize) + bytes(flat))
        pickle.dump((100 + i, i, torch.FloatTensor), tensors, protocol=2)
        numbers = (*value.shape, *value.stride(), value.storage_offset())
        tensors.write(struct.pack(f"<ii{len(numbers)}q", value.ndim, 0, *numbers))
    pickle.dump([], storages, protocol=2)
    Pickler(content, protocol=2).dump(state)
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, part in (("storages", storages), ("tensors", tensors), ("pickle", content)):
            info = tarfile.TarInfo(name)
            info.size = len(part.getvalue())
            archive.addfile(info, io.BytesIO(part.getvalue()))
    return whole.getvalue()


FILES = {
    "zip": _saved({"state_dict": STATE, "epoch": 3}),
    "older": _saved({"state_dict": STATE, "epoch": 3}, _use_new_zipfile_serialization=False),
    "tar": _tar(STATE),
    "safetensors": safetensors.torch.save(
        {name: value.contiguous() for name, value in STATE.items()}
    ),
    "pickle": pickle.dumps(
        {"model": {name: value.numpy() for name, value in STATE.items()}, "__author__": "somebody"}
    ),
    "pickle of tensors": pickle.dumps(STATE),
    "npz": encode_weights("a.npz", STATE),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_is_known_by_what_is_in_it(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(FILES[kind])
    weights = read_weights(str(path))
    _same(
        weights.tensors,
        {name: STATE[name] for name in sorted(STATE)} if kind == "safetensors" else STATE,
    )
    assert weights.key == {"zip": "state_dict", "older": "state_dict", "pickle": "model"}.get(
        kind, ""
    )
    assert weights.rest == {
        "zip": {"epoch": 3},
        "older": {"epoch": 3},
        "pickle": {"__author__": "somebody"},
    }.get(kind, {})


@pytest.mark.parametrize("method", [1, 9, 12, 14, 99])
@pytest.mark.parametrize("kind", ["npz", "zip with records"])
def test_records_that_say_another_compression(kind: str, method: int) -> None:
    saved = {"state_dict": STATE, "args": argparse.Namespace(epochs=3)}
    data = bytearray(encode_weights("a.npz", STATE) if kind == "npz" else _saved(saved))
    for mark, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        for found in re.finditer(re.escape(mark), bytes(data)):
            data[found.start() + offset] = method
    with pytest.raises(ValueError, match=r"is broken|cannot be read"):
        read_content(bytes(data))


@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".npz"])
def test_what_is_written_is_read_back(ending: str, tmp_path: Path) -> None:
    uri = str(tmp_path / f"out{ending}")
    write_weights(uri, STATE, rest={"meta": {"classes": ["a"]}})
    weights = read_weights(uri)
    assert content_hash(weights.tensors) == content_hash(STATE)
    assert weights.rest == ({"meta": {"classes": ["a"]}} if ending == ".pth" else {})
    if ending == ".pth":
        assert torch.load(uri, weights_only=True)["meta"] == {"classes": ["a"]}


def test_a_view_does_not_take_its_whole_memory_along() -> None:
    data = encode_weights("a.pth", {"row": torch.zeros(1000, 1000)[0]})
    assert len(data) < 10_000


def test_an_unknown_ending_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"a.onnx: the ending of the name sets the format; use one of .pth"
    ):
        encode_weights("a.onnx", STATE)


@given(st.permutations(list(STATE)))
def test_the_content_hash_knows_no_order(names: list[str]) -> None:
    assert content_hash({name: STATE[name] for name in names}) == content_hash(STATE)


def test_the_content_hash_knows_names_types_shapes_and_numbers() -> None:
    one = {"a": torch.zeros(2, 3)}
    others = [
        {"b": torch.zeros(2, 3)},
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(2, 3).int()},
        {"a": torch.full((2, 3), 1e-30)},
    ]
    assert len({content_hash(each) for each in [one, *others]}) == 5


@pytest.fixture
def history_buffer() -> Iterator[type]:
    """The class of MMEngine that training checkpoints contain, where torch.save finds it."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self) -> None:
            self._log_history = np.array([0.5, 0.25])
            self._max_length = 1000000
            self._statistics_methods = {"mean": len}

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    parents = [types.ModuleType("mmengine"), types.ModuleType("mmengine.logging")]
    sys.modules.update({each.__name__: each for each in (*parents, module)})
    yield HistoryBuffer
    for each in (*parents, module):
        del sys.modules[each.__name__]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_checkpoint_of_mmengine(
    zipped: bool, history_buffer: type, tmp_path: Path
) -> None:
    buffer = history_buffer()
    del buffer._statistics_methods
    content = {
        "meta": {
            "epoch": 2,
            "cfg": "a = 1",
            "best": np.float64(0.5),
            "dataset_meta": {"classes": ("car",)},
            "odd": history_buffer(),
        },
        "state_dict": STATE,
        "message_hub": {"log_scalars": OrderedDict(loss=buffer), "resumed_keys": {}},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    }
    del content["meta"]["odd"]._statistics_methods
    path = tmp_path / "epoch_2.pth"
    path.write_bytes(_saved(content, _use_new_zipfile_serialization=zipped))
    weights = read_weights(str(path))
    _same(weights.tensors)
    assert weights.rest["meta"] == {
        "epoch": 2,
        "cfg": "a = 1",
        "best": 0.5,
        "dataset_meta": {"classes": ("car",)},
    }
    assert torch.equal(weights.rest["optimizer"]["state"][0]["exp_avg"], torch.ones(2))
    assert any("message_hub.log_scalars.loss" in each for each in weights.left)


class _Shell:
    def __reduce__(self) -> Any:
        return os.system, ("touch seen",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_something_is_refused_by_name(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pth"
    path.write_bytes(
        _saved({"state_dict": STATE, "meta": _Shell()}, _use_new_zipfile_serialization=zipped)
    )
    with pytest.raises(ValueError, match=r"(posix|nt)\.system"):
        read_weights(str(path))
    assert not (tmp_path / "seen").exists()


DAMAGE = st.lists(st.tuples(st.integers(0, 2**20 - 1), st.integers(0, 255)), min_size=1, max_size=4)
"""Positions, to be taken modulo the length (which differs with what torch and pickle write in this
process), and the bytes to write there."""


@given(st.sampled_from(sorted(FILES)), DAMAGE)
def test_a_damaged_file_ends_in_a_sentence_or_in_tensors(
    kind: str, damage: list[tuple[int, int]]
) -> None:
    whole = bytearray(FILES[kind])
    for place, byte in damage:
        whole[place % min(len(whole), 6000)] = byte
    with contextlib.suppress(ValueError):  # any other exception fails the test
        read_content(bytes(whole))


@pytest.mark.parametrize("kind", FILES)
def test_a_file_cut_short_is_refused(kind: str, tmp_path: Path) -> None:
    for share in (0.1, 0.25):
        path = tmp_path / "cut.pth"
        path.write_bytes(FILES[kind][: int(len(FILES[kind]) * share)])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read_weights(str(path))


def test_a_file_that_unpacks_to_more_than_it_may_is_refused() -> None:
    for inside in ("archive/data.pkl", "a.npy"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(inside, bytes(50_000_000))
        with pytest.raises(ValueError, match="would unpack to 50000000"):
            read_content(buffer.getvalue())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [({"a": 1}, "no named tensors; its top-level keys: a"), ([1], "holds a list")],
)
def test_a_file_without_tensors_says_what_it_has(
    content: Any, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(_saved(content))
    with pytest.raises(ValueError, match=sentence):
        read_weights(str(path))


@pytest.mark.parametrize("zipped", [True, False])
def test_what_stands_beside_the_tensors_may_share_parts_but_has_an_end(
    zipped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    shared: dict[str, Any] = {}
    for _ in range(60):
        shared = {"a": shared, "b": shared}  # 2 ** 60 of them, unfolded
    path.write_bytes(
        _saved({"state_dict": STATE, "meta": shared}, _use_new_zipfile_serialization=zipped)
    )
    inner = read_weights(str(path)).rest["meta"]
    assert inner["a"] is inner["b"]
    circle: list[Any] = []
    circle.append(circle)
    path.write_bytes(
        _saved({"state_dict": STATE, "meta": circle}, _use_new_zipfile_serialization=zipped)
    )
    with pytest.raises(ValueError, match="nested too deeply"):
        read_weights(str(path))


def test_real_files(shared_data: Path) -> None:
    counts = {
        "resnet20_cifar10.th": 97,
        "espnet_p2_q8_camvid.pth": 189,
        "fastestdet_coco.pth": 420,
        "fastestdet_shufflenetv2.pth": 330,
    }
    for name, count in counts.items():
        assert len(read_weights(str(shared_data / "weights" / name)).tensors) == count
    with pytest.raises(ValueError, match=r"neither a file of torch\.save nor"):
        read_weights(str(shared_data / "weights" / "yolox_nano.onnx"))


@pytest.mark.parametrize("zipped", [True, False])
def test_keys_of_shared_tuples_are_refused(zipped: bool) -> None:
    bomb = b"\x80\x02})" + b"2\x86" * 40 + b"Ns."
    if zipped:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", bomb)
        data = buffer.getvalue()
    else:
        parts = (MAGIC, 1001, {}, None, [])
        pickles = [pickle.dumps(part, 2) for part in parts]
        data = b"".join([*pickles[:3], bomb, pickles[4]])
    with pytest.raises(ValueError, match="multiply"):
        read_torch(data)
