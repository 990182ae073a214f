"""Examples by number, each computed when it is asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, overload

from markovlm.tasks.base import Example

ENDLESS = 1_000_000_000  # what len() says of a training stream; a generator repeats a question long before that


class Stream(Sequence[Example]):
    """A list as long as `length` says, of which nothing is kept. Subclasses say how the example of a position is drawn."""

    __slots__ = ()
    length: int
    what: ClassVar[str] = "training question"  # for the IndexError

    @abstractmethod
    def at(self, position: int) -> Example:
        """The example at 0 <= position < length."""

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.length))]
        position = index + self.length if index < 0 else index
        if not 0 <= position < self.length:
            raise IndexError(f"{self.what} {index} of {self.length}")
        return self.at(position)
