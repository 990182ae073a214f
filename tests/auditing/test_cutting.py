"""Where reasoning ends and the final answer begins, in the ways that models close their replies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovlm.auditing.cutting import before_answer, gold_of


@pytest.mark.parametrize(
    ("completion", "cot", "final"),
    [
        ("9*2=18.\n#### 18", "9*2=18.", "#### 18"),
        ("It is 18.\n\nANSWER: 18", "It is 18.", "ANSWER: 18"),
        ("It is 18.\n**Final answer:** 18", "It is 18.", "**Final answer:** 18"),
        ("It is ten.\nA: 10", "It is ten.", "A: 10"),
        ("We sum.\nFinal Answer:\n42", "We sum.", "Final Answer:\n42"),
        ("We sum.\n\n### Final Answer\n\n**42**", "We sum.", "### Final Answer\n\n**42**"),
        ("We add. So the answer is 18.", "We add.", "So the answer is 18."),
        ("X is so.\nTherefore, the best answer is: (C).", "X is so.", "Therefore, the best answer is: (C)."),
        ("We add. Thus $\\boxed{18}$", "We add.", "Thus $\\boxed{18}$"),
        ("We add.\n\nThus the total is:\n\\[\n\\boxed{42}\n\\]", "We add.", "Thus the total is:\n\\[\n\\boxed{42}\n\\]"),
        ("5+6=11.\nShe has **44 stickers** remaining.", "5+6=11.", "She has **44 stickers** remaining."),
        ("So 10.\n<answer>10</answer>", "So 10.", "<answer>10</answer>"),
        ("Hence B.\n[[B]]", "Hence B.", "[[B]]"),
        ('I think.\n\n```json\n{"answer": 42}\n```', "I think.", '```json\n{"answer": 42}\n```'),
        # statements that follow each other at the end are one answer, and politeness goes with it
        ("We get 18. So the answer is 18.\n#### 18", "We get 18.", "So the answer is 18.\n#### 18"),
        ("We add. The answer is $42$. I hope it is correct.", "We add.", "The answer is $42$. I hope it is correct."),
        # reasoning that is marked
        ("<think>a\nb</think>\nThe answer is 3", "a\nb", "The answer is 3"),
        ("<think>a</think>hm<think>b</think>7", "a\nb", "7"),
        ("so\n</think>7", "so", "7"),
        ("<think>not finished", "not finished", None),
        ("[THINK]hm[/THINK]4", "hm", "4"),
        (
            "<|channel|>analysis<|message|>we add 5<|end|><|start|>assistant<|channel|>final<|message|>It is 5.<|return|>",
            "we add 5",
            "It is 5.",
        ),
        ("<|channel|>analysis<|message|>we add", "we add", None),
        ("analysisWe add.assistantfinalIt is 5.", "We add.", "It is 5."),
        # no final answer
        ("The answer is 3. Let me check: 1+2=3", "The answer is 3. Let me check: 1+2=3", None),
        ("**Step 1**: add\n**Step 2**", "**Step 1**: add\n**Step 2**", None),
        ("We find $x=\\boxed{3}$ and then we check it with 3+3=6, which works out.", None, None),
        ("She buys 3 apples.\nThat makes 15 in all.", None, None),
        ("18", "18", None),
        ("", "", None),
    ],
)
def test_the_final_answer_is_cut_off(completion: str, cot: str | None, final: str | None) -> None:
    assert before_answer(completion) == (completion if cot is None else cot, final)


@given(st.text(alphabet="<think>/answer{}[]#*:.\\boxed 42\nA$", max_size=80))
def test_nothing_is_invented(text: str) -> None:
    """Both parts are pieces of the completion, whatever it is."""
    cot, final = before_answer(text)
    assert all(line.strip() in text for line in cot.split("\n"))
    assert final is None or all(line.strip() in text for line in final.split("\n"))


def test_a_gold_answer_behind_a_solution() -> None:
    assert gold_of("9*2=18\n#### 1,080") == "1,080"
    assert gold_of(" B ") == "B"
    assert gold_of("It is $\\boxed{\\frac{1}{2}}$.") == "\\frac{1}{2}"
    assert gold_of("\\boxed{7") == "\\boxed{7"
