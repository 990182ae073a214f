"""Decoding with a static cache: each token is the same operations on the same memory, so that they can be recorded once (a CUDA graph).

A decoding loop in Python spends longer on launching operations than the GPU on computing them (docs/performance.md). Here the cache has
`columns` for each of `rows`, a row's next token goes where its own text ends, and what lies behind is hidden; nothing in a step
depends on a number that the host knows, and nothing waits for the device. Rows are filled and emptied between steps.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.cache_utils import Cache, CacheLayerMixin

from markovlm.models.caches import keeps_all
from markovlm.models.language import LanguageModel
from markovlm.models.memory import is_out_of_memory, on_release
from markovlm.models.probes import FORGETS, near, once_tried, works
from markovlm.models.sequences import Prefilled, prefill
from markovlm.rollouts.fronts import start

COLUMNS = 128  # columns are made in steps of so many: a shape is recorded once for prompts of about one length
_COARSE = 64  # rows under which steps are longer, up to fourfold: few rows cost little in a long cache, and are recorded as seldom as many
Step = Callable[[], None]
READS = frozenset(
    ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2")
)  # operations the host waits for
_ATTENTION = ("sdpa", "eager")  # those that take a mask of four dimensions


class NoReads(TorchDispatchMode):
    """Refuses what can't be recorded: a number that the host waits for, as of experts that are called by how many tokens want them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        if name in READS:
            raise RuntimeError(f"{name} reads from the device inside a step")
        return func(*args, **(kwargs or {}))


class FixedLayer(CacheLayerMixin):
    """Keys and values [R, heads, C, D] of one layer; the token of row r goes to column `place[r]`."""

    is_sliding = False
    is_compileable = True

    def __init__(self, keys: Tensor, values: Tensor, rows: int, columns: int, place: Tensor):
        super().__init__()
        made = [states.new_zeros(rows, states.shape[1], columns, states.shape[3]) for states in (keys, values)]
        self.held = self.keys, self.values = made[0], made[1]
        self.columns, self.place, self.is_initialized = columns, place, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None: ...

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        for held, states in zip(self.held, (key_states, value_states), strict=True):
            held.scatter_(2, self.place[:, None, None, None].expand(-1, states.shape[1], 1, states.shape[3]), states)
        return self.held

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.columns, 0

    def get_seq_length(self) -> int:
        return 0  # of each row another one: masks and positions are given to the model

    def get_max_length(self) -> int:
        return self.columns


