"""How often a guess is right."""

from __future__ import annotations

from markovlm.registry import TASKS


def chance_level(task: str | None) -> float | None:
    """Accuracy of guessing: 1 / choices, 0.0 for numbers and texts, None if the task is unknown or does not say.

    >>> chance_level("aqua"), chance_level("gsm8k"), chance_level("of somebody else")
    (0.2, 0.0, None)
    """
    if task is None or task not in TASKS:
        return None
    found = TASKS.find(task)
    choices = getattr(found, "choices", 0)
    if isinstance(choices, int) and choices > 0:
        return 1.0 / choices
    return None if getattr(found, "answer_type", "letter") == "letter" else 0.0
