"""Lists of class names, from a file of the user or of the dataset; and text of annotation files."""

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence

from mtl_ray import storage
from mtl_ray.sources.folders import read_lines

USUAL_FILES = ("classes.txt", "class_names.txt")
MOST_CLASSES = 100_000
"""A class number of at least this is invalid."""
_DIGITS = 9


def read_class_names(uri: str) -> tuple[str, ...]:
    """The names in a file, one per line; empty lines are skipped.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty or not text, or a name is repeated.
    """
    try:
        names = tuple(read_lines(uri))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file of class names {uri}") from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise ValueError(
            f"{uri} must have one class name per line; "
            + (f"{twice[0]!r} is repeated" if twice else "it is empty")
        )
    return names


def find_class_names(root: str, classes: str | None) -> tuple[str, ...] | None:
    """The names in the file ``classes`` (relative to the working directory) or, failing that, in
    ``ROOT/classes.txt``, if there is one.
    """
    if classes is not None:
        return read_class_names(storage.absolute(classes))
    for name in USUAL_FILES:
        if storage.exists(storage.join(root, name)):
            return read_class_names(storage.join(root, name))
    return None


def collect(labels: Iterable[str]) -> tuple[str, ...]:
    """Class names of the labels that occur: the labels, sorted; if all are integers, 0 to the
    highest.
    """
    found = set(labels)
    plain = {plain_number(label) for label in found}
    if found and all(label.isdecimal() and int(label) < MOST_CLASSES for label in plain):
        return numbered_classes(max(map(int, plain)))
    return tuple(sorted(found))


def plain_number(label: str) -> str:
    """An integer in normal form: ``1.0`` and ``1.000e+00`` become ``1``."""
    if label.isdecimal():
        return label if len(label) > _DIGITS else str(int(label))
    try:
        number = float(label)
    except ValueError:
        return label
    return str(int(number)) if number == number // 1 and abs(number) < MOST_CLASSES else label


def numbered_classes(highest: int) -> tuple[str, ...]:
    """Names of classes that are known as numbers 0 to ``highest``."""
    return tuple(str(number) for number in range(highest + 1))


def index_of(names: Iterable[str]) -> dict[str, int]:
    """Class indices by name, and by number where a number is not itself a name."""
    by_name = {name: number for number, name in enumerate(names)}
    return {str(number): number for number in by_name.values()} | by_name


def find_class(index: Mapping[str, int], label: str) -> int | None:
    """The class index of a label, by name or number; None if there is none."""
    return index[label] if label in index else index.get(plain_number(label))


# Decoding of annotation files in any encoding.


_MARKS: Sequence[tuple[bytes, str]] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE: Sequence[tuple[bytes, str]] = ((b"<\0?\0", "utf-16-le"), (b"\0<\0?", "utf-16-be"))
"""How an XML file of 16 bits a character begins where it has no mark (XML 1.0, appendix F)."""
_DECLARATION = re.compile(r"<\?xml\b[^>]*?\?>\s*")
_ENCODING = re.compile(rb"""<\?xml\b[^>]*?\bencoding\s*=\s*["']([A-Za-z][A-Za-z0-9._-]*)["']""")
_WIDER = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-1": "cp1252",
}
"""Supersets of encodings: files often declare the smaller one and use the larger one."""
_FOR_TEXT = re.compile(
    r"(utf|ascii|cp\d|iso|gb|big5|euc|shift|koi8|mac|latin|johab|hz|ptcp|tis|kz)"
)
UNREADABLE = "\ufffd"
"""Replaces bytes that are invalid in the encoding of a text."""


def text_of(data: bytes) -> str:
    """The text of a file in UTF-8 or the encoding of its byte order mark, without NUL bytes at the
    end (truncated writes).

    Raises:
        ValueError: if it is not text.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding).rstrip("\0")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None


def text_of_xml(data: bytes) -> str:
    """The text of an XML file in its encoding, without its declaration; ``UNREADABLE`` replaces
    invalid bytes.
    """
    marked = next((name for mark, name in (*_MARKS, *_WIDE) if data.startswith(mark)), "")
    for encoding in filter(None, (marked, _declared(data), "utf-8")):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        break
    else:
        text = data.decode(marked or _declared(data) or "utf-8", errors="replace")
    return _DECLARATION.sub("", text.lstrip("\ufeff").strip("\0 \t\r\n"), count=1)


def _declared(data: bytes) -> str:
    """The codec of the declared encoding; empty if none is declared, or the declaration could
    not be read in it.
    """
    match = _ENCODING.match(data.lstrip()[:200])
    try:
        name = codecs.lookup(match[1].decode()).name if match else ""
    except LookupError:
        return ""
    # else the declaration could not be read like this
    usable = _FOR_TEXT.match(name) and not name.startswith(("utf-16", "utf-32"))
    return _WIDER.get(name, name) if usable else ""
