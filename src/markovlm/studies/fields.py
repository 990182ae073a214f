"""Fields of a record that we write, and read without trusting the file.

The same models serve both ways. Where a result is written (no context), a key that its model does not declare or a value of another kind is
an error: writer and reader can't part. Where a file is read, the context counts its problems: what is wrong is left missing and counted,
so that an old, damaged or hostile file fails nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    model_validator,
)

from markovlm.content import one_line

MAX_TEXT = 8_000  # characters of one text
MAX_ROWS = 1_000  # of one list
_LARGEST = 1e6  # no number of a study is larger

Problems = Counter[str]


def _wrong(info: ValidationInfo, what: str, times: int = 1) -> None:
    """Raises ValueError if a result is written; counted where a file is read."""
    told: Problems | None = info.context
    if told is None:
        raise ValueError(what)
    if times:
        told[f"{info.field_name}: {what}"] += times


def _only(right: Callable[[Any], bool], what: str) -> BeforeValidator:
    """What is not right is missing."""
    return BeforeValidator(lambda value, info: value if value is None or right(value) else _wrong(info, f"{what}, left missing"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST  # NaN is not <= either


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53 and value == int(value)


def bounded(value: Any, most: int = MAX_TEXT) -> str:
    """A text of bounded length that any output can hold; nothing for a value that is not text."""
    if value is None or isinstance(value, dict | list):
        return ""
    value = value if isinstance(value, str) else str(value)
    if len(value) > most:
        value = f"{value[:most]} … [{len(value) - most:,} more characters]"
    return value.encode("utf-8", "replace").decode("utf-8")


def label_of(value: Any) -> str:
    """A short text without control characters (an SVG that has one is no XML)."""
    return one_line(bounded(value, 80))


def _text(shown: Callable[[Any], str]) -> BeforeValidator:
    """Written as it is, read as it can be shown."""
    return BeforeValidator(lambda value, info: shown(value) if info.context is not None else "" if value is None else value)


def _notes(value: Any) -> tuple[str, ...]:
    return tuple(bounded(one, 300) for one in value[:5]) if isinstance(value, list | tuple) else ()


def _counts(value: Any) -> dict[str, int]:
    known = list(value.items())[:10] if isinstance(value, Mapping) else []
    return {label_of(name): int(count) for name, count in known if _is_count(count)}


def _part(value: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
    """The object under a key; one of which nothing is known where there is none."""
    if not (value is None or isinstance(value, Mapping | BaseModel)):
        value = _wrong(info, "not an object")
    return handler({} if value is None else value)


def listed(most: int = MAX_ROWS) -> WrapValidator:
    """Records in a list, at most `most`; those that lack what they need are left out."""

    def read(value: Any, handler: Callable[[Any], tuple[Any, ...]], info: ValidationInfo) -> tuple[Any, ...]:
        if info.context is None:
            return handler(value or ())
        if not isinstance(value, list):
            _wrong(info, "not a list", value is not None)
            return ()
        if len(value) > most:
            _wrong(info, f"{len(value):,} entries; only the first {most:,} are shown")
        rows = [row for row in value[:most] if isinstance(row, Mapping)]
        _wrong(info, "an entry that is not an object", len(value[:most]) - len(rows))
        return tuple(one for row in rows for one in readable(row, handler))

    def readable(row: Any, handler: Callable[[Any], tuple[Any, ...]]) -> tuple[Any, ...]:
        try:
            return handler((row,))
        except ValidationError:
            return ()

    return WrapValidator(read)


Number = Annotated[float | None, _only(_is_number, "not a finite number of plausible size")]
Share = Annotated[float | None, _only(_is_share, "not a number from 0 to 1")]
Count = Annotated[int | None, _only(_is_count, "not a count")]
Truth = Annotated[bool | None, _only(lambda value: isinstance(value, bool), "neither true nor false")]
Step = Annotated[int, BeforeValidator(lambda value: int(value) if _is_count(value) else 0)]
Text = Annotated[str, _text(bounded)]
Short = Annotated[str, _text(lambda value: bounded(value, 1_000))]
Label = Annotated[str, _text(label_of)]
Named = Annotated[str, _text(lambda value: label_of(value) or "?")]
Counts = Annotated[dict[str, int], BeforeValidator(_counts)]  # by name
Notes = Annotated[tuple[str, ...], BeforeValidator(_notes)]
Place = Annotated[float, Field(ge=0, le=1)]  # a row without it is left out; so of the next
Whole = Annotated[int, Field(strict=True, ge=-(2**53), le=2**53)]
PART, LIST = WrapValidator(_part), listed()


class Record(BaseModel):
    """A JSON object, every key of which may be missing in a file, but for those without which it is nothing.

    `also` are keys that are written for users' programs and not read here; `results` those of which one must hold something.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)
    also: ClassVar[tuple[str, ...]] = ()
    results: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _declared(cls, row: Any, info: ValidationInfo) -> Any:
        if info.context is None and isinstance(row, Mapping):
            aliases = {str(field.alias) for field in cls.model_fields.values()}
            if unknown := sorted(map(str, row.keys() - cls.model_fields.keys() - aliases - {*cls.also})):
                raise ValueError(f"{cls.__name__} does not declare {', '.join(unknown)}")
        return row

    def __bool__(self) -> bool:
        """Whether there is anything to show."""
        return any(getattr(self, name) for name in self.results) if self.results else True


class Estimate(Record):
    """A mean with its 95 % interval. Without the interval it is shown, but nothing is claimed from it."""

    mean: Number = None
    ci95: Annotated[tuple[float | None, float | None], BeforeValidator(lambda value, info: _interval(value, info))] = (None, None)
    n: Count = None
    cots: Count = None
    changed: Share = None  # of a round trip of the tokenizer: the share of CoTs whose tokens it changed

    @property
    def low(self) -> float | None:
        return self.ci95[0]

    @property
    def high(self) -> float | None:
        return self.ci95[1]

    @property
    def sign(self) -> int | None:
        """1 or -1 where the interval is wholly above or below 0, 0 where it contains 0, None where mean or interval is missing."""
        if self.mean is None or self.low is None or self.high is None:
            return None
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    def __bool__(self) -> bool:
        return self.mean is not None


def _interval(value: Any, info: ValidationInfo) -> tuple[float | None, float | None]:
    """One that is torn or upside down is left out."""
    if not (isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))):
        return None, None
    if value[0] > value[1]:
        _wrong(info, "low above high, left out")
        return None, None
    return value[0], value[1]


def est(mean: float | None = None, low: float | None = None, high: float | None = None, n: int | None = None) -> Estimate:
    """An estimate of these numbers."""
    return Estimate(mean=mean, ci95=(low, high), n=n)


Est = Annotated[Estimate, PART]
NONE = Estimate()
