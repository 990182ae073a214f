"""Ledgers in chunks with questions at the end: a stream without end to train on, fixed lists to evaluate on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from markovlm.errors import UserError
from markovlm.tasks.base import DEFAULT_EXTRACTORS, AnswerType, Example, HubSource, Loaded, LoadRequest, PromptKind
from markovlm.tasks.ledger_data import LedgerSpec, draw_ledger
from markovlm.tasks.sources import check_options, check_request
from markovlm.tasks.stream import ENDLESS, Stream

HELD_OUT_SIZE: dict[str, int] = {"dev": 100, "test": 200}
HELD_OUT_SEED = 0  # the held-out ledgers are the same in every run, whatever its seed
_OPTIONS = {
    "chunks": "chunks of a ledger, default 4",
    "min_chunks": "fewest chunks; default: as many as chunks",
    "accounts": "accounts of a ledger, default 4",
    "events": "events of a chunk, each on another account; default 2",
    "questions": "questions at the end, default 2",
    "ask_each": "ask after every chunk",
    "max_amount": "largest amount of an event, default 9",
    "max_balance": "largest balance, default 40",
    "skew": "how much more often an account moves than the next one, default 2",
    "names": "account names, as ann,bob,cat",
}


@dataclass(frozen=True, slots=True)
class LedgerStream(Stream):
    """Ledgers by number, each computed when it is asked for."""

    spec: LedgerSpec
    split: str
    seed: int
    length: int
    what: ClassVar[str] = "ledger"

    def at(self, position: int) -> Example:
        return draw_ledger(self.spec, self.split, self.seed, position)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Implements `tasks.base.Task`. Options are the fields of `LedgerSpec`."""

    name: str = "ledger"
    summary: str = "generated ledgers read in chunks, questions about balances at the end (needs chain.kind)"
    prompt_kind: PromptKind = "reasoning"
    answer_type: AnswerType = "number"
    default_cot_tokens: int = 32
    max_answer_tokens: int = 6
    extractors: tuple[str, ...] = DEFAULT_EXTRACTORS["number"]
    splits: tuple[str, ...] = ("train", "dev", "test")
    hub: HubSource | None = None
    licence: str = "generated"

    @property
    def option_help(self) -> Mapping[str, str]:
        """Option -> what it does."""
        return _OPTIONS

    def configured(self, options: Mapping[str, Any]) -> Ledger:
        """This task, its options checked. UserError on an unknown or impossible one."""
        spec_from(options)
        return self

    def load(self, request: LoadRequest) -> Loaded:
        """Endless training ledgers, or the first `limit` (default 100 dev, 200 test) held-out ones. A split has a stream of its own."""
        if request.data is not None:
            raise UserError(f"{request.data}: ledgers are generated; leave --data out")
        check_request(self.name, self.splits, request)
        spec = spec_from(request.options)
        if request.split == "train":
            return Loaded(LedgerStream(spec, "train", request.seed, request.limit or ENDLESS))
        wanted = HELD_OUT_SIZE[request.split] if request.limit is None else request.limit
        return Loaded(list(LedgerStream(spec, request.split, HELD_OUT_SEED, wanted)))


def spec_from(options: Mapping[str, Any]) -> LedgerSpec:
    """The ledgers that task options describe. UserError on an unknown or impossible option."""
    check_options("ledger", options, _OPTIONS)
    given = dict(options)
    try:
        for name, value in given.items():
            _check_type(name, value)
        if "names" in given:
            given["names"] = tuple(name.strip() for name in given["names"].split(",") if name.strip())
        return LedgerSpec(**given)
    except ValueError as error:
        raise UserError(f"task ledger: option {error}") from error


def _check_type(name: str, value: Any) -> None:
    kinds: dict[str, tuple[type, ...]] = {"ask_each": (bool,), "names": (str,), "skew": (int, float)}
    wanted = kinds.get(name, (int,))
    if type(value) not in wanted and not (name == "min_chunks" and value is None):
        raise ValueError(f"{name}: must be {' or '.join(kind.__name__ for kind in wanted)}, got {value!r}")


TASK = Ledger()
