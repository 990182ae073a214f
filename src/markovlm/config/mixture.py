"""Section: one of several tasks that a run trains on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import Field, model_validator

from markovlm.config.base import Scalar, Section
from markovlm.config.data import Columns, Data


class TaskShare(Section):
    """How often a task is asked, and where its questions come from. A number alone is the weight."""

    weight: float = Field(1.0, gt=0, description="weight relative to the other tasks")
    options: dict[str, Scalar] = Field({}, description="options of this task")
    path: str | None = Field(None, description="as data.path")
    hub: str | None = Field(None, description="as data.hub")
    hub_subset: str | None = Field(None, description="as data.hub_subset")
    columns: Columns = Columns()  # pyright: ignore[reportCallIssue]
    answer_kind: Literal["number", "letter", "text"] | None = Field(None, description="as data.answer_kind")

    @model_validator(mode="before")
    @classmethod
    def _weight_alone(cls, value: Any) -> Any:
        return cast("Any", value) if isinstance(value, Mapping | TaskShare) else {"weight": value}

    @model_validator(mode="after")
    def _one_source(self) -> TaskShare:
        self.data(Data())  # pyright: ignore[reportCallIssue]
        return self

    def data(self, shared: Data) -> Data:
        """The section `data` of this task alone; splits and strictness are those of the run."""
        own = {name: getattr(self, name) for name in ("path", "hub", "hub_subset", "columns", "answer_kind")}
        return Data.model_validate(
            {**shared.model_dump(), **{k: v.model_dump() if k == "columns" else v for k, v in own.items()}}
        )


def joined(tasks: Mapping[str, Any]) -> str:
    """The name of a mixture: `gsm8k+svamp`."""
    return "+".join(tasks)


def with_joined_name(values: Any) -> Any:
    """`task` of a configuration with several `tasks` is their joined name. Raises ValueError if it names another one, or data is given
    twice.
    """
    if not isinstance(values, Mapping):
        return values
    given = dict(cast("Mapping[str, Any]", values))
    tasks = given.get("tasks")
    if not tasks or not isinstance(tasks, Mapping):
        return given
    name = joined(cast("Mapping[str, Any]", tasks))
    if len(cast("Mapping[str, Any]", tasks)) < 2:
        raise ValueError("tasks: name two or more with their weights; for a single one use --task")
    if any("+" in one or "/" in one for one in cast("Mapping[str, Any]", tasks)):
        raise ValueError("tasks: a name must not contain + or /")
    given["task"] = name
    return given
