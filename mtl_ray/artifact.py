"""A folder that exists once its ``MANIFEST.json`` does: a checkpoint or a bundle.

The files are uploaded first; then the manifest, with the size and SHA-256 of each, is written in
one request that fails if there is one already. A writer killed at any moment leaves either a whole
artifact or a folder that no reader takes for one.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_ray import storage

MANIFEST = "MANIFEST.json"
FORMAT = "mtl_ray artifact"
VERSION = 1
READABLE_VERSIONS = (1,)
"""This version and, once there is one, the version before."""
MAX_MANIFEST_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What the manifest says of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A whole artifact; files are checked as they are read.

    Attributes:
        uri: its folder.
        kind: "checkpoint" or "bundle".
        entries: of each file by name.
    """

    uri: str
    kind: str
    entries: Mapping[str, FileEntry]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its files, sorted."""
        return tuple(sorted(self.entries))

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            ValueError: if the artifact has no such file, or it is not the one that was written.
        """
        entry = self._entry(name)
        try:
            data = storage.read(storage.join(self.uri, name))
        except FileNotFoundError as error:
            raise ValueError(f"{self.kind} {self.uri} is damaged: {name} is missing") from error
        self._check(name, entry, len(data), hashlib.sha256(data).hexdigest())
        return data

    def fetch(self, name: str, path: Path) -> None:
        """Copies a file to a local path; nothing is left there if it is damaged.

        Raises:
            ValueError: if the artifact has no such file, or it is not the one that was written.
        """
        entry = self._entry(name)
        try:
            storage.download(storage.join(self.uri, name), path)
        except FileNotFoundError as error:
            raise ValueError(f"{self.kind} {self.uri} is damaged: {name} is missing") from error
        try:
            self._check(name, entry, *_measure(path))
        except ValueError:
            path.unlink()
            raise

    def _entry(self, name: str) -> FileEntry:
        if name not in self.entries:
            raise ValueError(
                f"{self.kind} {self.uri} has no {name}; it has {', '.join(self.names)}"
            )
        return self.entries[name]

    def _check(self, name: str, entry: FileEntry, found_bytes: int, sha256: str) -> None:
        if found_bytes != entry.bytes:
            raise ValueError(
                f"{self.kind} {self.uri} is damaged: {name} has {found_bytes} bytes, its manifest "
                f"says {entry.bytes}"
            )
        if sha256 != entry.sha256:
            raise ValueError(
                f"{self.kind} {self.uri} is damaged: {name} does not have the content that its "
                "manifest says (SHA-256)"
            )


def publish(uri: str, files: Mapping[str, bytes | Path], *, kind: str) -> bool:
    """Makes an artifact of some files, given as bytes or as local paths.

    Returns:
        False if there is one at ``uri`` already, which is left as it is.

    Raises:
        ValueError: for a file name that is not a plain one.
    """
    unfit = [name for name in files if not _NAME.fullmatch(name) or name == MANIFEST]
    if unfit:
        raise ValueError(f"{unfit[0]!r} cannot be the name of a file in a {kind}")
    if storage.exists(storage.join(uri, MANIFEST)):
        return False
    entries = {}
    for name, content in sorted(files.items()):
        target = storage.join(uri, name)
        if isinstance(content, Path):
            found_bytes, sha256 = _measure(content)
            storage.upload(content, target)
        else:
            found_bytes, sha256 = len(content), hashlib.sha256(content).hexdigest()
            storage.write(target, content)
        entries[name] = {"bytes": found_bytes, "sha256": sha256}
    manifest = {"format": FORMAT, "version": VERSION, "kind": kind, "files": entries}
    return storage.write_new(storage.join(uri, MANIFEST), json.dumps(manifest, indent=1).encode())


def open_artifact(uri: str, *, kind: str) -> Artifact:
    """The artifact at a URI; that each file is there with its size is checked at once, contents
    when they are read.

    Raises:
        ValueError: if there is none, it is of another kind, or a file is missing or cut short.
    """
    uri = storage.absolute(uri)
    location = storage.join(uri, MANIFEST)
    try:
        if storage.size(location) > MAX_MANIFEST_BYTES:
            raise ValueError(
                f"{location} is larger than {MAX_MANIFEST_BYTES} bytes, which no {kind} needs"
            )
        data = storage.read(location)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"there is no whole {kind} at {uri}: it has no {MANIFEST}, which is written last"
        ) from error
    try:
        artifact = _parse(uri, data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the {MANIFEST} of {uri} is damaged: {error}") from error
    if artifact.kind != kind:
        raise ValueError(f"{uri} is a {artifact.kind}, not a {kind}")
    present = storage.sizes(uri)
    for name, entry in artifact.entries.items():
        if name not in present:
            raise ValueError(f"{kind} {uri} is damaged: {name} is missing")
        if present[name] != entry.bytes:
            raise ValueError(
                f"{kind} {uri} is damaged: {name} has {present[name]} bytes, its manifest says "
                f"{entry.bytes}"
            )
    return artifact


def _parse(uri: str, data: bytes) -> Artifact:
    content = json.loads(data)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT!r}")
    if content.get("version") not in READABLE_VERSIONS:
        raise ValueError(
            f"its version {content.get('version')!r} is not one that this program reads "
            f"{READABLE_VERSIONS}"
        )
    files = content.get("files")
    if not isinstance(content.get("kind"), str) or not isinstance(files, dict):
        raise ValueError("it lacks a kind or a list of files")
    return Artifact(
        uri, content["kind"], {name: _parse_entry(name, entry) for name, entry in files.items()}
    )


def _parse_entry(name: str, entry: Any) -> FileEntry:
    known = (
        isinstance(entry, dict)
        and type(entry.get("bytes")) is int
        and isinstance(entry.get("sha256"), str)
    )
    if (
        not _NAME.fullmatch(name)
        or not known
        or entry["bytes"] < 0
        or not _SHA256.fullmatch(entry["sha256"])
    ):
        raise ValueError(f"its entry {name!r} is not a file name with a size and a SHA-256")
    return FileEntry(entry["bytes"], entry["sha256"])


def _measure(path: Path) -> tuple[int, str]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return path.stat().st_size, digest.hexdigest()
