"""Loading a user's file that registers things (`--plugin path/to/file.py`), and checking what plug-ins return."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markovlm.errors import MarkovlmError, UserError
from markovlm.registry import ALL, OURS, Registry

if TYPE_CHECKING:
    from torch import Tensor

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # as `models.memory`, which imports torch, knows it
_log = logging.getLogger(__name__)

_loaded: dict[Path, str] = {}  # file -> name of its module


def load_plugin(path: str | Path) -> Path:
    """Run a Python file once; what it registers is known from then on. Returns its absolute path.

    Raises UserError in one line if the file does not exist, fails to import (nothing of it stays registered), or uses a taken name.
    """
    file = _place(path)
    if file in _loaded:
        return file
    if not file.is_file():
        raise UserError(f"--plugin {path}: no such file; name a Python file that registers something")
    before = [set(registry) for registry in ALL]
    name = f"markovlm_plugin_{hashlib.blake2b(str(file).encode(), digest_size=6).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"--plugin {path}: is not a Python file (*.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        for registry, known in zip(ALL, before, strict=True):
            registry.remove(set(registry) - known)
        if isinstance(error, UserError):
            raise UserError(f"--plugin {path}: {error}") from None
        if not isinstance(error, Exception):
            raise
        raise UserError(
            f"--plugin {path}{_line_of(error, file)}: {' '.join(f'{type(error).__name__}: {error}'.split()):.200}"
        ) from error
    _loaded[file] = name
    return file


def is_loaded(path: str | Path) -> bool:
    """Whether this file has been loaded."""
    return _place(path) in _loaded


def _place(path: str | Path) -> Path:
    return Path(os.path.realpath(Path(path).expanduser()))  # Path.resolve raises for a link that loops


def loaded_plugins() -> tuple[str, ...]:
    """Absolute paths of the loaded files, in the order in which they were loaded."""
    return tuple(map(str, _loaded))


def named(registry: Registry[Any], name: str) -> str:
    """`reward 'brief' (from brief.py)`, the beginning of messages about a plug-in."""
    return f"{registry.kind} {name!r}" + (f" (from {registry.source(name)})" if name in registry else "")


def is_plugin(registry: Registry[Any], name: str) -> bool:
    """Whether the thing of this name comes from outside the package."""
    return name in registry and registry.source(name) != OURS


@contextlib.contextmanager
def calling(registry: Registry[Any], name: str, what: str) -> Iterator[None]:
    """A context for a call of a plug-in's code: an exception becomes a UserError with the plug-in, its method `what` and the line.

    Running out of memory passes through, since a smaller batch is tried then; so does whatever our own code raises.
    """
    try:
        yield
    except (MarkovlmError, MemoryError):
        raise
    except Exception as error:  # somebody else's code: it may raise anything
        if not is_plugin(registry, name) or any(words in str(error).lower() for words in _OUT_OF_MEMORY):
            raise
        _log.debug("traceback of %s", named(registry, name), exc_info=error)
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{named(registry, name)}: {what} raised {said:.200}{_place_of(error, registry.source(name))}") from error


def _place_of(error: BaseException, source: str) -> str:
    """` (mine.py:7; …)`: the innermost line of the file `source`, or of whatever file it was."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if Path(frame.filename).name == source] or frames
    place = f"{Path(inside[-1].filename).name}:{inside[-1].lineno}; " if inside else ""
    return f" ({place}MARKOVLM_LOG=debug shows the traceback)"


def require_tensor(
    made: object, shape: Sequence[int], registry: Registry[Any], name: str, what: str, *, boolean: bool = False
) -> Tensor:
    """What the thing `name` returned as `what`. Raises UserError unless it is a tensor of this shape (and kind).

    Its values are not looked at, so this does not wait for the device.
    """
    import torch

    needed = f"it must be a {'boolean ' if boolean else ''}tensor of shape {list(shape)}"
    if not isinstance(made, torch.Tensor):
        raise UserError(f"{named(registry, name)}: {what} is {type(made).__name__}; {needed}")
    if made.shape != torch.Size(shape):
        raise UserError(f"{named(registry, name)}: {what} has shape {list(made.shape)}; {needed}")
    if boolean and made.dtype != torch.bool:
        raise UserError(f"{named(registry, name)}: {what} is of {str(made.dtype).removeprefix('torch.')}; {needed}")
    return made


def _line_of(error: BaseException, file: Path) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f":{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    return f":{lines[-1]}" if lines else ""
