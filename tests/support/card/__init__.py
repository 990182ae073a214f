"""A GPU that is not there: tensors that say `cuda:0`, are computed on the CPU, and refuse the company of CPU tensors as CUDA's do.

    PYTHONPATH=src:tests python -m pytest -p support.card tests/evaluation        # any tests, with `cpu` and `auto` taken for the card

What it shows is that the code never mixes devices, never leaves a tensor behind and takes the branches of a GPU: its numbers are those
of the CPU. Kernels, streams, memory and speed are not shown, nor a CUDA graph: a step is warmed up as for one and then run as it is.
The trick needs a C++ compiler, and has to be imported before torch.
"""

# ruff: noqa: E402 (torch comes after what it must find)
from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

COMPILER = shutil.which("g++") or shutil.which("clang++")


def _prepare() -> None:
    """torch remembers what it found of CUDA when it first asked: the pretence must be there before."""
    if "torch" in sys.modules:
        raise ImportError("support.card must be imported before torch")
    spec = importlib.util.find_spec("torch")
    if COMPILER is None or spec is None or not spec.submodule_search_locations:
        raise ImportError("support.card needs torch and a C++ compiler")
    torch = Path(spec.submodule_search_locations[0])
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "guard.so"
        places = [f"-I{torch / 'include'}", f"-L{torch / 'lib'}", f"-Wl,-rpath,{torch / 'lib'}"]
        flags = ["-O1", "-std=c++20", "-fPIC", "-shared", "-w", *places, "-ltorch_cpu", "-lc10"]
        subprocess.run([COMPILER, str(Path(__file__).with_name("guard.cpp")), *flags, "-o", str(library)], check=True)
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


_prepare()

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CARD = torch.device("cuda:0")
# take what lies elsewhere: copies, and indices that the host has made
_MIXED = frozenset(
    f"aten::{name}" for name in ("copy_", "_to_copy", "set_", "index", "index_put", "index_put_", "_index_put_impl_")
)


