"""What an input is: the kind of data that a network takes, such as an image.

An input kind is one object that knows how its data is stored, decoded within limits, put into the
network's frame, and shown. The config class of ``data.canvas`` names it (``canvas.input``):
``Canvas`` is that of images. Its methods get such a config as ``rule``. Code that has a canvas asks
``canvas.input``, and never compares the name of an input.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mtl_ray.columns import ColumnType, Feature, Features, row_from_features, row_to_features

Encoded = TypeVar("Encoded")
"""What a Sample holds: encoded bytes with what is known of them, small enough for a shard."""
Raw = TypeVar("Raw")
"""The decoded data, such as pixels."""
Rule = TypeVar("Rule", bound="AnyCanvas")
"""The config class of ``data.canvas``: the size of the network's input and how data is fit to
it.
"""
Frame = TypeVar("Frame")
"""Where one sample lies in the network's frame; predictions are brought back to the original
with it.
"""
FRAME, PREDICTION = "frame", "prediction"
"""Keys of an HTTP answer of an input with ``named_answers``."""
Arrays = Mapping[str, NDArray[Any]]
"""The arrays of an input by name."""


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """One array that the network takes, for one sample.

    Attributes:
        shape: without the batch axis.
        dtype: of a ``uint8`` array that the backbone reads, the model subtracts ``model.mean`` and
            divides by ``model.std``; all others enter as they are.
        open_axes: names of the axes (counted from 0, without the batch axis) whose length an
            exported graph leaves open.
        ragged: whether their lengths differ from batch to batch, so that no graph can fix them.
    """

    shape: tuple[int, ...]
    dtype: type[np.generic]
    open_axes: Mapping[int, str] = field(default_factory=dict)
    ragged: bool = False


class TooLargeError(ValueError):
    """Data with more pixels or values than the caller allows. Whoever reads it adds the name of
    its own option for the limit.
    """


class AnyCanvas(Protocol):
    """What the config class of every input has."""

    @property
    def type(self) -> str:
        """Its name in configs."""
        ...

    @property
    def input(self) -> "Input[Any, Any, Any, Any]":
        """The kind of input; a class variable."""
        ...


class Input(Generic[Encoded, Raw, Rule, Frame]):
    """A kind of input. A subclass gives what is not given here; it imports neither torch nor ray.

    Attributes:
        name: the key in ``Sample.inputs``, such as ``image``.
        columns: the columns of a shard that hold it, by name; the last is the large one.
        limit_name: what ``limit`` counts in messages, such as pixels.
        media_type: of its files, as a browser and an HTTP client name it.
        formats: the formats of files that are read, for people.
        suffixes: how the names of its files end, in small letters; empty if they may end in any
            way.
        fill_name: what ``fill`` does, in tables of times.
        file_options: what a reader may have to be told about a file that does not say it itself,
            a sentence by name; they are parameters of a request's query.
        empty_files: whether a file without a byte is whole, and holds nothing.
        named_answers: whether the HTTP answer to a file is ``{"frame": ID, "prediction": ANSWER}``,
            with the name of the file in a form, or its place in the request.
        statistic_name: what ``statistic`` gives; empty if it gives nothing.
        statistic_edges: of the bins in which its values are counted.
    """

    name: ClassVar[str]
    columns: ClassVar[Mapping[str, ColumnType]]
    limit_name: ClassVar[str]
    media_type: ClassVar[str] = "application/octet-stream"
    formats: ClassVar[tuple[str, ...]] = ()
    suffixes: ClassVar[tuple[str, ...]] = ()
    fill_name: ClassVar[str] = "place"
    file_options: ClassVar[Mapping[str, str]] = {}
    empty_files: ClassVar[bool] = False
    named_answers: ClassVar[bool] = False
    statistic_name: ClassVar[str] = ""
    statistic_edges: ClassVar[tuple[float, ...]] = ()

    @property
    def noun(self) -> str:
        """What one sample of it is called in messages."""
        return self.name

    def __eq__(self, other: object) -> bool:
        """Equal to the same kind in another process."""
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def to_row(self, encoded: Encoded) -> Mapping[str, Any]:
        """The values of ``columns``."""
        raise NotImplementedError

    def from_row(self, row: Mapping[str, Any]) -> Encoded:
        """The inverse of ``to_row``."""
        raise NotImplementedError

    def to_features(self, encoded: Encoded) -> dict[str, Feature]:
        """Its features in a ``tf.train.Example``."""
        return row_to_features(f"mtl/{self.name}", self.columns, self.to_row(encoded))

    def from_features(self, features: Features) -> Encoded | None:
        """The inverse of ``to_features``; None if there are none.

        Raises:
            ValueError: if they do not fit together.
        """
        row = row_from_features(f"mtl/{self.name}", self.columns, features)
        return None if any(value is None for value in row.values()) else self.from_row(row)

    def num_bytes(self, encoded: Encoded) -> int:
        """About the bytes that it takes in a shard."""
        raise NotImplementedError

    def decode(self, encoded: Encoded, limit: int) -> Raw:
        """The data of a sample.

        Args:
            encoded: what the sample holds.
            limit: the most pixels or values; more is refused before memory is taken for them.

        Raises:
            TooLargeError: if it is larger than ``limit``.
            ValueError: in one sentence, if it is damaged, or not what its record says.
        """
        raise NotImplementedError

    def decode_file(self, data: bytes, limit: int) -> Raw:
        """The data of a file or of the body of a request, as ``decode``."""
        raise NotImplementedError

    def file_reader(self, rule: Rule, options: Mapping[str, str]) -> Callable[[bytes, int], Raw]:
        """``decode_file`` of files for one network.

        Args:
            rule: of the network; values that neither a file nor an option names are those that it
                reads.
            options: of ``file_options``, as a query has them.

        Raises:
            ValueError: in one sentence, if there is no such option, or its value is invalid.
        """
        if unknown := [name for name in options if name not in self.file_options]:
            known = ", ".join(self.file_options) or "none"
            raise ValueError(f"a file ({self.noun}) has no option {unknown[0]!r}; there is {known}")
        return self.decode_file

    def check_name(self, data: bytes, name: str) -> None:
        """Compares the name of a file with its content, before it is read.

        Raises:
            ValueError: in one sentence, if the name promises something else.
        """

    def encode_file(self, raw: Raw) -> bytes:
        """The inverse of ``decode_file``; nothing is lost."""
        raise NotImplementedError

    def encoded_options(self, raw: Raw) -> Mapping[str, str]:
        """The options with which ``file_reader`` reads what ``encode_file`` wrote."""
        return {}

    def to_file(self, encoded: Encoded) -> tuple[str, bytes]:
        """A sample as a file that ``decode_file`` reads: how its name ends, and its content."""
        return (self.suffixes or (".bin",))[0], self.encode_file(self.decode(encoded, sys.maxsize))

    def may_begin(self, first: bytes) -> bool:
        """Whether a file may begin with this byte. Where it may not, the body of a request that
        does is taken for JSON.
        """
        return True

    def num_raw_bytes(self, raw: Raw) -> int:
        """About the memory that decoded data takes."""
        return int(np.asarray(raw).nbytes)

    def size(self, raw: Raw) -> Mapping[str, int]:
        """The lengths of the data that a prediction may refer to, such as height and width."""
        return {}

    def statistic(self, raw: Raw) -> float:
        """A number whose distribution over many data changes when their source does, such as the
        brightness of an image.
        """
        raise NotImplementedError

    def pieces(self, raw: Raw) -> Sequence[Raw]:
        """Smaller data made of it, which does not fill the network's frame; an export is checked
        on these too.
        """
        return ()

    def arrays(self, rule: Rule) -> Mapping[str, ArraySpec]:
        """The arrays that the network takes, by name, in the order of an exported graph's
        inputs.
        """
        raise NotImplementedError

    def fill(self, raw: Raw, rule: Rule, arrays: Arrays) -> Frame:
        """Puts one sample into the network's frame.

        This is the only place where that is done: training, evaluation, export and serving call it.

        Args:
            raw: the decoded data.
            rule: the frame.
            arrays: for each of ``arrays(rule)`` the memory of one sample, which is written.

        Returns:
            Where the data lies.
        """
        raise NotImplementedError

    def fill_empty(self, rule: Rule, arrays: Arrays) -> Frame:
        """The same for a sample that could not be read and keeps its place in the batch."""
        raise NotImplementedError

    def unfit(self, rule: Rule, arrays: Arrays) -> str | None:
        """Why no data fills the frame with these values; None if some may. Whoever takes arrays
        from others asks it, so that an engine gets no index outside its memory.

        Args:
            rule: the frame.
            arrays: some of ``arrays(rule)``, batch first, in their dtypes and shapes.
        """
        return None

    def trim(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """The filled arrays of a batch, batch first, with open axes as long as the batch needs."""
        return dict(arrays)

    def training_rule(self, rule: Rule) -> Rule:
        """The rule of training, where it differs from that of evaluation."""
        return rule

    def own_frame(self, raw: Raw) -> Frame | None:
        """The frame in which the data lies as it is: predictions of two models are compared in
        it. None if positions mean nothing.
        """
        return None

    def other_rules(self, rule: Rule) -> Sequence[Rule]:
        """Rules with other lengths of the open axes, at which an exported graph must run too, a
        shorter and a longer one; empty if no axis is open.
        """
        return ()

    def odd_rules(self, rule: Rule) -> Sequence[Rule]:
        """Rules at which some networks run and others do not, such as sides that no stride
        divides. A bundle refuses them if its graph is not right there.
        """
        return ()

    def outside(self, rule: Rule, checked: Sequence[Rule]) -> str | None:
        """Why a rule is outside the range of those at which a graph was checked; None if it is
        inside.
        """
        return None

    def size_of(self, rule: Rule) -> str:
        """The size of the network's input in words, such as 640x480."""
        return ", ".join(
            f"{name} {'x'.join(map(str, spec.shape))}" for name, spec in self.arrays(rule).items()
        )

    def show(self, raw: Raw) -> NDArray[np.uint8]:
        """An image of the data for figures and for the drawings of a task: (H, W, 3) uint8 RGB."""
        raise NotImplementedError

    def show_arrays(self, arrays: Arrays) -> NDArray[np.uint8] | None:
        """An image of what the network gets of one sample, in its frame; None if there is none."""
        return None

    def generate(self, rng: np.random.Generator) -> tuple[Encoded, Raw]:
        """Made-up data with some structure, on which an export is checked where no split can be
        read.
        """
        raise NotImplementedError


def empty_arrays(rule: AnyCanvas, batch: int) -> dict[str, NDArray[Any]]:
    """Memory for the arrays of ``batch`` samples, not initialised."""
    return {
        name: np.empty((batch, *spec.shape), spec.dtype)
        for name, spec in rule.input.arrays(rule).items()
    }


def empty_batch(rule: AnyCanvas, batch: int) -> dict[str, NDArray[Any]]:
    """The arrays of ``batch`` samples that hold nothing."""
    arrays = empty_arrays(rule, batch)
    for sample in range(batch):
        rule.input.fill_empty(rule, {name: values[sample] for name, values in arrays.items()})
    return rule.input.trim(arrays)


def placed(raws: Sequence[Any], rule: AnyCanvas) -> tuple[dict[str, NDArray[Any]], list[Any]]:
    """Some samples in the network's frame: the arrays by name, batch first, and where each
    sample lies.
    """
    arrays = empty_arrays(rule, len(raws))
    frames = [
        rule.input.fill(raw, rule, {name: array[i] for name, array in arrays.items()})
        for i, raw in enumerate(raws)
    ]
    return rule.input.trim(arrays), frames