def shape_for(rows: int, columns: int) -> tuple[int, int]:
    """The shape in which `rows` texts of at most `columns` tokens are decoded.

    It depends on nothing else, so that rounding, which differs between shapes, is the same when a run is resumed.
    """
    power = 1 << (rows - 1).bit_length()
    rows = 3 * power // 4 if rows <= 3 * power // 4 else power  # 1, 2, 3, 4, 6, 8, 12, 16, ...
    step = COLUMNS * max(1, min(4, _COARSE // rows))
    return rows, -(-columns // step) * step


class Slots:
    """The memory of R rows of C columns, and the recorded step on it."""

    def __init__(self, lm: LanguageModel, rows: int, columns: int, like: Any, record: Callable[[Step], Step]):
        device = lm.device
        self.rows, self.columns = rows, columns
        self.ids = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.position = torch.zeros(rows, dtype=torch.long, device=device)  # of the token that comes next; its column, too
        self.hidden = torch.zeros(rows, lm.causal_lm.get_output_embeddings().weight.shape[1], dtype=lm.dtype, device=device)
        self.layers = [FixedLayer(layer.keys, layer.values, rows, columns, self.position) for layer in like.layers]
        cache = Cache(layers=[*self.layers])
        last = min(columns, lm.context_tokens) - 1
        # a recorded step knows where its tensors lie, and keeps none of them: all that it reads is held here
        self.column = torch.arange(columns, device=device)
        self.out_of_sight = torch.full((), torch.finfo(lm.dtype).min, dtype=lm.dtype, device=device)
        self.in_sight = torch.zeros((), dtype=lm.dtype, device=device)

        def step() -> None:
            mask = torch.where(self.column <= self.position[:, None], self.in_sight, self.out_of_sight)[:, None, None]
            states = lm.decode(
                self.ids, attention_mask=mask, position_ids=self.position[:, None], past_key_values=cache, use_cache=True
            )
            self.hidden.copy_(states.last_hidden_state[:, -1])
            self.position.add_(1).clamp_(max=last)  # rows without a text stay within bounds

        self.step = record(step)

    def select(self, index: Tensor) -> None:
        """Rows `index` take the first places, each as it is now."""
        count = len(index)
        for layer in self.layers:
            for held in layer.held:
                held[:count] = held.index_select(0, index)
        self.position[:count] = self.position[index]
        self.hidden[:count] = self.hidden[index]

    def fill(self, first: int, fresh: Prefilled) -> None:
        """Prompts that were computed side by side, padded on the left, from row `first` on: each from its own first column."""
        rows, width = fresh.mask.shape
        place = slice(first, first + rows)
        source = (torch.arange(width, device=fresh.lengths.device) + (width - fresh.lengths)[:, None]).clamp(max=width - 1)
        for layer, made in zip(self.layers, fresh.cache.layers, strict=True):
            for held, states in zip(layer.held, (made.keys, made.values), strict=True):
                held[place, :, :width] = torch.take_along_dim(states, source[:, None, :, None], 2)
        self.position[place] = fresh.lengths
        self.hidden[place] = fresh.last_hidden


class StaticFront:
    """A `Front` in the first rows of the slots."""

    def __init__(self, lm: LanguageModel, slots: Slots, fresh: Prefilled):
        self.lm, self.slots, self.count, self.open = lm, slots, 0, True
        self._fill(fresh)

    @property
    def hidden(self) -> Tensor:
        return self.slots.hidden[: self.count]

    def advance(self, token: Tensor) -> None:
        self.slots.ids[: self.count, 0] = token
        self.slots.step()

    def keep(self, rows: Sequence[int]) -> None:
        if [*rows] != [*range(len(rows))]:
            self.slots.select(torch.tensor(rows, device=self.lm.device))
        self.count = len(rows)

    def join(self, prompts: Sequence[tuple[int, ...]]) -> None:
        self._fill(prefill(self.lm, prompts))

    def _fill(self, fresh: Prefilled) -> None:
        self.slots.fill(self.count, fresh)
        self.count += len(fresh.lengths)


class StaticDecoder:
    """Makes the fronts of a model, and keeps the shape that was last recorded."""

    def __init__(self, lm: LanguageModel, record: Callable[[Step], Step] | None = None):
        self.lm = lm
        self.record = record or (functools.partial(as_cuda_graph, lm.device) if lm.device.type == "cuda" else _as_it_is)
        self._kept: tuple[tuple[Any, ...], Slots] | None = None
        on_release(self)

    def start(self, prompts: Sequence[tuple[int, ...]], rows: int, columns: int) -> StaticFront:
        """The prompts in a shape for `rows` texts of at most `columns` tokens."""
        fresh = prefill(self.lm, prompts)
        return StaticFront(self.lm, self._slots(rows, columns, fresh.cache), fresh)

    def release(self) -> None:
        """Free the memory; the next front records again."""
        if self._kept is not None:
            self._kept[1].step = _gone  # what is not recorded holds the slots, and they it
        self._kept = None

    def _slots(self, rows: int, columns: int, like: Any) -> Slots:
        """Recorded anew where another shape is needed, or weights lie elsewhere than they did."""
        shape = shape_for(rows, columns)
        policy = (self.lm.adapter_on, *(weight.data_ptr() for weight in self.lm.causal_lm.parameters()))
        if self._kept is not None and self._kept[0] == policy:
            slots = self._kept[1]
            if (slots.rows, slots.columns) == shape:
                return slots
        self.release()  # before the next is made
        slots = Slots(self.lm, *shape, like, self.record)
        self._kept = (policy, slots)
        return slots


def as_cuda_graph(device: torch.device, step: Step) -> Step:
    """`step` recorded once, to be replayed: no Python, one launch. Returns `step` itself, with a warning, if it can't be recorded."""
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):  # whatever happens, that stream again
        beside = _beside(torch.cuda.current_device())
        beside.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(beside):
                step()  # kernels are chosen and workspaces made before anything is recorded
                _without_waiting(step)
            torch.cuda.current_stream().wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
            warnings.warn(
                f"decoding without a CUDA graph, several times slower ({reason:.160}); rollouts.static_cache=off", stacklevel=2
            )
            return step
    return graph.replay


@functools.cache
def _beside(index: int) -> torch.cuda.Stream:
    """One stream a device: the libraries keep a workspace for each."""
    return torch.cuda.Stream(index)


def _without_waiting(step: Step) -> None:
    """RuntimeError where the host would wait for the device: known before a recording is broken by it."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _gone() -> None:
    raise RuntimeError("the memory of this front was given back")


def _as_it_is(step: Step) -> Step:
    return step


def decodes_in_one_shape(lm: LanguageModel) -> bool:
    """Whether `lm` can be decoded so: full attention, a cache that keeps everything, fixed weights; its states are tested."""
    attention = lm.causal_lm.config.get_text_config()._attn_implementation
    if lm.caching != "padded" or lm.shards is not None or lm.quantization != "none" or attention not in _ATTENTION:
        return False
    return once_tried(lm, _in_one_shape)


@torch.no_grad()
def _in_one_shape(lm: LanguageModel) -> bool:
    """Two prompts and three tokens behind them, against the cache that grows."""
    prompts = [tuple(i % lm.vocabulary for i in prompt) for prompt in ((1, 2, 3, 4, 5), (3, 1))]

    def attempt() -> bool:
        if not keeps_all(prefill(lm, prompts).cache):
            raise ValueError(FORGETS)
        ours, theirs = StaticDecoder(lm, _as_it_is).start(prompts, 3, 9), start(lm, prompts)
        for token in (4, 2, 5):
            tokens = torch.full((2,), token % lm.vocabulary, device=lm.device)
            theirs.advance(tokens)
            with NoReads():
                ours.advance(tokens)
            if not near(lm, lm.logits(ours.hidden), lm.logits(theirs.hidden)):
                return False
        return True

    return works(lm, "decoding in one shape", attempt)
