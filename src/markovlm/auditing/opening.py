"""A reader of an audit, opened: a model on this machine, or one behind a server."""

from __future__ import annotations

from markovlm.analysis.study import Counting
from markovlm.auditing.plan import AuditRequest, ServerTarget
from markovlm.auditing.readers import OpenReader, open_model
from markovlm.auditing.server import open_server
from markovlm.runs.targets import Target


def open_reader(
    name: str, target: Target, request: AuditRequest, counting: Counting | None, flag: str = "--reader"
) -> OpenReader:
    """Load or find it, with prompts of a style that can carry the questions. UserError in one line where that can't be."""
    if isinstance(target, ServerTarget):
        return open_server(name, target, request, counting, flag)
    return open_model(name, target, request, counting, flag)
