"""Ledgers: events over chunks (`ann+3 bob-2`) and questions about accounts (`bob?`). Standard library only.

A ledger is a pure function of (split, seed, number), so that a training stream is endless and needs no state.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from markovlm.tasks.chain import ChainExample, Query, chain_example

NAMES = ("ann", "bob", "cat", "dan", "eve", "fay", "gus", "hal", "ida", "joe", "kim", "leo", "mia", "ned", "ola", "pam")
Balances = dict[str, int]  # account -> balance, in the order in which accounts were opened


@dataclass(frozen=True, slots=True)
class Event:
    """`ann+3`"""

    name: str
    amount: int  # not 0

    def __str__(self) -> str:
        return f"{self.name}{self.amount:+d}"


@dataclass(frozen=True, slots=True)
class LedgerSpec:
    """Which ledgers are drawn: `min_chunks` to `chunks` chunks of `events` events each on `accounts` accounts.

    A chunk names an account at most once. Balances stay in 0..`max_balance`. The busiest account has about `skew` times the
    events of the next one and so on, so that facts of every age are asked for.
    """

    chunks: int = 4
    min_chunks: int | None = None  # None: every ledger has `chunks` chunks
    accounts: int = 4
    events: int = 2
    questions: int = 2  # asked after the last chunk, or with `ask_each` after every one
    ask_each: bool = False
    max_amount: int = 9
    max_balance: int = 40
    skew: float = 2.0
    names: tuple[str, ...] = NAMES

    def __post_init__(self) -> None:
        self._require(self.chunks >= 1, "chunks", "must be at least 1", self.chunks)
        fewest = self.min_chunks
        self._require(fewest is None or 1 <= fewest <= self.chunks, "min_chunks", f"must be in 1..{self.chunks}", fewest)
        self._require(len(set(self.names)) == len(self.names), "names", "must differ", self.names)
        plain = all(name.isalpha() for name in self.names)
        self._require(plain, "names", "must consist of letters only (`ann+3` is parsed)", self.names)
        self._require(
            1 <= self.accounts <= len(self.names), "accounts", f"must be in 1..{len(self.names)}, one per name", self.accounts
        )
        self._require(1 <= self.events <= self.accounts, "events", f"must be in 1..accounts ({self.accounts})", self.events)
        self._require(self.questions >= 1, "questions", "must be at least 1", self.questions)
        self._require(self.max_amount >= 1, "max_amount", "must be at least 1", self.max_amount)
        lowest = f"must be at least twice max_amount ({self.max_amount})"
        self._require(self.max_balance >= 2 * self.max_amount, "max_balance", lowest, self.max_balance)
        self._require(self.skew >= 1, "skew", "must be at least 1", self.skew)

    @staticmethod
    def _require(holds: bool, field: str, wanted: str, value: object) -> None:
        if not holds:
            raise ValueError(f"{field}: {wanted}, got {value!r}")


def draw_ledger(spec: LedgerSpec, split: str, seed: int, number: int) -> ChainExample:
    """Ledger `number` of an endless stream."""
    rng = random.Random(f"ledger:{split}:{seed}:{number}")
    names = rng.sample(spec.names, spec.accounts)
    busy = {name: spec.skew**-rank for rank, name in enumerate(names)}
    length = spec.chunks if spec.min_chunks is None else rng.randint(spec.min_chunks, spec.chunks)
    balances: Balances = {}
    changed: dict[str, int] = {}
    chunks: list[str] = []
    queries: list[Query] = []
    for at in range(1, length + 1):
        events = [_event(rng, name, balances.get(name, 0), spec) for name in _pick(rng, busy, spec.events)]
        balances = after(balances, events)
        changed |= {event.name: at for event in events}
        chunks.append(" ".join(map(str, events)))
        if spec.ask_each or at == length:
            asked = rng.sample(sorted(balances), min(spec.questions, len(balances)))
            queries += [Query(f"{name}?", str(balances[name]), at, changed[name]) for name in asked]
    return chain_example(f"ledger/{split}/{seed}-{number}", tuple(chunks), tuple(queries), " ")


def after(balances: Mapping[str, int], events: list[Event]) -> Balances:
    """The balances after these events; an account that isn't open yet starts at 0."""
    new = dict(balances)
    for event in events:
        new[event.name] = new.get(event.name, 0) + event.amount
    return new


def notes(balances: Mapping[str, int]) -> str:
    """The notes that keep everything: `ann=15 bob=7`."""
    return " ".join(f"{name}={balance}" for name, balance in balances.items())


def _pick(rng: random.Random, busy: Mapping[str, float], count: int) -> list[str]:
    """`count` different names, drawn one after another by their weights."""
    left, picked = dict(busy), list[str]()
    for _ in range(count):
        name = rng.choices(list(left), list(left.values()))[0]
        picked.append(name)
        del left[name]
    return picked


def _event(rng: random.Random, name: str, balance: int, spec: LedgerSpec) -> Event:
    amount = rng.randint(1, spec.max_amount)
    up = balance + amount <= spec.max_balance and (balance - amount < 0 or rng.random() < 0.6)
    return Event(name, amount if up else -amount)
