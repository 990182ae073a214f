"""Section: where questions come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from pydantic import Field, field_validator, model_validator

from markovlm.config.base import Section


class Columns(Section):
    """What the data calls its columns."""

    question: str | None = Field(None, min_length=1, description="column of the question, where it is not what the task expects")
    answer: str | None = Field(None, min_length=1, description="column of the gold answer")
    choices: str | None = Field(None, min_length=1, description="column of the choices (a list), or one column for each: A,B,C,D")

    @field_validator("choices", mode="before")
    @classmethod
    def _one_text(cls, value: Any) -> Any:
        """A list in YAML, `[A, B, C, D]`, is the same."""
        return ",".join(map(str, cast("Sequence[Any]", value))) if isinstance(value, list | tuple) else value

    def given(self) -> dict[str, str]:
        """Only what is said."""
        return {
            name: value
            for name, value in (("question", self.question), ("answer", self.answer), ("choices", self.choices))
            if value
        }


class Data(Section):
    """Where questions come from."""

    path: str | None = Field(None, description="original file or directory; default: the Hub, or the task's generator")
    hub: str | None = Field(None, description="a dataset of the Hub, ORG/NAME, in place of the task's own")
    hub_subset: str | None = Field(None, description="the subset (configuration) of data.hub, where it has several")
    columns: Columns = Columns()  # pyright: ignore[reportCallIssue]
    answer_kind: Literal["number", "letter", "text"] | None = Field(
        None,
        description="what the answers of task custom are; default: as the first 200 look",
    )
    train_split: str = Field("train", description="split that training draws from")
    dev_split: str = Field("dev", description="split on which checkpoints are chosen")
    test_split: str = Field("test", description="split that is reported")
    strict: bool = Field(False, description="a malformed row is fatal instead of skipped with a count")

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        if self.path is not None and self.hub is not None:
            raise ValueError("path and hub are two sources; give one")
        if self.hub_subset is not None and self.hub is None:
            raise ValueError("hub_subset names a subset of data.hub, which is not given")
        return self
