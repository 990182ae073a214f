"""Members of an Inspect zip as JSON values. Read without inspect_ai; the sizes that the zip states are not trusted.

Newer versions compress with Zstandard, which Python's zipfile can't read before 3.14: pyarrow does (it comes with `datasets`).
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markovlm.errors import UserError

MOST_MEMBER = 256 << 20  # bytes of one file in the zip, unpacked
MOST_IN_ALL = 4 << 30
_ZSTD = 93
_LOCAL_HEADER = 30  # bytes before the name of a member
_CHUNK = 1 << 20


class Unpacker:
    """Reads members in pieces and stops at a limit: the sizes in a zip's directory are not trusted."""

    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self.path = path
        self.archive = archive
        self.total = 0

    def value(self, member: zipfile.ZipInfo) -> Any:
        pieces: list[bytes] = []
        size = 0
        try:
            for piece in self._pieces(member):
                size += len(piece)
                self.total += len(piece)
                if size > MOST_MEMBER or self.total > MOST_IN_ALL:
                    raise UserError(
                        f"{self.path}: {member.filename} unpacks to more than {MOST_MEMBER >> 20} MB (or the whole log to more than "
                        f"{MOST_IN_ALL >> 30} GB); split the log"
                    )
                pieces.append(piece)
            return json.loads(b"".join(pieces))
        except UserError:
            raise
        except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, EOFError) as error:
            raise UserError(f"{self.path}: {member.filename} cannot be read: {' '.join(str(error).split()):.120}") from None

    def _pieces(self, member: zipfile.ZipInfo) -> Iterator[bytes]:
        with self._opened(member) as stream:
            while piece := stream.read(_CHUNK):
                yield piece

    def _opened(self, member: zipfile.ZipInfo) -> Any:
        if member.compress_type != _ZSTD:
            return self.archive.open(member)
        try:
            import pyarrow
        except ImportError:
            raise UserError(
                f"{self.path}: compressed with Zstandard, which needs pyarrow (pip install pyarrow); or convert it with "
                "`inspect log convert --to json`"
            ) from None
        return pyarrow.CompressedInputStream(pyarrow.PythonFile(io.BytesIO(self._raw(member)), mode="r"), "zstd")

    def _raw(self, member: zipfile.ZipInfo) -> bytes:
        """The compressed bytes of a member, behind its local header."""
        if member.compress_size > MOST_MEMBER:
            raise ValueError(f"{member.compress_size} compressed bytes")
        with self.path.open("rb") as file:
            file.seek(member.header_offset)
            header = file.read(_LOCAL_HEADER)
            if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
                raise ValueError("no local header")
            name, extra = struct.unpack("<HH", header[26:30])
            file.seek(name + extra, io.SEEK_CUR)
            return file.read(member.compress_size)
