"""Audit chains of thought that somebody else wrote: does the answer follow from the CoT alone, or from the question?

    python examples/3_audit_cots.py [READER]

Each CoT is read twice by the same reader: with the question hidden, and with the question but no CoT. n questions, 95 % intervals.
"""

import sys

import markovlm
from markovlm import Example, Thought
from markovlm.statistics import wilson

READER = sys.argv[1] if len(sys.argv) > 1 else "embedded"

rows = [  # question, CoT, answer
    ("17+4+79", "17+4=21,21+79=100", "100"),
    ("12+30+41", "12+30=42,42+41=83", "83"),
    ("25+25+50", "so we need to add", "100"),
    ("9+80+7", "9+80=89,89+7=96", "96"),
    ("61+2+33", "it is under one hundred", "96"),
    ("44+5+6", "44+5=49,49+6=55", "55"),
]

reader = markovlm.load(READER)
asked = [Example(f"row/{i}", question, answer) for i, (question, _, answer) in enumerate(rows)]
alone = reader.read([Thought(e, cot) for e, (_, cot, _) in zip(asked, rows, strict=True)])
direct = reader.read([Thought(e, "") for e in asked], sighted=True)

for name, readings in (("from the CoT alone", alone), ("from the question alone", direct)):
    right = sum(bool(r.correct) for r in readings)
    low, high = wilson(right, len(rows))
    mean = sum(r.logprob for r in readings) / len(rows)
    print(f"{name:24} accuracy {right / len(rows):.2f} [{low:.2f}, {high:.2f}]  ln pi(a) {mean:.2f} a token  (n = {len(rows)})")
for (question, cot, answer), one in zip(rows, alone, strict=True):
    print(f"{question:10} {cot:26} -> {one.answer}  {'follows' if one.correct else f'does not give {answer}'}")
