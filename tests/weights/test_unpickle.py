"""The restricted reader of pickles reads the same as Python, and executes nothing."""

import contextlib
import datetime
import os
import pathlib
import pickle
import pickletools
import subprocess
import sys
from collections import OrderedDict, defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtl_ray.pickles.unpickle import load_pickle

PROTOCOLS = range(6)
_ARRAYS = hnp.arrays(
    st.one_of(
        hnp.integer_dtypes(),
        hnp.unsigned_integer_dtypes(),
        hnp.floating_dtypes(endianness="?"),
        hnp.boolean_dtypes(),
    ),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=4),
)


def _same(a: Any, b: Any) -> bool:
    if isinstance(b, np.ndarray):
        return (
            isinstance(a, np.ndarray)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.tobytes() == b.tobytes()
        )
    if isinstance(b, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in b)
    if isinstance(b, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and (a == b or a != a)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | _ARRAYS,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(), inner, max_size=3)
            | st.tuples(inner, inner)
        ),
        max_leaves=8,
    ),
    st.sampled_from(PROTOCOLS),
)
def test_reads_what_python_reads(value: Any, protocol: int) -> None:
    assert _same(load_pickle(pickle.dumps(value, protocol)), value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_texts_and_objects_scalars_and_shared_parts(protocol: int) -> None:
    shared = np.arange(6, dtype=">f4").reshape(2, 3).T
    value = [
        shared,
        shared,
        np.array(["car", "bus"]),
        np.float64(0.5),
        np.int64(3),
        np.array([{"a": np.ones(2)}, None], object),
        {1, 2},
    ]
    got = load_pickle(pickle.dumps(value, protocol))
    assert got[0] is got[1]
    assert np.array_equal(got[0], shared)
    assert got[2].tolist() == ["car", "bus"]
    assert got[3:5] == [0.5, 3]
    assert isinstance(got[3], np.float64)
    assert got[5][0]["a"].tolist() == [1, 1]
    assert got[5][1] is None
    assert got[6] == {1, 2}
    assert got[0].flags.writeable


def test_dictionaries_of_other_kinds() -> None:
    counts = defaultdict(list, a=[1])
    assert load_pickle(pickle.dumps((OrderedDict(b=1), counts, bytearray(b"x"), 1j))) == (
        OrderedDict(b=1),
        {"a": [1]},
        b"x",
        1j,
    )


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.int64,
        torch.bool,
        torch.uint8,
        torch.uint16,
    ],
)
def test_tensors_become_arrays(dtype: torch.dtype) -> None:
    tensor = torch.arange(12).reshape(3, 4).to(dtype)
    got = load_pickle(
        pickle.dumps(
            {"t": tensor, "view": tensor[1:, ::2].T, "parameter": torch.nn.Parameter(torch.ones(2))}
        )
    )
    assert np.array_equal(got["t"], tensor.numpy())
    assert got["t"].dtype == tensor.numpy().dtype
    assert np.array_equal(got["view"], tensor[1:, ::2].T.numpy())
    assert got["parameter"].tolist() == [1, 1]


def test_bfloat16_becomes_float32() -> None:
    tensor = torch.tensor([1.5, -2.25, 3e38]).bfloat16()
    assert np.array_equal(load_pickle(pickle.dumps(tensor)), tensor.float().numpy())


def test_a_pickle_of_python_2() -> None:
    text = b"\x80\x02}q\x00(U\x05blobsq\x01}q\x02U\x07conv1_wq\x03cnumpy.core.multiarray\n_reconstruct\n"  # noqa: E501
    text += b"q\x04cnumpy\nndarray\nq\x05K\x00\x85U\x01b\x87R("
    text += b"K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08"  # noqa: E501
    text += np.array([1.5, -2], "<f4").tobytes() + b"tbsu."
    blob = load_pickle(text)["blobs"]["conv1_w"]
    assert blob.tolist() == [1.5, -2]
    assert blob.dtype == np.float32


