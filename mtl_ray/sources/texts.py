"""The text in annotation files, whatever program on whatever system wrote them."""

import codecs
import re
from collections.abc import Sequence

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
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "iso8859-1": "cp1252"}
"""Encodings that hold another one, and which files that declare the other one often have."""
_FOR_TEXT = re.compile(r"(utf|ascii|cp\d|iso|gb|big5|euc|shift|koi8|mac|latin|johab|hz|ptcp|tis|kz)")
UNREADABLE = "\ufffd"
"""What stands in a text for bytes that are none in its encoding."""


def text_of(data: bytes) -> str:
    """The text of a file in UTF-8, or in what its byte order mark says; NUL bytes at its end, of a write cut short, do not count.

    Raises:
        ValueError: if it is not text.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding).rstrip("\0")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None


def text_of_xml(data: bytes) -> str:
    """The text of an XML file without its declaration, in its own encoding; ``UNREADABLE`` stands for bytes that are none there."""
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
    """The codec of the declared encoding; nothing where none is declared, or one that is none of a text in single bytes."""
    match = _ENCODING.match(data.lstrip()[:200])
    try:
        name = codecs.lookup(match[1].decode()).name if match else ""
    except LookupError:
        return ""
    usable = _FOR_TEXT.match(name) and not name.startswith(("utf-16", "utf-32"))  # else the declaration could not be read like this
    return _WIDER.get(name, name) if usable else ""
