"""Ledgers in chunks with questions at the end: an endless stream to train on, fixed lists to evaluate on."""

from __future__ import annotations

from typing import Any

from markovlm.tasks.arithmetic_data import Split
from markovlm.tasks.base import Loaded
from markovlm.tasks.generated import HELD_OUT_SEED, DrawnTask
from markovlm.tasks.ledger_data import LedgerSpec, draw_ledger


def _spec(**options: Any) -> LedgerSpec:
    """The ledgers that task options describe; `names` are joined by commas."""
    for name, value in options.items():
        _check_type(name, value)
    if "names" in options:
        options["names"] = tuple(name.strip() for name in options["names"].split(",") if name.strip())
    return LedgerSpec(**options)


def _check_type(name: str, value: Any) -> None:
    kinds: dict[str, tuple[type, ...]] = {"ask_each": (bool,), "names": (str,), "skew": (int, float)}
    wanted = kinds.get(name, (int,))
    if type(value) not in wanted and not (name == "min_chunks" and value is None):
        raise ValueError(f"{name}: must be {' or '.join(kind.__name__ for kind in wanted)}, got {value!r}")


def _held_out(spec: LedgerSpec, split: Split, wanted: int, _asked: bool) -> Loaded:
    return Loaded([draw_ledger(spec, split, HELD_OUT_SEED, number) for number in range(wanted)])


TASK = DrawnTask(
    "ledger",
    "generated ledgers read in chunks, questions about balances at the end (needs chain.kind)",
    default_cot_tokens=32,
    max_answer_tokens=6,
    spec=_spec,
    option_help={
        "chunks": "chunks of a ledger, default 4",
        "min_chunks": "fewest chunks; default: the value of chunks",
        "accounts": "accounts of a ledger, default 4",
        "events": "events in a chunk, each on a different account; default 2",
        "questions": "questions at the end, default 2",
        "ask_each": "ask after every chunk",
        "max_amount": "largest amount of an event, default 9",
        "max_balance": "largest balance, default 40",
        "skew": "how much more often an account is used than the next one, default 2",
        "names": "account names, such as ann,bob,cat",
    },
    draw=draw_ledger,
    held_out=_held_out,
    sizes={"dev": 100, "test": 200},
)
