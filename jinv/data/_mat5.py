"""What a MATLAB file of version 5 holds, without reading its arrays."""

import struct
import zlib
from pathlib import Path
from typing import NamedTuple


# Numbers of the format (MathWorks, "MAT-File Format", tables 1-1 and 1-3).
_INT32, _MATRIX, _COMPRESSED = 5, 14, 15
_CLASSES = (
    "? cell struct object char sparse double single int8 uint8 int16 uint16 int32 uint32 int64 "
    "uint64 function opaque"
).split()
_COMPLEX, _LOGICAL = 0x0800, 0x0200
_HEADER = 128
# Enough for the flags, the lengths and the name of any array, compressed or not.
_ENOUGH = 4096


class Mat5Variable(NamedTuple):
    name: str
    shape: tuple[int, ...]
    kind: str
    is_complex: bool


def mat5_variables(path: Path) -> list[Mat5Variable]:
    """The variables in the order of the file; the length of each is checked against the file's."""
    size = path.stat().st_size
    found = []
    with open(path, "rb") as stream:
        order = "<" if stream.read(_HEADER)[126:] == b"IM" else ">"
        position = _HEADER
        while position < size:
            stream.seek(position)
            tag = stream.read(8)
            if len(tag) < 8:
                raise ValueError(f"{path}: cut short, {size} bytes end within a header.")
            element, length = struct.unpack(f"{order}II", tag)
            if element not in (_MATRIX, _COMPRESSED):
                raise ValueError(f"{path}: damaged, there is no array at byte {position}.")
            position += 8 + length
            if position > size:
                raise ValueError(
                    f"{path}: cut short, an array ends at byte {position} and the file at {size}."
                )
            payload = stream.read(min(length, _ENOUGH))
            try:
                found.append(_variable(payload, element == _COMPRESSED, order))
            except (struct.error, zlib.error, UnicodeDecodeError, IndexError) as error:
                raise ValueError(f"{path}: damaged, the header of an array ({error}).") from error
    # The workspace of function handles has no name.
    return [variable for variable in found if variable.name]


def _variable(payload: bytes, compressed: bool, order: str) -> Mat5Variable:
    if compressed:
        payload = zlib.decompressobj().decompress(payload, _ENOUGH)[8:]
    flags = struct.unpack_from(f"{order}I", payload, 8)[0]
    kind, content, position = _element(payload, 16, order)
    shape = ()
    if kind == _INT32:
        shape = struct.unpack(f"{order}{len(content) // 4}i", content)
        _, content, _ = _element(payload, position, order)
    name = "logical" if flags & _LOGICAL else _CLASSES[flags & 0xFF]
    return Mat5Variable(content.decode("ascii"), shape, name, bool(flags & _COMPLEX))


def _element(payload: bytes, position: int, order: str) -> tuple[int, bytes, int]:
    """Kind and content of an element, and where the next one begins."""
    kind, length = struct.unpack_from(f"{order}II", payload, position)
    if kind >> 16:  # Up to four bytes stand in the tag itself.
        kind, length = kind & 0xFFFF, kind >> 16
        return kind, payload[position + 4 : position + 4 + length], position + 8
    start = position + 8
    return kind, payload[start : start + length], start + length + -length % 8
