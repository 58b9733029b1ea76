"""Scans the operations of a pickle without executing them."""

import pickletools
from collections.abc import Iterator

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
_STOP, _DUPLICATE, _MEMOIZE, _MARK = b".2\x94("
_PUTS, _GETS, _TUPLES = frozenset(b"pqr"), frozenset(b"ghj"), frozenset(b"t\x85\x86\x87")
_FILLING = frozenset(b"aesu\x90b")
"""Operations that put values into one that stays: a list, a dict, a set, an object."""
_HARMLESS = frozenset(b"ael.") | _TUPLES
"""Operations that hash, compare and print nothing of what they take."""
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_KEYS = {ord("s"): 1, ord("u"): 1, ord("d"): 0}
"""Operations that take keys and values in turn, and the place of the first key."""
_FEW_SHARED = 16
"""Tuples that are used again so rarely cannot multiply much."""
_VALUES, _GROWTH = 10_000_000, 64
"""A pickle may hold so many values, or so many for each of its bytes, where values that are used
several times count each time.
"""


def check_operations(data: bytes | bytearray, start: int = 0) -> int:
    """The end of the pickle that begins at ``start``.

    Call this before a pickle is read: five of its bytes can make Python's reader allocate 32 GB, by
    a large index in its memo, and a hundred keep it busy for years, by a key that is a tuple of
    shared tuples.

    Raises:
        ValueError: if an index of the memo is larger than the data, an operation is unknown, the
            end is missing, or shared values multiply.
    """
    shared, after_tuple, is_tuple, end = 0, False, bytearray(), start
    for op, argument, place in _operations(data, start):
        end = place
        if op == _MEMOIZE:
            is_tuple.append(after_tuple)
        elif op in _PUTS:
            if argument > len(data):
                raise ValueError("it is broken (an index of its memo is too large)")
            is_tuple.extend(bytes(max(0, argument + 1 - len(is_tuple))))
            is_tuple[argument] |= after_tuple
        elif op in _GETS:
            # a pickle that mixes both ways to number what it stores is examined in any case
            shared += argument >= len(is_tuple) or is_tuple[argument]
        elif op == _DUPLICATE:
            shared += 1
        after_tuple = op in _TUPLES
    if shared > _FEW_SHARED:
        _check_growth(data, start, end)
    return end


def _operations(data: bytes | bytearray, start: int) -> Iterator[tuple[int, int, int]]:
    """Each operation, the number that follows it (0 if none does), and where it ends.

    Raises:
        ValueError: if an operation is unknown, or the last is missing.
    """
    place, end = start, len(data)
    while place < end:
        op, argument = data[place], 0
        if (width := _FIXED.get(op)) is not None:
            if width:
                argument = int.from_bytes(data[place + 1 : place + 1 + width], "little")
            place += 1 + width
        elif op in _COUNTED:
            width = _COUNTED[op]
            place += 1 + width + int.from_bytes(data[place + 1 : place + 1 + width], "little")
        elif op in _LINES:
            after = _after_lines(data, place, _LINES[op])
            if op in _PUTS or op in _GETS:
                argument = _index(data[place + 1 : min(after - 1, place + 13)])
            place = after
        else:
            raise ValueError(f"it is not a pickle of plain values (operation {op:#x})")
        yield op, argument, place
        if op == _STOP:
            return
    raise ValueError("it is truncated")


def _after_lines(data: bytes | bytearray, place: int, lines: int) -> int:
    """The position after an operation whose arguments are lines of text."""
    for _ in range(lines):
        place = data.find(b"\n", place + 1)
        if place < 0:
            raise ValueError("it is truncated")
    return place + 1


def _index(text: bytes | bytearray) -> int:
    if not text.isdigit():
        raise ValueError("it is broken (an index of its memo is too large)")
    return int(text)


def _check_growth(data: bytes | bytearray, start: int, end: int) -> None:
    """Raises a ValueError if a key or an argument holds shared values that multiply.

    A tuple that is a key is hashed, and with it all that it holds, as often as it holds it. The
    stack of Python's reader is followed here, with the number of values in place of each value.
    """
    most = max(_VALUES, _GROWTH * (end - start))
    mark: list[int] = []
    stack: list[list[int]] = []
    memo: dict[int, list[int]] = {}
    for op, argument, _ in _operations(data, start):
        top = stack[-1] if stack and stack[-1] is not mark else [1]
        if op == _MARK:
            stack.append(mark)
        elif op == _MEMOIZE or op in _PUTS:
            memo[len(memo) if op == _MEMOIZE else argument] = top
        elif op in _GETS or op == _DUPLICATE:
            stack.append(top if op == _DUPLICATE else memo.get(argument, [1]))
        else:
            taken = _take(stack, op, mark)
            size = min(sum(each[0] for each in taken), most + 1)  # else numbers of many digits
            hashed = taken[_KEYS[op] :: 2] if op in _KEYS else taken
            if op not in _HARMLESS and sum(each[0] for each in hashed) > most:
                raise ValueError(f"its shared values multiply to more than {most:,}")
            if op in _FILLING and taken:
                taken[0][0] = size
                stack.append(taken[0])
            elif _OPCODES[op].stack_after:
                stack.append([1 + size])


def _take(stack: list[list[int]], op: int, mark: list[int]) -> list[list[int]]:
    """Takes what an operation takes from the stack, in the order in which it lies there."""
    before = _OPCODES[op].stack_before
    single, taken = len(before), []
    if pickletools.markobject in before:
        single = before.index(pickletools.markobject)
        while stack and (top := stack.pop()) is not mark:
            taken.append(top)
    taken += [stack.pop() for _ in range(min(single, len(stack)))]
    return [each for each in reversed(taken) if each is not mark]
