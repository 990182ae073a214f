"""Check configurations before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markovlm.api.arguments import PATH, listed
from markovlm.errors import UserError

if TYPE_CHECKING:
    from markovlm.checks.finding import Checked


def check(
    configs: str | Path | Sequence[str | Path],
    *,
    framework: str | None = None,
    processes: int | None = None,
    answers: str | Path | None = None,
    answers_column: str | None = None,
) -> list[Checked]:
    """Find settings with a known outcome in configurations of TRL (GRPO), verl and markovlm (docs/check.md); one `Checked` per file.

    `processes` is how many the trainer will have; `answers` a data file of reference answers, which the limit on completions is
    compared with (`answers_column`: its column). Raises UserError for a file that cannot be read or whose framework is not recognised.

        for finding in markovlm.check("grpo.yaml", processes=8)[0].findings:
            print(finding.level, finding.what, finding.change, finding.source)
    """
    from markovlm.checks.check import CheckAnswers, check_file

    named = [configs] if isinstance(configs, str | Path) else listed("check", configs, PATH, "paths")
    if not named:
        raise UserError("check: nothing to check; give paths of configurations")
    if processes is not None and processes < 1:
        raise UserError(f"check: processes={processes}: must be at least 1")
    if answers is None and answers_column is not None:
        raise UserError("check: answers_column needs answers, a file of reference answers")
    reference = None if answers is None else CheckAnswers(Path(answers).expanduser(), answers_column)
    return [check_file(Path(path).expanduser(), framework, processes, reference) for path in named]
