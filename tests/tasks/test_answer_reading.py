"""Answers as a person reads them. The inputs restate what people reported to lm-evaluation-harness, inspect_ai, Math-Verify, simple-evals and
others as read wrongly; the right values are those of the reports, or plain.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovlm.tasks.letters import read_letter
from markovlm.tasks.numbers import normalize_number
from markovlm.tasks.reading import normalized_answer, read_number, read_text

FOUR = ("oxygen", "nitrogen", "water vapor", "carbon dioxide")
TEN = tuple(f"choice {name}" for name in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"))

NUMBERS = [
    # signs, decimals, powers, words
    (" −5", "-5"), (" -$5", "-5"), ("The change is -5 exactly", "-5"), (" 4.4", "4.4"), ("1.5e3", "1500"), ("1e3", "1000"), ("½", "0.5"),
    ("twenty-one", "21"), ("So there are twenty-one eggs left.", "21"), ("The answer is 1.5 × 10^3 m.", "1500"), ("It is 33.14", "33.14"),
    # an answer that shows its arithmetic
    ("Answer: 3 * 4 = 12", "12"), ("Answer: 2*7 + 3*6 + 49 = 81", "81"), ("Answer: m+n = 256+37 = 293", "293"), (" 85+5=94", "94"),
    ("Answer: a+b+c = 12+25+25 = 62", "62"), ("Answer: 3 * 4", "12"), ("Total: $204 + $160 + $330 = $694.", "694"),
    # punctuation and markup around it
    (" **42**", "42"), ("Great! It is 42!", "42"), ("(42).", "42"), ("[42]", "42"), ("\\$27.00", "27"), ("Is it 42?", "42"), ("It is 42:", "42"),
    ("**Final Answer:** 42", "42"), ("✅ Final Answer: **73**", "73"), ("The answer is $\\boxed{5}$ dollars", "5"), ("__42__", "42"),
    ("### Final Answer\n\n$$\n\\boxed{18}\n$$", "18"), ("The answer is:\n\n42", "42"), ("the answer (arabic numerals) is:\n\n14,400", "14400"),
    ('{"reasoning": "3 and 4", "answer": 42}', "42"), ("<answer>10</answer>", "10"), ("The total is 72 clips, altogether.", "72"),
    # units, percent, LaTeX, fractions
    ("ANSWER: 60%", "60"), ("Of 100 people the share is 20%", "20"), ("\\boxed{28\\%}", "28"), ("\\boxed{12 \\text{ apples}}", "12"),
    ("It takes 1 1/4 hours", "1.25"), ("$2\\frac{1}{2}$", "2.5"), ("so $\\frac12$", "0.5"), ("The answer is 1/2.", "0.5"),
    ("\\dfrac{13}{9}", "13/9"),
    ("It has an area of 12 m^2.", "12"), ("She needs 12.5kg of it", "12.5"), ("Final answer: 082", "82"), ("\\boxed{004}", "4"),
    # which of several
    ("I think the answer: 5 is wrong. Answer: 10", "10"), ("The answer is 12. Wait, no. The answer is 14.", "14"),
    ("It is \\boxed{840}., but let me explain.\n\n**Final Answer**\n\\boxed{840}", "840"), ("#### 10\nNo, wait.\n#### 12", "12"),
    ("1. Add 3 and 4.\n2. Double it: 14.\n3. Done.", "14"), ("Step 1: 3 + 4 = 7\nStep 2: 7 * 2 = 14 eggs", "14"),
    ("He gets 12 in the 2nd week", "12"),
    ("There are 12 left, so each one of them gets two.", "12"), ("Answer: she sold 12 of the 20 eggs", "12"),
    (" 6 packages of 7 pieces each.", "6"),
    ("The answer is not 5 but 6.", "6"), ("A: 16", "16"), ("The answer is 25", "25"), ("It is 5. The answer is seven.", "7"),
    # the reply goes on, or begins with a thought
    ("#### 18\n\nQuestion: Tom has 5 pens and buys 2. How many?\n#### 7", "18"), (" 18\n\nQ: What is 2+2?\nA: 4", "18"),
    ("18<|im_end|>\n<|im_start|>user 4", "18"),
    ("It is 9.\n\nProblem 2: Find 5 + 6.\nAnswer: 11", "9"), ("<think>maybe the answer is 5</think>\n\nIt is 7.", "7"),
    ("<|channel|>analysis<|message|>5 or 6<|end|><|start|>assistant<|channel|>final<|message|>It is 7.", "7"),
    ("The answer is 168  You will be given a reasoning problem. Question: A bakery sells 250 loaves", "168"),
    # no answer
    ("12x + 21", None), ("It is " + "8 - 4 = 4, " * 40, None), ("The answer is 12. " + "So it is 12 - 5. " * 40, "12"),
    ("", None), ("No idea.", None), ("There are 12 eggs. Answer: unknown", None), ("Answer: it cannot be determined from 3 numbers", None),
    ("I don't know.\n\nQuestion: What is 2+2?\nAnswer: 4", None), ("It takes place in the 2nd week", None), ("x^2", None),
]  # fmt: skip

CUT = [  # by the token limit
    ("The total is 1,2", None), ("The answer is $18.", None), (" 12", None), ("Answer: 3 * 4", None), ("Answer: twenty", None),
    ("\\boxed{12", None),
    ("First, 3 + 4 = 7. Then 7 +", None), ("Step 1: he has 5.\nStep 2: So he", None), ("The answer is 1/", None),
    ("The answer is one hundred and", None),
    ("The answer is 12. This means", "12"), (" 12\n\nExplan", "12"), ("so 12 + 9 = 21.\n\nThe answer is \\boxed{21", "21"),
    ("Answer: 12 eggs and", "12"),
    (" 18\n\nQuestion: Tom has 5 pens and", "18"), ("5 * 4 = 20. Therefore, she pays 20 dollars in all. Note that", "20"),
]  # fmt: skip

LETTERS = [
    # the choice as it is listed
    (" C. Water vapor", FOUR, "C"), (" C) x", FOUR, "C"), (" A.\n\nQuestion", FOUR, "A"), ("C. A pretty girl", FOUR, "C"),
    ("(C) water vapor", FOUR, "C"),
    (" D: carbon dioxide", FOUR, "D"), ("C", FOUR, "C"), ("**C**", FOUR, "C"), (" B, nitrogen.", FOUR, "B"), (" E.", (), "E"),
    # decorated
    ("ANSWER: $B$", FOUR, "B"), ("ANSWER: **B**", FOUR, "B"), ("ANSWER: (B)", FOUR, "B"), ("**ANSWER: C**", FOUR, "C"),
    ("***ANSWER***: ***B***", FOUR, "B"),
    ("\\boxed{\\text{D}}", FOUR, "D"), ("**Answer:** B", FOUR, "B"), ("Answer: `B`", FOUR, "B"), ("<answer>B</answer>", FOUR, "B"),
    ('{"answer": "B"}', FOUR, "B"),
    ("**ANSWER:** C. Water vapor", FOUR, "C"), ("### Answer\n\nB", FOUR, "B"), ("The answer is:\n\n(D)", FOUR, "D"), ("#### C", FOUR, "C"),
    # lower case
    ("answer: b", FOUR, "B"), ("The correct answer is d.", FOUR, "D"), ("answer: (a)", FOUR, "A"), ("option c.", FOUR, "C"),
    # articles and pronouns are no letters
    ("It requires a logical argument.", FOUR, None), ("A cell divides in two. The answer is (B).", FOUR, "B"),
    ("A gas is what it is.", FOUR, None),
    ("I'd say C", FOUR, "C"), ("Answer: I think it is C", TEN, "C"), ("The answer is C because I computed the integral.", TEN, "C"),
    ("ANSWER: I don't know", TEN, None), ("ANSWER: Don't know", FOUR, None), ("The answer is a gas: water vapor.", FOUR, "C"),
    # the last statement counts
    ("Answer: A is tempting.\nAnswer: C", FOUR, "C"), ("Answer: A\nAfter checking, I correct this.\nAnswer: B", FOUR, "B"),
    ("Antwort:\n\nAntwort: C", FOUR, "C"),
    ("Antwort: Antwort: C", FOUR, "C"), ("Answer: this asks for a gas\nWell.\nANSWER: B", FOUR, "B"),
    ("True answer: only chapter 2 remains.\n\nANSWER: A", FOUR, "A"),
    ("The calculated answer is 11.\n\nAnswer seems to be A.\n\nAnswer: A", FOUR, "A"),
    ("I considered (A), but it is incorrect. Final answer: D.", FOUR, "D"),
    ("So \\boxed{\\langle H\\rangle \\ll \\Delta E}.\n\n**Answer: D**", TEN, "D"),
    ("* Muscle (A) is out.\n* Tips (B) divide.\nThe answer is (D).", FOUR, "D"),
    # what is said of other letters
    ("The answer is B. Note that A is a common distractor.", FOUR, "B"), ("ANSWER IS D. A is incorrect.", FOUR, "D"),
    ("Answer: D, not B", FOUR, "D"),
    ("Answer: It is not B, the answer is D", FOUR, "D"), ("Answer: rules out C, leaving D", FOUR, "D"), ("B is correct, C is not.", FOUR, "B"),
    ("We can rule out A, B and D.", FOUR, None), ("That leaves us with (A) and (B).", FOUR, None), ("Between C and D, choose C", FOUR, "C"),
    # other languages
    ("Die Antwort ist C.", FOUR, "C"), ("La respuesta correcta es (B).", FOUR, "B"), ("Réponse : D", FOUR, "D"), ("所以正确答案是B。", FOUR, "B"),
    ("Ответ: A", FOUR, "A"), ("答え：C", FOUR, "C"), ("La risposta è D.", FOUR, "D"), ("A resposta é B.", FOUR, "B"),
    # a list of the choices
    ("A) iron\nB) wood\nC) tin\n\n**(B)**", ("iron", "wood", "tin"), "B"), ("A) iron\nB) wood\nC) tin", ("iron", "wood", "tin"), None),
    ("- iron\n- wood\n- tin", ("iron", "wood", "tin"), None),
    # the text of a choice
    (" water vapor", FOUR, "C"), ("It must be carbon dioxide.", FOUR, "D"), ("The answer is nitrogen, a gas.", FOUR, "B"),
    ("iron oxide", ("iron", "iron oxide"), "B"),
    ("ANSWER: None of the above", ("1", "2", "none of the above"), "C"), ("ANSWER: None of the above", FOUR, None),
    ("oxygen or nitrogen", FOUR, None),
    ("The total is 42.", ("40", "41", "42", "43"), "C"), (" 42", ("40", "41", "42", "43"), "C"), ("It is \\frac{1}{2}", ("0.25", "0.5"), "B"),
    # formulas, units, nothing
    ("It flows at 20 °C when E = mc^2 and F_B is small", TEN, None), ("Answer: F is not valid", FOUR, None), ("", FOUR, None),
    ("Decide carefully", FOUR, None),
    ("The answer is B.\n\nQuestion: Which gas is it?\nAnswer: C", FOUR, "B"), ("<think>A? The answer is A.</think>Answer: B", FOUR, "B"),
]  # fmt: skip

TEXTS = [
    (" Paris.", "Paris"), (" 3.", "3"), ("The answer is Paris.", "Paris"), ("**Paris**", "Paris"), ('"Paris"', "Paris"),
    ("\n Paris \nRome", "Paris"),
    ("Answer: Paris\n\nQuestion: What of Italy?\nAnswer: Rome", "Paris"), ("It is in France.\n**Answer:** Paris", "Paris"), ("", None),
    (" \n", None),
    ("\\boxed{\\text{Paris}}", "Paris"), ("<answer>the U.S.</answer>", "the U.S."), ("J. S. Bach", "J. S. Bach"), ("...", "..."),
]  # fmt: skip


# What models write that nobody reported.
MORE_NUMBERS = [
    ("The final answer is $\\boxed{1,234.56}$.", "1234.56"), ("So the answer is 5 km/h.", "5"),
    ("Therefore, Janet makes **$18** every day.", "18"), ("Thus, 3/4 of the cake remains.", "0.75"), ("The total cost is $45.00 USD.", "45"),
    ("x = 5", "5"), ("x=-3", "-3"), ("The value of x is 7/2.", "3.5"), ("The answer is 10 apples and not 12.", "10"), ("There're 5.", "5"),
    ("Result: 42", "42"), ("= 42", "42"), ("The answer is approximately 3.14159.", "3.14159"), ("≈ 12.5", "12.5"), ("about 20 minutes", "20"),
    ("So he needs 4 more (since 10 - 6 = 4).", "4"), ("Answer:\n$$\n42\n$$", "42"), ("\\[ \\boxed{42} \\]", "42"),
    ("The answer is forty-two.", "42"), ("zero", "0"), ("None", None), ("The answer is 1/3 or about 0.33", "1/3"),
    ("5 + 3 = 8. 8 * 2 = 16. So 16 apples. I hope this helps! Let me know if you have 2 more questions.", "16"), ("The answer is 12:30", None),
    ("He has $5 left, i.e., 500 cents.", "500"), ("Final Answer: The final answer is 17. I hope it is correct.", "17"),
    ("Total = 3 × 4 = 12", "12"), ("12.", "12"), ("The answer is: 12.0", "12"), ("-12", "-12"), ("The temperature is −12°C.", "-12"),
    ("minus twelve", "-12"), ("Answer: $-12$", "-12"), ("1. 5\n2. 6", "6"), ("Step 1: 5+5=10\nStep 2: 10*2=20\nAnswer: 20", "20"),
    ("She has 5 apples. (Answer)", "5"), ("Answer: 5 (five)", "5"), ("The answer is 5 (not 6).", "5"), ("Her age is 21 years.", "21"),
    ("42\n42\n42", "42"), ("$1 million", "1000000"), ("1.5 million people", "1500000"), ("3,000 + 4,000 = 7,000", "7000"), ("50 percent", "50"),
    ("\\frac{3}{4}", "0.75"), ("The answer is \\frac{3}{4}.", "0.75"), ("**Final answer:**\n\n- 12 apples", "12"),
    ("The answer is N = 15.", "15"), ("f(3) = 10", "10"), ("The answer is $x=15$", "15"),
    ("She earns $10/hour, so in 8 hours she earns $80.", "80"), ("2 + 2 = 4, minus 1 that's 3, quick maths", "3"),
    ("So there are 7 days left until the 5th.", "7"), ("The year is 2024. The answer is 12.", "12"), ("#### 1,080", "1080"),
    ("#### $18.00", "18"), ("10^6", "1000000"), ("10^{-2}", "0.01"), ("The answer is 1 000 000.", "1000000"),
    ("The answer is five hundred and twenty-three.", "523"), ("A dozen eggs", "12"), ("Answer: half", "0.5"), ("Answer = 7", "7"),
    ("The answer, therefore, is 7.", "7"), ("the answer is (7)", "7"), ("The answer's 7", "7"), ("You get 7 as the answer.", "7"),
    ("7 is our answer", "7"),
]  # fmt: skip

MORE_LETTERS = [
    ("The binomial is appropriate for **C. The number of drivers wearing belts.**", "C"), ("Its complexity is **O(N D T)**, for T steps.", None),
    ("The true statements are **I and III only**.", None), ("The court would likely rule **C. No contract because it was not accepted.**", "C"),
    ("D. all of the above, though note that it is **inadequacy**, not adequacy.", "D"), ("C. cannot be determined", "C"), ("B. A is correct", "B"),
    ("**Answer: B) Nitrogen**", "B"), ("The correct answer is **C. Water vapor**.", "C"), ("Therefore, the final answer is: $\\boxed{B}$", "B"),
    ("So the answer is option (b).", "B"), ("The best choice here is D because plants exhale it.", "D"),
    ("Let's see. A is wrong because... B is wrong. C is wrong. So D.", "D"),
    ("A is incorrect. B is incorrect. C is correct since it condenses. D is incorrect.", "C"), ("The answer: it's C", "C"),
    ("C, water vapor", "C"), ("I believe the answer to be C.", "C"),
    ("The options:\n\nA. oxygen - no\nB. nitrogen - no\nC. water vapor - yes\nD. carbon dioxide - no\n\nSo the correct option is C.", "C"),
    ("Option C is the correct answer", "C"), ("C is the answer.", "C"), ("The answer would be A.", "A"), ("Answer: A", "A"),
    ("answer: A oxygen", "A"), ("(A)", "A"), ("a", "A"), ("b", "B"), ("We conclude (D).", "D"), ("Hence, (C) is right.", "C"),
    ("Thus the correct answer is:\n\n**D**", "D"), ("Final answer: Water vapor (C)", "C"), ("Water vapor", "C"),
    ("The gas that condenses is water vapor, so the correct answer is C.", "C"), ("It can't be A. It can't be B. Therefore C.", "C"),
    ("Answer: The correct answer is C: water vapor.", "C"), ("<think>The user asks...\nA? B?</think>\n\nC", "C"),
    ("My answer: c) water vapor", "C"), ("[C]", "C"), ("{C}", "C"),
    (" C\n\nExplanation: Water vapor condenses. Options A, B and D are gases.", "C"),
    ("Correct Answer: C\nReasoning: A gas like B does not condense", "C"), ("The answer is therefore (C).", "C"), ("ANSWER - C", "C"),
    ("Answer is C", "C"), ("Ans: C", "C"), ("ans. C", "C"), ("The right answer is the third option, C.", "C"), ("I would choose option C", "C"),
    ("I'm going with C.", "C"), ("It's C.", "C"), ("It is (C)", "C"), ("C) Water vapor is the correct answer as A) and B) don't condense.", "C"),
    ("Both A and B are gases, so the answer must be C.", "C"), ("The answer isn't A, it's C", "C"), ("Answer: A or B", None), ("A and B", None),
    ("The correct answer is not listed.", None), ("Without more context I cannot determine the answer.", None),
    ("The correct answer is D (carbon dioxide), not C (water vapor).", "D"), ("\\text{(C)}", "C"), ("$\\textbf{(C)}$", "C"),
    ("The answer is \\textbf{C}", "C"), ("the correct letter is C", "C"), ("C: Water vapor\n\nQuestion: Which", "C"), ("option 3", "C"),
    ("A plant gives off water vapor", "C"), ("The answer is: C) water vapor.", "C"),
    ("After careful thought, I choose B, though D is tempting.", "B"), ("Answer: B. Wait, actually the answer is C.", "C"),
    ("I initially thought B. However, C is better.", "C"), ("So B can be ruled out, leaving C as the answer.", "C"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "right"), NUMBERS + MORE_NUMBERS)
def test_numbers(text, right):
    assert read_number(text) == right


@pytest.mark.parametrize(("text", "right"), CUT)
def test_numbers_of_a_reply_that_was_cut(text, right):
    assert read_number(text, ended=False) == right


@pytest.mark.parametrize(("text", "choices", "right"), LETTERS + [(text, FOUR, right) for text, right in MORE_LETTERS])
def test_letters(text, choices, right):
    assert read_letter(text, choices) == right


@pytest.mark.parametrize(("text", "right"), TEXTS)
def test_texts(text, right):
    assert read_text(text) == right


# ------------------------------------------------------------------------------------------------------------ properties

PIECES = [
    "The answer is ", "Answer: ", "42", "7", "$", "1,080", "twenty", "one", " of them", "\n", ". ", "**", "(B)", "C", " A ", "not ", "\\boxed{", "}",
    "#### ", "Question: ", "</think>", "=", " + ", "-", "water vapor", "oxygen", "Step 1: ", "I ", "is correct", "<answer>", "unknown", "1. ", "½",
]  # fmt: skip
MIXTURE = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@given(MIXTURE | st.text(max_size=80), st.booleans())
def test_whatever_the_text_what_is_read_is_canonical_or_nothing(text, ended):
    number, letter, said = read_number(text, ended=ended), read_letter(text, FOUR, ended=ended), read_text(text)
    assert number is None or normalize_number(number) == number
    assert letter is None or letter in "ABCD"
    assert said is None or said.strip() == said != ""


@given(MIXTURE, st.integers(-(10**9), 10**9))
def test_the_last_stated_number_counts_behind_any_text(text, number):
    before = text.replace("Question", "").replace("</think>", "").replace("<answer>", "").replace("\\boxed{", "")
    assert read_number(f"{before}\n\nThe answer is {number:,}.") == str(number)


@given(MIXTURE, st.sampled_from("ABCD"))
def test_the_last_stated_letter_counts_behind_any_text(text, letter):
    before = text.replace("Question", "").replace("</think>", "").replace("<answer>", "").replace("\\boxed{", "")
    assert read_letter(f"{before}\n\nThe answer is ({letter}).", FOUR) == letter


@given(st.integers(-(10**9), 10**9).filter(lambda n: abs(n) > 12), st.integers(1, 8))
def test_a_number_that_the_limit_cut_is_not_taken_for_whole(number, missing):
    text = f"The answer is {number}"
    assert read_number(text) == str(number)
    assert read_number(text[:-missing], ended=False) is None
    assert read_number(f"{text} apples", ended=False) == str(number)


@given(MIXTURE)
def test_a_next_question_is_not_read(text):
    text = text.replace("</think>", "")  # which would say that all before it was thought
    assert read_number(f" 18\n\nQuestion: {text}\nAnswer: 7") == "18"
    assert read_letter(f" B\n\nQuestion: {text}\nAnswer: C", FOUR) == "B"
    assert read_text(f" Paris\n\nQuestion: {text}\nAnswer: Rome") == "Paris"


@pytest.mark.parametrize("read", [read_number, read_letter, read_text])
@pytest.mark.parametrize(
    "piece", ["A ", "answer is ", "B is ", "not ", "\\boxed{", "<answer>", "#### ", "(A), ", "Question: ", "the ", "1. ", "one "]
)
def test_long_hostile_texts_take_no_time(read, piece):
    start = time.process_time()
    read(piece * 10_000)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The U.S.", "us", True), (" Paris! ", "paris", True), ("an apple", "apple", True), ("A", "the", False), ("A", "a", True),
        ("3.5", "35", False), ("-5", "5", False), ("O'Neill", "oneill", True), ("caf\u00e9", "cafe\u0301", True),
        ("well-known", "well known", True), ("+", "-", False), ("U.S.A.", "usa", True), ("It ended. So did we", "it ended so did we", True),
        ("ﬁne", "fine", True), ("no", "not", False), ("12:30", "1230", False), ("", "a", False),
    ],
)  # fmt: skip
def test_texts_are_compared_without_what_does_not_count(one, other, same):
    assert (normalized_answer(one) == normalized_answer(other)) is same
