"""Kept evaluations of chains: one JSONL file for each checkpoint, split, length and way of evaluating.

The first row says what was evaluated and how. Then batch after batch: a row per state trace, a row per answer read, and one that closes
the batch. An interrupted evaluation continues after the last closed batch; rows after it are written again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markovlm.chains.texts import ChainText
from markovlm.config.chain import ChainConfig
from markovlm.evaluation.chains import ChainBatch, ChainReading, ChainTrace
from markovlm.evaluation.store import Label, digest_of
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import encode_rows, read_rows, replace_whole, writing
from markovlm.tasks.base import DEFAULT_EXTRACTORS

_STATE, _READING, _BATCH = "state", "reading", "batch"  # values of `kind`
_DEFAULTS = {names[0] for names in DEFAULT_EXTRACTORS.values()}


class ChainReadings:
    """The file of one evaluation under `folder`; another label, set of texts, controls, batch size or extractor: another file."""

    def __init__(
        self,
        folder: Path,
        label: Label,
        chain: ChainConfig,
        controls: Sequence[str],
        batch_size: int,
        texts: Sequence[ChainText],
        extractor: str | None,
    ):
        asked = [(text.id, text.chunks, text.start, [asdict(query) for query in text.queries]) for text in texts]
        self.header: dict[str, Any] = {
            "kind": "chains",
            **asdict(label),
            "chain": chain.model_dump(mode="json"),
            "controls": list(controls),
            "batch_size": batch_size,
            "n": len(texts),
            "texts": digest_of(asked),
        }
        apart = {
            key: value for key, value in self.header.items() if key not in ("checkpoint", "step", "split")
        } | label.identity()
        if extractor in _DEFAULTS:  # older files are of the defaults before these, and their names know of no extractor
            apart["extractor"] = extractor
        chunks = f"-{chain.steps}chunks" if chain.steps is not None else ""
        self.path = folder / f"chains-{label.checkpoint}-{label.split}{chunks}-{digest_of(apart)}.jsonl"

    def known(self) -> dict[int, ChainBatch]:
        """The closed batches by number. Creates the file if there is none, and removes what an interruption left after them."""
        folder = RunDirectory(self.path.parent)
        with writing(self.path):
            folder.path.mkdir(parents=True, exist_ok=True)
        found: dict[int, ChainBatch] = {}
        rows: list[dict[str, Any]] = []
        for row in read_rows(self.path)[1:]:
            rows.append(row)
            if row.get("kind") == _BATCH:
                batch = _batch(rows)
                if batch is not None:
                    found[batch.number] = batch
                rows = []
        whole = encode_rows([self.header]) + b"".join(_encoded(batch) for batch in found.values())
        if not self.path.is_file() or self.path.read_bytes() != whole:
            replace_whole(self.path, whole)
        return found

    def add(self, batch: ChainBatch) -> None:
        """Append a batch and close it."""
        with writing(self.path), open(self.path, "ab") as file:
            file.write(_encoded(batch))
            file.flush()


def _encoded(batch: ChainBatch) -> bytes:
    rows: list[dict[str, Any]] = [{"kind": _STATE, **asdict(trace)} for trace in batch.traces]
    rows += [{"kind": _READING, **{("of" if k == "kind" else k): v for k, v in asdict(r).items()}} for r in batch.readings]
    closing = {"number": batch.number, "texts": len(batch.traces), "readings": len(batch.readings)}
    rows.append({"kind": _BATCH, **closing, "seconds": batch.seconds, "peak_memory": batch.peak_memory})
    return encode_rows(rows)


def _batch(rows: Sequence[Mapping[str, Any]]) -> ChainBatch | None:
    """The batch that the last of these rows closes; None where rows of it are missing or belong to another."""
    closing = rows[-1]
    try:
        traces = [_trace(row) for row in rows if row.get("kind") == _STATE]
        readings = [_reading(row) for row in rows if row.get("kind") == _READING]
        if (len(traces), len(readings)) != (closing["texts"], closing["readings"]):
            return None
        return ChainBatch(closing["number"], readings, traces, closing["seconds"], closing["peak_memory"])
    except (KeyError, TypeError):
        return None  # rows of another version's shape


def _trace(row: Mapping[str, Any]) -> ChainTrace:
    return ChainTrace(row["text"], tuple(row["states"]), tuple(row["tokens"]), row["signals"])


def _reading(row: Mapping[str, Any]) -> ChainReading:
    values = {("kind" if key == "of" else key): value for key, value in row.items() if key != "kind"}
    if values["logprob"] is None:  # it was not finite
        values["logprob"] = float("nan")
    return ChainReading(**values)