class OnCard(Tensor):
    """Says `cuda:0`; `held` is the tensor on the CPU that it is."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> OnCard:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=CARD
        )
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnCard({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _off(value: Any) -> Any:
    return value.held if isinstance(value, OnCard) else value


def _is_card(device: Any) -> bool:
    return device is not None and not isinstance(device, int) and torch.device(device).type == "cuda"


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation on the CPU, its results where a GPU would have them. RuntimeError where it would be asked to mix devices."""
    given = {name: value for name, value in kwargs.items() if name != "device"}
    device, name = kwargs.get("device"), func._schema.name
    tensors = [value for value in tree_leaves((args, given)) if isinstance(value, Tensor)]
    ours = [value for value in tensors if isinstance(value, OnCard)]
    if ours and name not in _MIXED and any(not isinstance(value, OnCard) and value.ndim for value in tensors):
        shapes = ", ".join(f"{tuple(value.shape)} on {value.device}" for value in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device: {name} of {shapes}")
    if not ours and not _is_card(device):
        return func(*args, **kwargs)
    if name == "aten::_fused_sdp_choice":
        return 0
    out = func(*tree_map(_off, args), **tree_map(_off, given))
    if name == "aten::copy_" and not isinstance(args[0], OnCard):
        return args[0]
    before = {id(value.held): value for value in ours}
    there = bool(ours) if device is None else _is_card(device)

    def back(value: Any) -> Any:
        if not there or not isinstance(value, Tensor) or isinstance(value, OnCard):
            return value
        return before[id(value)] if id(value) in before else OnCard(value)

    return tree_map(back, out)


class _ToCard(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return OnCard(x.detach())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return _off(grad)


class _FromCard(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: OnCard) -> Tensor:
        return x.held.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return OnCard(grad)


def on_card(x: Tensor) -> Tensor:
    """`x.to("cuda")`."""
    if isinstance(x, OnCard):
        return x
    if x.requires_grad and not x.is_leaf:
        return _ToCard.apply(x)  # type: ignore[return-value]
    return OnCard(x.detach()).requires_grad_(x.requires_grad)


def _to(x: Tensor, *args: Any, device: Any = None, dtype: torch.dtype | None = None, copy: bool = False, **_: Any) -> Tensor:
    """`x.to(...)` in all its forms."""
    for value in args:
        if isinstance(value, str | torch.device):
            device = value
        elif isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, Tensor):
            device, dtype = value.device, value.dtype
    if dtype is not None and dtype != x.dtype:
        x = Tensor.to(x, dtype)
    elif copy:
        x = x.clone()
    if device is None:
        return x
    if _is_card(device):
        return on_card(x)
    return _FromCard.apply(x) if isinstance(x, OnCard) else Tensor.to(x, device)  # type: ignore[return-value]


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """What torch would choose a kernel of the device for: those sum in float32 at least."""
    wide, narrow = torch.promote_types(query.dtype, torch.float32), query.dtype
    query, key, value = (states.to(wide) for states in (query, key, value))
    if enable_gqa:
        key, value = (states.repeat_interleave(query.shape[1] // states.shape[1], 1) for states in (key, value))
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = on_card(torch.ones(scores.shape[-2:], dtype=torch.bool).tril())
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float("-inf")) if attn_mask.dtype == torch.bool else scores + attn_mask
    seen = torch.isfinite(scores).any(-1, keepdim=True)
    return (scores.softmax(-1).masked_fill(~seen, 0.0) @ value).to(narrow)


class _Operations(TorchDispatchMode):
    """For what C++ makes on the card without a tensor of it, as the zeros of a gradient."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """For what Python asks of the card before any operation: torch would look for its driver."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if args and isinstance(args[0], OnCard):
            if name in ("tolist", "item"):
                return getattr(args[0].held, name)()
            if name in ("numpy", "__array__"):
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
            if name == "scaled_dot_product_attention":
                return _attention(*args, **kwargs)
            if name == "new_tensor":
                return on_card(torch.tensor(args[1], dtype=kwargs.get("dtype") or args[0].dtype))
            if func == Tensor.data.__set__:  # type: ignore[attr-defined]
                func(*args)  # the type
                args[0].held = args[1].held
                return None
            if name in ("__getitem__", "__setitem__"):
                places = args[1] if isinstance(args[1], tuple) else (args[1],)
                places = tuple(on_card(torch.tensor(place)) if isinstance(place, list) else place for place in places)
                return func(args[0], places, *args[2:])
        if name in ("to", "cuda", "cpu") and isinstance(args[0], Tensor):
            where = {"to": (), "cuda": (CARD,), "cpu": ("cpu",)}[name]
            return _to(*args, *where, **kwargs)
        if name != "device" and _is_card(kwargs.get("device")):
            out = func(*map(_off, args), **{**kwargs, "device": "cpu"})
            return on_card(out) if isinstance(out, Tensor) else out
        return func(*args, **kwargs)


@contextlib.contextmanager
def pretended() -> Iterator[None]:
    """Within, `cuda` is the card that is not there."""
    with contextlib.ExitStack() as stack:
        for target, name, value in _replacements():
            stack.enter_context(mock.patch.object(target, name, value))
        stack.enter_context(_Operations())
        stack.enter_context(_Calls())
        yield


def _replacements() -> Iterator[tuple[Any, str, Any]]:
    """What asks a driver, or looks into memory that is not there."""
    import peft.peft_model
    import peft.utils.save_and_load
    import safetensors.torch

    from markovlm.rollouts import static

    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats", "manual_seed_all"):
        yield torch.cuda, name, lambda *_, **__: None
    yield torch.cuda, "get_device_name", lambda *_: "a card that is not there"
    yield torch.cuda, "max_memory_allocated", lambda *_: 0
    yield static, "as_cuda_graph", _warmed_up
    yield torch.autograd, "_engine_run_backward", functools.partial(_backward, torch.autograd._engine_run_backward)  # type: ignore[attr-defined]
    save, load, pickle = safetensors.torch.save_file, peft.utils.save_and_load.safe_load_file, torch.save
    yield peft.peft_model, "id_tensor_storage", lambda x: (x.device, _off(x).untyped_storage().data_ptr(), x.numel())
    for module, name in ((peft.peft_model, "safe_save_file"), (safetensors.torch, "save_file")):
        yield module, name, lambda tensors, *a, **k: save({n: _off(x).contiguous() for n, x in tensors.items()}, *a, **k)
    yield (
        peft.utils.save_and_load,
        "safe_load_file",
        lambda path, device="cpu": {n: _to(x, device) for n, x in load(path).items()},
    )
    yield torch, "save", lambda value, *a, **k: pickle(tree_map(_off, value), *a, **k)
    # parameters are replaced, not filled: what they are made of here can't be exchanged inside them
    yield torch.__future__, "_overwrite_module_params_on_conversion", True


def _backward(run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """In this thread, and with what Python asks of the card: checkpointing runs layers in it."""
    with torch.autograd.set_multithreading_enabled(False), _Calls():
        return run(*args, **kwargs)


def _warmed_up(device: torch.device, step: Callable[[], None]) -> Callable[[], None]:
    step()
    step()
    return step


# ------------------------------------------------------------------------------------------------------- a plug-in of pytest


@contextlib.contextmanager
def _everything_on_it() -> Iterator[None]:
    """Configurations that say `cpu` or `auto` get the card."""
    from markovlm.models import load

    usual = load.pick_device
    with pretended(), mock.patch.object(load, "pick_device", lambda name: CARD if name in ("cpu", "auto") else usual(name)):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, Any, Any]:
    with _everything_on_it():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    with _everything_on_it():
        return (yield)
