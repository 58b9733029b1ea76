"""1-D signals as an input."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.columns import ColumnType
from mtl_ray.config.strict import STRICT
from mtl_ray.inputs.input import Arrays, ArraySpec, Input, TooLargeError


class SignalInput(Input[bytes, NDArray[np.float32], "SignalCanvas", int]):
    """A file is float32 values, little-endian. The frame of a signal is its length after it was
    cut off.
    """

    name = "signal"
    columns: ClassVar[Mapping[str, ColumnType]] = {"signal": "binary"}
    limit_name = "values"
    formats = ("float32 values, little-endian",)
    suffixes = (".f32",)

    def to_row(self, encoded: bytes) -> Mapping[str, Any]:
        return {"signal": encoded}

    def from_row(self, row: Mapping[str, Any]) -> bytes:
        return bytes(row["signal"])

    def num_bytes(self, encoded: bytes) -> int:
        return len(encoded)

    def decode(self, encoded: bytes, limit: int) -> NDArray[np.float32]:
        if not encoded or len(encoded) % 4:
            raise ValueError(f"a signal is float32 values, not {len(encoded)} bytes")
        if len(encoded) // 4 > limit:
            raise TooLargeError(
                f"the signal has {len(encoded) // 4} values, at most {limit} are read"
            )
        return np.frombuffer(encoded, "<f4")

    def decode_file(self, data: bytes, limit: int) -> NDArray[np.float32]:
        return self.decode(data, limit)

    def encode_file(self, raw: NDArray[np.float32]) -> bytes:
        return raw.astype("<f4").tobytes()

    def size(self, raw: NDArray[np.float32]) -> Mapping[str, int]:
        return {"length": len(raw)}

    def pieces(self, raw: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [raw[: max(1, len(raw) // 2)]]

    def arrays(self, rule: "SignalCanvas") -> Mapping[str, ArraySpec]:
        return {
            "signal": ArraySpec(shape=(1, rule.length), dtype=np.float32, open_axes={1: "length"}),
            "valid": ArraySpec(shape=(1,), dtype=np.int32),
        }

    def fill(self, raw: NDArray[np.float32], rule: "SignalCanvas", arrays: Arrays) -> int:
        length = min(len(raw), rule.length)
        arrays["signal"][:] = 0
        arrays["signal"][0, :length] = raw[:length]
        arrays["valid"][:] = length
        return length

    def fill_empty(self, rule: "SignalCanvas", arrays: Arrays) -> int:
        return self.fill(np.zeros(rule.length, np.float32), rule, arrays)

    def other_rules(self, rule: "SignalCanvas") -> Sequence["SignalCanvas"]:
        return [SignalCanvas(length=rule.length + 16)]

    def show(self, raw: NDArray[np.float32]) -> NDArray[np.uint8]:
        image = np.full((64, 200, 3), 255, np.uint8)
        y = 32 - 28 * np.clip(raw[np.linspace(0, len(raw) - 1, 200).astype(int)], -1, 1)
        cv2.polylines(
            image, [np.stack([np.arange(200), y], axis=1).astype(np.int32)], False, (20, 20, 200)
        )
        return image

    def show_arrays(self, arrays: Arrays) -> NDArray[np.uint8]:
        return self.show(arrays["signal"][0])

    def generate(self, rng: np.random.Generator) -> tuple[bytes, NDArray[np.float32]]:
        raw = rng.normal(0, 0.05, int(rng.integers(40, 200))).astype(np.float32)
        raw[rng.integers(0, len(raw), 5)] += 1
        return self.encode_file(raw), raw


SIGNAL = SignalInput()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SignalCanvas:
    """Signals are cut off or filled with zeros."""

    input: ClassVar[SignalInput] = SIGNAL
    type: Literal["signal"] = "signal"
    length: int = Field(ge=4)
