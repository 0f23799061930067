"""A model file's bytes, without its weights' numbers: those stay in the file until they are needed.

Parsing a file copies every weight, and writing it again twice more. Here the file's structure is walked as Protocol
Buffers lay it out, the numbers of large initialisers are passed over, and what is parsed is the rest. Only three
fields are known by number: the model's graph, the graph's initialisers, and an initialiser's numbers.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_GRAPH, _INITIALIZER, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 7, 5, 9, 13, 14
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_KEY, _VALUE = 1, 2
_EXTERNAL = 1


class NotSkimmed(Exception):
    """The bytes are laid out in a way that is not known here; to be told to nobody."""


@dataclass(frozen=True)
class Kept:
    """Where the numbers of an initialiser lie in the file."""

    offset: int
    length: int


@dataclass(frozen=True)
class _Field:
    number: int
    kind: int
    start: int
    body: int
    end: int


def skim(path: Path, above: int, stub: str) -> tuple[bytes, list[Kept]]:
    """The file's bytes, the numbers of initialisers of more than `above` bytes left out, and where those are.

    An initialiser without numbers says that they are external, at `stub` and its place in the list.

    Raises: NotSkimmed if the file has to be read as a whole.
    """
    with path.open("rb") as file:
        try:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (ValueError, OSError):  # an empty file cannot be mapped, nor can a pipe
            raise NotSkimmed from None
        with view:
            kept: list[Kept] = []
            parts = []
            for field in _fields(view, 0, len(view)):
                is_graph = (field.number, field.kind) == (_GRAPH, _BYTES)
                inside = _graph(view, field, above, stub, kept) if is_graph else None
                parts.append(view[field.start : field.end] if inside is None else embedded(_GRAPH, inside))
            return b"".join(parts), kept


def graph_header(size: int) -> bytes:
    """What stands before a graph of so many bytes."""
    return header(_GRAPH, size)


def initializer_header(bare: bytes, length: int) -> bytes:
    """What stands before the numbers of an initialiser: `bare` is the initialiser without them."""
    before = bare + header(_RAW_DATA, length)
    return header(_INITIALIZER, len(before) + length) + before


def embedded(number: int, content: bytes) -> bytes:
    """A field that holds a message or bytes."""
    return header(number, len(content)) + content


def header(number: int, length: int) -> bytes:
    """What stands before the content of a field that holds a message or bytes."""
    return _varint(number << 3 | _BYTES) + _varint(length)


def _graph(view: mmap.mmap, graph: _Field, above: int, stub: str, kept: list[Kept]) -> bytes:
    parts = []
    for field in _fields(view, graph.body, graph.end):
        inside = None
        if (field.number, field.kind) == (_INITIALIZER, _BYTES) and field.end - field.body > above:
            inside = _initializer(view, field, above, f"{stub}{len(kept)}", kept)
        parts.append(view[field.start : field.end] if inside is None else embedded(_INITIALIZER, inside))
    return b"".join(parts)


def _initializer(view: mmap.mmap, tensor: _Field, above: int, stub: str, kept: list[Kept]) -> bytes | None:
    """The tensor without its numbers; None where it has few, or has them elsewhere."""
    fields = list(_fields(view, tensor.body, tensor.end))
    raw = [f for f in fields if (f.number, f.kind) == (_RAW_DATA, _BYTES)]
    if len(raw) != 1 or raw[0].end - raw[0].body <= above or any(f.number == _DATA_LOCATION for f in fields):
        return None
    (numbers,) = raw
    kept.append(Kept(numbers.body, numbers.end - numbers.body))
    rest = [view[f.start : f.end] for f in fields if f is not numbers]
    entries = {"location": stub, "length": str(numbers.end - numbers.body)}
    for key, value in entries.items():
        entry = embedded(_KEY, key.encode()) + embedded(_VALUE, value.encode())
        rest.append(embedded(_EXTERNAL_DATA, entry))
    return b"".join([*rest, _varint(_DATA_LOCATION << 3 | _VARINT), _varint(_EXTERNAL)])


def _fields(view: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    """The fields of the message between two places."""
    while start < end:
        tag, body = _read_varint(view, start, end)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, stop = _read_varint(view, body, end)
        elif kind == _BYTES:
            length, body = _read_varint(view, body, end)
            stop = body + length
        elif kind in (_EIGHT, _FOUR):
            stop = body + (8 if kind == _EIGHT else 4)
        else:
            raise NotSkimmed
        if stop > end or number == 0:
            raise NotSkimmed
        yield _Field(number, kind, start, body, stop)
        start = stop


def _read_varint(view: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise NotSkimmed


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
