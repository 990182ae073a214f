"""Diagnoses as annotations of GitHub Actions: lines on standard output that the runner reads as commands.

https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands. Text from a log is data in them: a line break or `::`
in it can't begin another command.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markovlm.health.diagnose import Diagnosis
from markovlm.health.verdict import VerdictName
from markovlm.logs.find import Skipped
from markovlm.terminal.plain import say

_MOST = 10  # of one kind that GitHub shows of a step
_ADVICE = 3  # lines of it
_ORDER: Sequence[VerdictName] = ("collapsed", "warn", "unknown", "healthy")


def show_annotations(diagnoses: Sequence[Diagnosis], skipped: Sequence[Skipped], failing: Sequence[VerdictName]) -> None:
    """Print errors for failing verdicts, warnings and notices for others, the gravest first, and the counts in a notice."""
    for line in annotation_lines(diagnoses, skipped, failing):
        say(line)


def annotation_lines(diagnoses: Sequence[Diagnosis], skipped: Sequence[Skipped], failing: Sequence[VerdictName]) -> list[str]:
    """The lines."""
    told = sorted((d for d in diagnoses if d.verdict != "healthy"), key=lambda d: _ORDER.index(d.verdict))
    lines: list[str] = []
    shown = dict.fromkeys(("error", "warning", "notice"), 0)
    for diagnosis in told:
        kind = "error" if diagnosis.verdict in failing else "warning" if diagnosis.verdict in ("collapsed", "warn") else "notice"
        shown[kind] += 1
        if shown[kind] < _MOST:  # the last of a kind is for the summary
            lines.append(_annotation(kind, diagnosis))
    counts = ", ".join(f"{n} {verdict}" for verdict in _ORDER if (n := sum(d.verdict == verdict for d in diagnoses)))
    left = sum(max(0, n - _MOST + 1) for n in shown.values())
    more = [f"{left} of them without their own annotation (GitHub shows {_MOST} of each kind)"] if left else []
    out = [f"{len(skipped)} file{'' if len(skipped) == 1 else 's'} left out"] if skipped else []
    summary = "; ".join([f"{len(diagnoses)} run{'' if len(diagnoses) == 1 else 's'}: {counts}", *more, *out])
    return [*lines, f"::notice title=markovlm diagnose::{_data(summary)}"]


def _annotation(kind: str, diagnosis: Diagnosis) -> str:
    number, of = diagnosis.run.launch
    since = f" from step {diagnosis.onset_step:,}" if diagnosis.onset_step is not None else ""
    title = f"{diagnosis.verdict}{since}: {diagnosis.run.name}" + (f" (launch {number} of {of})" if of > 1 else "")
    cause = [f"cause: {diagnosis.cause.sentence}"] if diagnosis.cause is not None else []
    error = [f"ended: {diagnosis.error}"] if diagnosis.error is not None else []
    text = [diagnosis.why, *cause, *error, *(f"do: {line}" for line in diagnosis.advice[:_ADVICE]), *diagnosis.cost.lines]
    properties = {**_where(diagnosis), "title": title}
    return f"::{kind} {','.join(f'{key}={_property(value)}' for key, value in properties.items())}::" + _data("\n".join(text))


def _where(diagnosis: Diagnosis) -> dict[str, str]:
    """The log, as the repository has it, and the line of the onset."""
    path = diagnosis.run.files.get("metrics", diagnosis.path)
    if not path.is_file():
        return {}
    step = diagnosis.onset_step
    line = None if step is None else diagnosis.run.lines.get(step)
    return {"file": _relative(path)} | ({} if line is None else {"line": str(line)})


def _relative(path: Path) -> str:
    try:
        return path.resolve().relative_to(Path.cwd().resolve()).as_posix()
    except ValueError:
        return path.as_posix()


def _data(text: str) -> str:
    """The message of a command, on one line."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
