"""Section: where questions come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from pydantic import Field, field_validator, model_validator

from markovlm.config.base import Section


class Columns(Section):
    """What the data calls its columns."""

    question: str | None = Field(None, min_length=1, description="column of the question, if not the one that the task expects")
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

    path: str | None = Field(
        None, description="file or directory with the original data; default: the Hub, or the task's generator"
    )
    hub: str | None = Field(None, description="a Hub dataset, ORG/NAME, instead of the task's own")
    hub_subset: str | None = Field(None, description="the subset (configuration) of data.hub, if it has several")
    columns: Columns = Columns()  # pyright: ignore[reportCallIssue]
    answer_kind: Literal["number", "letter", "text"] | None = Field(
        None,
        description="type of the answers of task custom; default: inferred from the first 200",
    )
    train_split: str = Field("train", description="split to train on")
    dev_split: str = Field("dev", description="split on which the best checkpoint is chosen")
    test_split: str = Field("test", description="split to report results on")
    strict: bool = Field(False, description="treat a malformed row as an error, instead of skipping and counting it")

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        if self.path is not None and self.hub is not None:
            raise ValueError("path and hub are two sources of data; give only one")
        if self.hub_subset is not None and self.hub is None:
            raise ValueError("hub_subset names a subset of data.hub, which is not given")
        return self
