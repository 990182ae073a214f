"""Rules by which other programs read answers, written again from their sources, to be held against ours (benchmarks/extraction.py).

Each takes the text and how many choices there are, and gives what it reads, or None. Where a program compares strings, its reading is compared by
value here, which is never to its disadvantage; rules for A to D read as far as there are choices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from markovlm.tasks.base import LETTERS
from markovlm.tasks.numbers import normalize_number

Rule = Callable[[str, Sequence[str]], str | None]


def lm_eval_strict(text: str, _: Sequence[str]) -> str | None:
    """lm-evaluation-harness, gsm8k, strict-match."""
    return _number(_first(re.findall(r"#### (\-?[0-9\.\,]+)", text)))


def lm_eval_flexible(text: str, _: Sequence[str]) -> str | None:
    """lm-evaluation-harness, gsm8k, flexible-extract: the last match."""
    found = re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", text)
    return _number(next(filter(None, found[-1]))) if found else None


def minerva(text: str, _: Sequence[str]) -> str | None:
    """lm-evaluation-harness, minerva_math: the phrase of its prompts, else the last box."""
    phrase = re.search(
        r"Final Answer: The final answer is(.*?)\. I hope it is correct\.", text + " I hope it is correct.", re.DOTALL
    )
    if phrase:
        return _number(phrase[1])
    boxes = re.findall(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", text)
    return _number(boxes[-1]) if boxes else None


def simple_evals_number(text: str, _: Sequence[str]) -> str | None:
    """simple-evals, MGSM: the last number behind the last `Answer:`."""
    if "Answer" not in text:
        return None
    numbers = re.findall(r"\d+\.?\d*", text.split("Answer")[-1].strip().replace(",", ""))
    return _number(numbers[-1].rstrip(".")) if numbers else None


def inspect_match(text: str, _: Sequence[str]) -> str | None:
    """inspect_ai, match(location="end", numeric=True): the last word that is a number."""
    for word in reversed(re.split(r"\s+", text)):
        bare = re.sub(r"[$€£,*_]", "", word).strip().rstrip(".").strip("!?:;()[]{}'\"`~<>=@#^&|")
        try:
            float(bare)
        except ValueError:
            continue
        return _number(bare)
    return None


def math_verify(text: str, _: Sequence[str]) -> str | None:
    """The library with its defaults."""
    from math_verify import parse

    parsed = parse(text)
    return (_number(str(parsed[0])) or _number(str(parsed[-1]))) if parsed else None


def lm_eval_mmlu_pro(text: str, choices: Sequence[str]) -> str | None:
    """lm-evaluation-harness, mmlu_pro: the first `answer is (B)`."""
    return _letter(_first(re.findall(r"answer is \(?([ABCDEFGHIJ])\)?", text)), choices)


def lm_eval_multi_choice(text: str, choices: Sequence[str]) -> str | None:
    """lm-evaluation-harness, multi_choice_regex, flexible: the last `(B)`, else a choice's text, else a letter behind a colon."""
    found = re.findall(r"\(([A-Z])\)", text)
    if found:
        return _letter(found[-1], choices)
    texts = {re.sub(r"[^\w\s]", "", choice).lower().strip(): LETTERS[i] for i, choice in enumerate(choices)}
    spoken = "|".join(re.escape(choice) for choice in texts if choice)
    named = re.findall(spoken, re.sub(r"[^\w\s]", "", text).lower()) if spoken else []
    if named:
        return texts[named[-1]]
    behind = re.findall(rf":[\s]*({'|'.join(LETTERS[: len(choices)])})", text)
    return _letter(behind[-1], choices) if behind else None


def mmlu_pro(text: str, choices: Sequence[str]) -> str | None:
    """MMLU-Pro's own: `answer is (B)`, else the last `Answer: B`, else the last letter that stands alone."""
    for pattern in (r"answer is \(?([A-J])\)?", r".*[aA]nswer:\s*([A-J])", r"\b([A-J])\b(?!.*\b[A-J]\b)"):
        if match := re.search(pattern, text, re.DOTALL if "(?!" in pattern else 0):
            return _letter(match[1], choices)
    return None


def simple_evals_letter(text: str, choices: Sequence[str]) -> str | None:
    """simple-evals, MMLU: the first `Answer: B`, in several languages, without markup."""
    for markup in (
        "**",
        "$\\boxed{",
        "}$",
        "\\$",
        "$\\text{",
        "$",
        "\\mathrm{",
        "\\{",
        "\\text",
        "\\(",
        "\\mathbf{",
        "{",
        "\\boxed",
    ):
        text = text.replace(markup, "")
    labels = r"Answer[ \t]*:|Antwort[ \t]*:|Respuesta[ \t]*:|Réponse[ \t]*:|Resposta[ \t]*:|Risposta[ \t]*:|答案[ \t]*：|答案[ \t]*:|回答[ \t]*:"
    match = re.search(rf"(?i)(?:{labels})[ \t]*([A-{LETTERS[len(choices) - 1]}])", text)
    return match[1].upper() if match else None


def inspect_answer(text: str, choices: Sequence[str]) -> str | None:
    """inspect_ai, answer("letter"): the last `ANSWER: B`."""
    found = re.findall(r"(?i)ANSWER\s*:\s*([A-Za-z])(?:[^\w]|\n|$)", text)
    return _letter(found[-1].upper(), choices) if found else None


def inspect_choice(text: str, choices: Sequence[str]) -> str | None:
    """inspect_ai, choice() behind multiple_choice(): the last line `ANSWER: B`, else the last `ANSWER: B` anywhere."""
    for pattern in (r"(?im)^ANSWER\s*:\s*([A-Za-z\d ,]+?)\s*(?:$|\.)", r"(?i)ANSWER\s*:\s*([A-Za-z\d ,]+)(?:[^\w]|\n|$|\.)"):
        found = re.findall(pattern, re.sub(r"[*$()`_]", "", text))
        if found and len(said := found[-1].strip().rstrip(".")) == 1:
            return _letter(said.upper(), choices)
    return None


NUMBERS: dict[str, Rule] = {
    "lm-eval strict": lm_eval_strict,
    "lm-eval flexible": lm_eval_flexible,
    "Minerva": minerva,
    "simple-evals": simple_evals_number,
    "inspect match": inspect_match,
    "Math-Verify": math_verify,
}
LETTER_RULES: dict[str, Rule] = {
    "lm-eval mmlu_pro": lm_eval_mmlu_pro,
    "lm-eval multi_choice": lm_eval_multi_choice,
    "MMLU-Pro": mmlu_pro,
    "simple-evals": simple_evals_letter,
    "inspect answer": inspect_answer,
    "inspect choice": inspect_choice,
}


def _first(found: Sequence[str]) -> str | None:
    return found[0] if found else None


def _number(text: str | None) -> str | None:
    return None if text is None else normalize_number(text.strip(" .,"))


def _letter(letter: str | None, choices: Sequence[str]) -> str | None:
    return letter if letter is not None and letter in LETTERS[: len(choices)] else None
