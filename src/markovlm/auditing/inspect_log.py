"""Inspect logs: the zip (`.eval`) and the JSON. Read without inspect_ai; nothing in them is trusted.

A zip holds `header.json` (or `_journal/start.json` of a log that was never finished) and `samples/ID_epoch_N.json`. Newer versions
compress with Zstandard, which Python's zipfile can't read before 3.14: pyarrow does (it comes with `datasets`).
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from markovlm.auditing.rows import AuditRow, Source, Unfit, before_answer, gold_of, plain
from markovlm.errors import UserError
from markovlm.tasks.base import LETTERS

MOST_MEMBER = 256 << 20  # bytes of one file in the zip, unpacked
MOST_IN_ALL = 4 << 30
MOST_MEMBERS = 500_000
_ZSTD = 93
_LOCAL_HEADER = 30  # bytes before the name of a member
_CHUNK = 1 << 20
_ATTACHMENT = "attachment://"
_RIGHT = {"C": True, "I": False, 1: True, 0: False}


def is_inspect_json(value: Any) -> bool:
    """An Inspect log as JSON has the evaluation and its samples side by side."""
    return isinstance(value, Mapping) and isinstance(value.get("eval"), Mapping) and "samples" in value


def read_inspect_zip(path: Path) -> Source:
    """All samples of an `.eval` file. UserError where it is none, or unpacks to more than a log has."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _from_zip(path, archive)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: a broken zip ({error}); an Inspect log (.eval) is needed") from None


def _from_zip(path: Path, archive: zipfile.ZipFile) -> Source:
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise UserError(f"{path}: {len(members)} files in the zip; an Inspect log has at most {MOST_MEMBERS}")
    names = {member.filename: member for member in members}
    head = names.get("header.json") or names.get("_journal/start.json")
    if head is None:
        raise UserError(f"{path}: a zip without header.json, so no Inspect log")
    unpacked = _Unpacker(path, archive)
    model = _model(unpacked.value(head))
    found = Source("inspect")
    for member in members:
        if member.filename.startswith("samples/") and member.filename.endswith(".json"):
            _add(found, unpacked.value(member), model, f"{path.name}:{member.filename}")
    return found


def read_inspect_value(path: Path, log: Mapping[str, Any]) -> Source:
    """All samples of a log that was written as JSON."""
    found, model = Source("inspect"), _model(log)
    samples = log.get("samples")
    for number, sample in enumerate(samples if isinstance(samples, list) else []):
        _add(found, sample, model, f"{path.name}:samples[{number}]")
    if not found.rows and not found.skipped:
        raise UserError(f"{path}: an Inspect log without samples (it was written with --no-log-samples)")
    return found


def _add(found: Source, sample: Any, model: str, where: str) -> None:
    try:
        found.rows.append(_row(sample, model, where))
    except Unfit as error:
        found.skipped.append(f"{where}: {error}")


def _model(header: Any) -> str:
    evaluation = header.get("eval") if isinstance(header, Mapping) else None
    name = evaluation.get("model") if isinstance(evaluation, Mapping) else None
    return plain(name) if isinstance(name, str) else ""


# ------------------------------------------------------------------------------------------------------------ a sample


def _row(sample: Any, model: str, where: str) -> AuditRow:
    if not isinstance(sample, Mapping):
        raise Unfit("is no sample")
    if sample.get("error"):
        raise Unfit("the sample ended in an error")
    attached = sample.get("attachments")
    stored = attached if isinstance(attached, Mapping) else {}
    choice = _first_choice(sample)
    cot, cut = _reasoning(choice.get("message"), stored)
    stop = choice.get("stop_reason")
    choices = sample.get("choices")
    texts = tuple(_resolved(c, stored) for c in choices if isinstance(c, str)) if isinstance(choices, list) else ()
    return AuditRow(
        question=_question(sample.get("input"), stored),
        cot=cot,
        answer=_gold(sample.get("target"), stored),
        choices=texts[: len(LETTERS)],
        group=model,
        right=_right(sample.get("scores")),
        truncated=stop in ("max_tokens", "model_length") if isinstance(stop, str) else None,
        cut=cut,
        where=where,
    )


def _first_choice(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    output = sample.get("output")
    choices = output.get("choices") if isinstance(output, Mapping) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise Unfit("no output (the sample was not finished)")
    return cast(Mapping[str, Any], choices[0])


def _reasoning(message: Any, stored: Mapping[str, Any]) -> tuple[str, bool]:
    """The reasoning block of a reply, or its text up to the final answer. Encrypted reasoning has at best a summary."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, str):
        return before_answer(_resolved(content, stored))
    blocks = [block for block in content if isinstance(block, Mapping)] if isinstance(content, list) else []
    said = "\n".join(_resolved(b["text"], stored) for b in blocks if b.get("type") == "text" and isinstance(b.get("text"), str))
    thoughts, hidden = [], False
    for block in blocks:
        if block.get("type") != "reasoning":
            continue
        hidden = hidden or bool(block.get("redacted"))
        text = block.get("summary") if block.get("redacted") else block.get("reasoning")
        if isinstance(text, str) and text.strip():
            thoughts.append(_resolved(text, stored))
    if thoughts:
        return "\n".join(thoughts).strip(), bool(said.strip())
    if hidden:
        raise Unfit("its reasoning is encrypted and has no summary")
    return before_answer(said)


def _question(asked: Any, stored: Mapping[str, Any]) -> str:
    """The text itself, or the last user message of a conversation."""
    if isinstance(asked, list):
        users = [m for m in asked if isinstance(m, Mapping) and m.get("role") == "user"]
        asked = users[-1].get("content") if users else None
        if isinstance(asked, list):
            parts = [part.get("text") for part in asked if isinstance(part, Mapping) and part.get("type") == "text"]
            asked = "\n".join(part for part in parts if isinstance(part, str))
    if not isinstance(asked, str) or not asked.strip():
        raise Unfit("no question in its input")
    return _resolved(asked, stored).strip()


def _gold(target: Any, stored: Mapping[str, Any]) -> str:
    first = target[0] if isinstance(target, list) and target else target
    if isinstance(first, bool) or not isinstance(first, str | int | float) or not str(first).strip():
        raise Unfit("no target")
    return gold_of(_resolved(str(first), stored))


def _right(scores: Any) -> bool | None:
    """The first score, where it says right or wrong."""
    first = next(iter(scores.values()), None) if isinstance(scores, Mapping) else None
    value = first.get("value") if isinstance(first, Mapping) else None
    return _RIGHT.get(value) if isinstance(value, str | int | float) else None


def _resolved(text: str, stored: Mapping[str, Any]) -> str:
    """Long strings are kept once, beside the messages that have them."""
    if text.startswith(_ATTACHMENT):
        kept = stored.get(text.removeprefix(_ATTACHMENT))
        text = kept if isinstance(kept, str) else text
    return plain(text)


# ------------------------------------------------------------------------------------------------------------- the zip


class _Unpacker:
    """Reads members in pieces and stops at a limit: what the directory of a zip says of sizes is not believed."""

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
                f"{self.path}: compressed with Zstandard, which needs pyarrow (pip install pyarrow); or write it anew with "
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
