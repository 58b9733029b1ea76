"""Scans the operations of a pickle without executing them."""

_FIXED = {
    **dict.fromkeys(b"(012]})l.NRQabdehostu\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94", 0),
    **dict.fromkeys(b"Kqh\x80", 1),
    **dict.fromkeys(b"M", 2),
    **dict.fromkeys(b"Jjr", 4),
    **dict.fromkeys(b"G\x95", 8),
}
_COUNTED = {
    **dict.fromkeys(b"CU\x8a\x8c", 1),
    **dict.fromkeys(b"BTX\x8b", 4),
    **dict.fromkeys(b"\x8d\x8e\x96", 8),
}
_LINES = {**dict.fromkeys(b"FILSVgp", 1), **dict.fromkeys(b"ci", 2)}
_STOP, _PUT, _LONG_PUT = b".pr"


def check_operations(data: bytes | bytearray, start: int = 0) -> int:
    """The end of the pickle that begins at ``start``.

    Call this before a pickle is read: five of its bytes can make Python's reader allocate 32 GB, by
    a large index in its memo.

    Raises:
        ValueError: if an index of the memo is larger than the data, an operation is unknown, or the
            end is missing.
    """
    place, end = start, len(data)
    while place < end:
        op = data[place]
        if op in _FIXED:
            if op == _LONG_PUT and int.from_bytes(data[place + 1 : place + 5], "little") > end:
                raise ValueError("it is broken (an index of its memo is too large)")
            place += 1 + _FIXED[op]
        elif op in _COUNTED:
            width = _COUNTED[op]
            place += 1 + width + int.from_bytes(data[place + 1 : place + 1 + width], "little")
        elif op in _LINES:
            place = _after_lines(data, place, _LINES[op])
        else:
            raise ValueError(f"it is not a pickle of plain values (operation {op:#x})")
        if op == _STOP:
            return place
    raise ValueError("it is truncated")


def _after_lines(data: bytes | bytearray, place: int, lines: int) -> int:
    """The position after an operation whose arguments are lines of text."""
    start = place + 1
    for _ in range(lines):
        stop = data.find(b"\n", start)
        if stop < 0:
            raise ValueError("it is truncated")
        number = data[start : min(stop, start + 12)]
        if data[place] == _PUT and (not number.isdigit() or int(number) > len(data)):
            raise ValueError("it is broken (an index of its memo is too large)")
        start = stop + 1
    return start
