"""Make the Inspect logs of tests/fixtures/audit with inspect_ai itself (its mock model, no network).

    python -m venv /tmp/inspect && /tmp/inspect/bin/pip install inspect_ai
    /tmp/inspect/bin/python scripts/make_inspect_fixture.py tests/fixtures/audit

Small logs: `inspect.eval` (the zip, sums with a final answer line, two epochs, one reply cut off by its budget), `inspect.json` (multiple
choice, the reasoning in a block of its own, one of them encrypted), `shuffled.eval` (choices shuffled when they were shown, which the log
undoes) and `turns.eval` (a conversation, two replies, several targets).
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from pathlib import Path

from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ChatMessageUser,
    ContentReasoning,
    ContentText,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.scorer import choice, includes, match
from inspect_ai.solver import generate, multiple_choice, user_message

SUMS = (("17+4+79", "100"), ("5+6+7", "18"), ("30+41+2", "73"))
REPLIES = (
    "17+4=21. Then 21+79=100.\n\nANSWER: 100",
    "5+6=11. Then 11+7=18.\n\nANSWER: 18",
    "30+41=71. Then 71+2=73. Then 73",
)
CHOICES = (
    ("Which of these is attracted by a magnet?", ["copper", "iron", "wood"], "B"),
    ("Which of these is a gas at room temperature?", ["oxygen", "salt", "iron"], "A"),
)
USAGE = ModelUsage(input_tokens=20, output_tokens=20, total_tokens=40)  # else the mock model fetches a tokenizer to count them
THOUGHTS = ("Copper and wood are not magnetic, iron is.", "Salt and iron are solid, and we breathe the other one.")


def _said(text: str, stop: str = "stop") -> ModelOutput:
    message = ChatMessageAssistant(content=text, source="generate")
    return ModelOutput(model="mockllm/model", choices=[ChatCompletionChoice(message=message, stop_reason=stop)], usage=USAGE)


def _thought(thought: str, text: str, redacted: bool) -> ModelOutput:
    reasoning = ContentReasoning(reasoning="b64=" if redacted else thought, redacted=redacted)
    message = ChatMessageAssistant(content=[reasoning, ContentText(text=text)], source="generate")
    return ModelOutput(model="mockllm/model", choices=[ChatCompletionChoice(message=message, stop_reason="stop")], usage=USAGE)


def main(folder: Path) -> None:
    """Both logs into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = Task(
        dataset=MemoryDataset([Sample(input=q, target=a, id=f"sum-{n}") for n, (q, a) in enumerate(SUMS)]),
        solver=generate(),
        scorer=match(numeric=True),
        epochs=2,
        name="sums",
    )
    letters = Task(
        dataset=MemoryDataset([Sample(input=q, choices=c, target=a, id=n) for n, (q, c, a) in enumerate(CHOICES)]),
        solver=multiple_choice(),
        scorer=choice(),
        name="letters",
    )
    shuffled = Task(
        dataset=MemoryDataset([Sample(input="Which is a metal?", choices=["wood", "iron", "glass"], target="B", id=0)]),
        solver=multiple_choice(cot=True, shuffle=random.Random(3)),
        scorer=choice(),
        name="shuffled",
    )
    conversation = [
        ChatMessageUser(content="What is 5+6?"),
        ChatMessageAssistant(content="5+6=11."),
        ChatMessageUser(content="And times two?"),
    ]
    turns = Task(
        dataset=MemoryDataset([Sample(input=conversation, target=["22", "a score and two"], id=0)]),
        solver=[generate(), user_message("Are you sure?"), generate()],
        scorer=includes(),
        name="turns",
    )
    shown = [_said("The first one conducts and the others do not.\n\nANSWER: A")]
    twice = [_said("11*2=22."), _said("Yes. The answer is 22.")]
    replies = [_said(text, "max_tokens" if "ANSWER" not in text else "stop") for _ in range(2) for text in REPLIES]
    chosen = [
        _thought(thought, f"ANSWER: {answer}", redacted=n == 1)
        for n, (thought, (_, _, answer)) in enumerate(zip(THOUGHTS, CHOICES, strict=True))
    ]
    for task, outputs, form, name in (
        (sums, replies, "eval", "inspect.eval"),
        (letters, chosen, "json", "inspect.json"),
        (shuffled, shown, "eval", "shuffled.eval"),
        (turns, twice, "eval", "turns.eval"),
    ):
        with tempfile.TemporaryDirectory() as place:
            model = get_model("mockllm/model", custom_outputs=outputs, memoize=False)
            done = inspect_eval(
                task, model=model, log_dir=place, log_format=form, display="none", max_connections=1, max_samples=1
            )
            assert done[0].status == "success", done[0].error
            shutil.copyfile(next(Path(place).glob(f"*.{form}")), folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
