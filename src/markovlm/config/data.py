"""Section: where questions come from."""

from __future__ import annotations

from pydantic import Field

from markovlm.config.base import Section


class Data(Section):
    """Where questions come from."""

    path: str | None = Field(None, description="original file or directory; default: the Hub, or the task's generator")
    train_split: str = Field("train", description="split that training draws from")
    dev_split: str = Field("dev", description="split on which checkpoints are chosen")
    test_split: str = Field("test", description="split that is reported")
    strict: bool = Field(False, description="a malformed row is fatal instead of skipped with a count")