class _Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ("true",), "system"),
        (eval, ("1",), "eval"),
        (getattr, ("", "join"), "getattr"),
        (pathlib.Path, ("x",), "pathlib"),
        (torch.load, ("x",), "torch"),
        (datetime.date, (2020, 1, 1), "datetime.date"),
    ],
)
def test_anything_else_is_refused_by_name(
    protocol: int, function: Any, arguments: tuple[Any, ...], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        load_pickle(pickle.dumps({"a": _Call(function, *arguments)}, protocol))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        b"\x80\x02]r\xff\xff\xff\x7f.",  # an index in the memo that would allocate 32 GB
        b"]p4294967295\n.",
        b"\x80\x04\x96\xff\xff\xff\xff\xff\x00\x00\x00.",
        b"cbuiltins\nbytearray\n(I1000000000000\ntR.",
        b"cbuiltins\nbytes\n(I1000000000000\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000000\ntS'b'\ntR.",
        b"cnumpy\nndarray\n(I1000000000000\ntR.",
        b"c_codecs\nencode\n(N(S'__code__'\nN}tb.",  # would change our own function
        b"(" * 100000 + b"." + b"t" * 10,
        b"cnumpy\ndtype\n(S'M8'\ntR.",
        b"Pid\n.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I100000000000\ntcnumpy\ndtype\n(S'S0'\ntRI00\nS''\ntb.",
    ],
)
def test_broken_and_greedy_pickles_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="pickle"):
        load_pickle(data)


DAMAGE = st.lists(st.tuples(st.integers(0, 2**20 - 1), st.integers(0, 255)), min_size=1, max_size=3)
"""Positions and the bytes to write there. Positions are taken modulo the length, which depends on
the interned strings of the process."""


@given(DAMAGE, st.floats(0.5, 1))
def test_damaged_pickles_end_in_a_sentence_or_a_value(
    damage: list[tuple[int, int]], share: float
) -> None:
    whole = bytearray(
        pickle.dumps([{"bboxes": np.ones((2, 5), "f4"), "scores": torch.ones(3)}, (1, "a")])
    )
    for place, byte in damage:
        whole[place % len(whole)] = byte
    with contextlib.suppress(ValueError):  # any other exception fails the test
        load_pickle(bytes(whole[: int(len(whole) * share)]))


def test_nested_too_deeply() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        load_pickle(b"\x80\x02" + b"]" * 100000 + b"a" * 99999 + b".")


def test_a_tuple_of_tuples_is_walked_once() -> None:
    data = b"\x80\x02K\x01" + b"".join(b"2\x86" for _ in range(60)) + b"."
    got = load_pickle(data)
    assert got[0] is got[1]


_FETCHED = b")\x94" + b"".join(b"h%c\x86\x94" % place for place in range(40))
_IN_TEXT = (
    b"(tp0\n0" + b"".join(b"(g%d\ng%d\ntp%d\n0" % (i, i, i + 1) for i in range(40)) + b"g40\n"
)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04}" + _FETCHED + b"Ns.",
        b"\x80\x04}(" + _FETCHED + b"Nu.",
        b"\x80\x04(" + _FETCHED + b"\x91.",
        b"\x80\x04\x8f(" + _FETCHED + b"\x90.",
        b"\x80\x02})" + b"2\x86" * 40 + b"Ns.",
        b"}" + _IN_TEXT + b"Ns.",
        b"c__builtin__\nset\n((l" + _IN_TEXT + b"atR.",
        b"cnumpy\ndtype\n(" + _IN_TEXT + b"tR.",
    ],
)
def test_keys_of_shared_tuples_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="multiply"):
        load_pickle(data)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tuples_that_are_used_again_are_read(protocol: int) -> None:
    pair = (1, 2)
    shared: dict[Any, Any] = {}
    for _ in range(60):
        shared = {pair: shared, "again": shared}  # 2 ** 60 of them, which nobody hashes
    assert load_pickle(pickle.dumps(shared, protocol))[pair].keys() == {pair, "again"}
    value = [{pair: pair, "all": (pair,) * 3} for _ in range(100)]
    assert load_pickle(pickle.dumps(value, protocol)) == value


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, mtl_ray.pickles.unpickle; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_storage_cannot_be_given_other_numbers() -> None:
    """Storages with more dimensions, with which a tensor would read beyond the end."""
    operations = pickletools.genops(pickle.dumps(torch.ones(4), 3))
    stored = next(argument for operation, argument, _ in operations if operation.name == "BINBYTES")
    made = (
        b"ctorch.storage\n_load_from_bytes\nB"
        + len(stored).to_bytes(4, "little")
        + stored
        + b"\x85R"
    )
    assert load_pickle(b"\x80\x03" + made + b".").numbers.tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="would change a storage"):
        load_pickle(b"\x80\x03" + made + b"}X\x07\x00\x00\x00numbersK\x01sb.")
