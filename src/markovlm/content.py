"""Reading what others wrote: regular files only, unpacked up to a limit, YAML that can't grow when parsed, text on one line."""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.composer import ComposerError

GZIP = b"\x1f\x8b"
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a directory"),
)
_MOST_NODES = 200_000  # of a YAML document, aliases written out
_MOST_RATIO = 100  # unpacked to packed: text comes to 20 at most, what is made to fill memory to a thousand
_ALWAYS = 256 << 20  # bytes that may be unpacked whatever the ratio


def one_line(text: object, most: int = 200) -> str:
    """Foreign text on one line of at most `most` characters, with � for what is not printable: control characters, direction marks."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(str(text).split()))[:most]


def first_few(names: Sequence[str], most: int) -> str:
    """`a, b, c, …`: at most so many of them."""
    return ", ".join((*names[:most], *["…"] * (len(names) > most)))


def system_error(error: BaseException) -> OSError | None:
    """The system's error that a library (safetensors, tokenizers) rephrased, `… (os error 28)`; None if there is none."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


def check_regular(path: Path) -> None:
    """Raise OSError for anything but a regular file: reading a named pipe would block forever."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = next((name for test, name in _KINDS if test(mode)), "not a regular file")
        raise OSError(0, f"{what}, not a file: not read", str(path))


def read_content(path: Path, most: int | None = None) -> bytes:
    """The content of a regular file. Raises OSError if it is not one, or has more than `most` bytes."""
    check_regular(path)
    size = path.stat().st_size
    if most is not None and size > most:
        raise OSError(0, f"{size:,} bytes, where at most {most:,} are expected: not read", str(path))
    return path.read_bytes()


def unpack(data: bytes) -> bytes:
    """The content of one or several gzip members. Raises OSError if they are damaged, or unpack to far more than text does."""
    most = max(_ALWAYS, _MOST_RATIO * len(data))
    pieces: list[bytes] = []
    room = most
    while data:
        unpacker = zlib.decompressobj(31)
        try:
            pieces.append(unpacker.decompress(data, room))
        except zlib.error as error:
            raise OSError(0, f"a damaged gzip file ({error})") from None
        room -= len(pieces[-1])
        if unpacker.unconsumed_tail or room <= 0:
            raise OSError(0, f"unpacks to more than {most:,} bytes: not read")
        if not unpacker.eof:
            raise OSError(0, "a gzip file that ends early")
        data = unpacker.unused_data.lstrip(b"\0")
    return b"".join(pieces)


class Yaml(yaml.SafeLoader):
    """A loader for plain values, no more of them than are written: nested aliases, which can stand for billions, are refused."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            self._count(node, {}, set())
        return node

    def _count(self, node: yaml.Node, known: dict[int, int], within: set[int]) -> int:
        """How many nodes it stands for, each counted wherever an alias names it."""
        if id(node) in known:
            return known[id(node)]
        if id(node) in within:
            _refuse("an alias is inside the value that it names", node)
        within.add(id(node))
        children = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        total = 1 + sum(self._count(child, known, within) for child in children)
        if total > _MOST_NODES:
            _refuse(f"stands for more than {_MOST_NODES:,} values", node)
        within.discard(id(node))
        known[id(node)] = total
        return total


def _refuse(problem: str, node: yaml.Node) -> NoReturn:
    raise ComposerError(None, None, problem, node.start_mark)


def parse_yaml(text: str, loader: type[Yaml] = Yaml) -> Any:
    """The value of a YAML document. Raises yaml.YAMLError, and nothing else, if it is invalid."""
    try:
        return yaml.load(text, loader)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except ValueError as error:  # a date that is none, a number of ten thousand digits
        raise yaml.YAMLError(" ".join(str(error).split())[:120]) from None
