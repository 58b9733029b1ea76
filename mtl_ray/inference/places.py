"""What to predict on: files of an input, and the samples of splits."""

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mtl_ray import storage
from mtl_ray.inputs.image import IMAGE
from mtl_ray.inputs.input import AnyCanvas, Input
from mtl_ray.samples import Sample
from mtl_ray.shards.manifest import MANIFEST
from mtl_ray.shards.split import Split, open_split


class ReadableDatum(Protocol):
    """One datum of an input."""

    @property
    def name(self) -> str:
        """A URI of a file, or the key of a sample."""
        ...

    @property
    def uri(self) -> str:
        """Where it is stored: a file, or a split."""
        ...

    def read(self, limit: int) -> Any:
        """The decoded data; raises as ``Input.decode``, or ``OSError``."""
        ...

    def sample(self) -> Sample | None:
        """The whole sample of a split; None for a file."""
        ...

    def to_send(self) -> tuple[bytes, Mapping[str, str]]:
        """A file with the same data, and the options to read it (``Input.file_options``)."""
        ...


@dataclass(frozen=True, kw_only=True)
class FileDatum:
    """A file; see ``ReadableDatum``.

    Attributes:
        uri: its path or URI.
        canvas: of the network.
        options: how it is read.
    """

    uri: str
    canvas: AnyCanvas
    options: Mapping[str, str]

    @property
    def name(self) -> str:
        """Its URI."""
        return self.uri

    def read(self, limit: int) -> Any:
        """See ``ReadableDatum``."""
        kind = self.canvas.input
        data = storage.read(self.uri)
        kind.check_name(data, self.uri)
        return kind.file_reader(self.canvas, self.options)(data, limit)

    def sample(self) -> Sample | None:
        """None."""
        return None

    def to_send(self) -> tuple[bytes, Mapping[str, str]]:
        """The file as it is."""
        return storage.read(self.uri), self.options


@dataclass(frozen=True, kw_only=True)
class SampleDatum:
    """A sample of a split; see ``ReadableDatum``.

    Attributes:
        split: the split.
        row: of the sample.
        canvas: of the network.
    """

    split: Split
    row: int
    canvas: AnyCanvas

    @property
    def name(self) -> str:
        """Its key."""
        return self.sample().key

    @property
    def uri(self) -> str:
        """Of the split's manifest, which is no place for results."""
        return storage.join(self.split.uri, MANIFEST)

    def read(self, limit: int) -> Any:
        """See ``ReadableDatum``."""
        kind = self.canvas.input
        return kind.decode(self.sample().inputs[kind.name], limit)

    def sample(self) -> Sample:
        """See ``ReadableDatum``."""
        return next(self.split.read(self.row, self.row + 1))

    def to_send(self) -> tuple[bytes, Mapping[str, str]]:
        """The data as a file, without loss."""
        raw = self.read(NO_LIMIT)
        kind = self.canvas.input
        return kind.encode_file(raw), kind.encoded_options(raw)


NO_LIMIT = 1 << 62


def find_data(
    places: Sequence[str], canvas: AnyCanvas, options: Mapping[str, str] | None = None
) -> list[ReadableDatum]:
    """The data at some places, in their order; a file that is named twice once.

    Args:
        places: as of ``find_files``, or splits.
        canvas: of the network.
        options: how files are read.

    Raises:
        FileNotFoundError: if a file does not exist, or a folder or pattern has no such file.
        ValueError: if an option is unknown or invalid, or a split has another input.
    """
    kind, how = canvas.input, dict(options or {})
    kind.file_reader(canvas, how)
    found: dict[tuple[str, int], ReadableDatum] = {}
    for place in places:
        if storage.exists(storage.join(place, MANIFEST)):
            split = open_split(place)
            if kind not in split.manifest.layout.inputs:
                raise ValueError(f"the samples of {place} are no {kind.noun}s")
            for row in range(split.num_samples):
                found[split.uri, row] = SampleDatum(split=split, row=row, canvas=canvas)
        else:
            for uri in find_files([place], kind):
                found[uri, 0] = FileDatum(uri=uri, canvas=canvas, options=how)
    return list(found.values())


def find_files(places: Iterable[str], kind: Input[Any, Any, Any, Any] = IMAGE) -> list[str]:
    """The URIs of the files of an input, each once, in the order of ``places``.

    Args:
        places: each a file, a folder (all files of the input in and below it) or a pattern such as
            ``photos/*.jpg`` (``**`` for any depth).
        kind: the input.

    Raises:
        FileNotFoundError: if a file does not exist, or a folder or pattern has no such file.
    """
    uris: dict[str, None] = {}
    for place in places:
        files = list(_files(place, kind.suffixes))
        if not files:
            raise FileNotFoundError(f"there is no {kind.noun} at {place}")
        uris |= dict.fromkeys(files)
    return list(uris)


def _files(place: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    if not storage.is_remote(place) and not Path(place).exists():
        yield from (
            str(path) for path in sorted(glob.glob(place, recursive=True)) if Path(path).is_file()
        )
        return
    below = [uri for uri in storage.files(place) if not suffixes or uri.lower().endswith(suffixes)]
    yield from below if storage.is_remote(place) or Path(place).is_dir() else [place]
