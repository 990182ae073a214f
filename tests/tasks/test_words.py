"""The word problems: what the text says is what is solved, and nothing of a held-out split is in training."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from markovlm.errors import UserError
from markovlm.tasks import get_task
from markovlm.tasks.arithmetic_data import SPLITS
from markovlm.tasks.base import LoadRequest
from markovlm.tasks.equations import equations
from markovlm.tasks.words import problem_of
from markovlm.tasks.words_data import Problem, Step, WordsSpec, draw, follow, rewritten
from markovlm.tasks.words_pools import QUESTIONS, TEMPLATES
from support.scripts import load

TASK = get_task("words")
templates_of, words_of = load("words_splits").templates_of, load("words_splits").words_of
PROBLEMS = {split: [draw(WordsSpec(distractors=2), split, 0, i) for i in range(300)] for split in SPLITS}
ALL = [problem for problems in PROBLEMS.values() for problem in problems]

# what a sentence does to the count, read from its words alone: a second reader of the text
LOSING = r"loses|sells|gives away|uses|drops|breaks|throws away|takes|(?:{N}|She|she|He|he) (?:gives|sends)"
DISTRACTING = re.compile(r"years old|\d+ (miles|steps) ")


def other_things(problem: Problem) -> re.Pattern[str]:
    return re.compile(rf"\b({'|'.join(words_of(problem.split) - {problem.name, problem.other, problem.thing})})\b")


def read(problem: Problem) -> int:
    """The answer, from the sentences as told. Whose sentence it is comes from the names, what it does from its verb."""
    told = [s for s in problem.sentences if not DISTRACTING.search(s) and not other_things(problem).search(s)]
    mine = theirs = 0
    for i, sentence in enumerate(told):
        numbers = list(map(int, re.findall(r"\d+", sentence)))
        amount = numbers[0] * numbers[1] if len(numbers) == 2 else numbers[0]
        if "times as many" in sentence:
            theirs = mine * amount
        elif f"more {problem.thing} than" in sentence:
            theirs = mine + amount
        elif f"fewer {problem.thing} than" in sentence:
            theirs = mine - amount
        elif i == 0:
            mine = amount
        elif re.search(LOSING.replace("{N}", problem.name), sentence):
            mine -= amount
        else:
            mine += amount
    if "together" in problem.question_sentence:
        return mine + theirs
    return theirs if problem.other in problem.question_sentence else mine


def test_the_answer_follows_from_the_sentences() -> None:
    assert [read(problem) for problem in ALL] == [problem.answer for problem in ALL]
    assert {len(problem.steps) for problem in ALL} == {1, 2, 3, 4}


def test_the_chain_of_thought_is_one_true_equation_a_step() -> None:
    for problem in ALL:
        found = equations(problem.cot)
        assert len(found) == len(problem.steps)
        assert all(equation.holds for equation in found)
        assert re.findall(r"\d+", problem.cot)[-1] == str(problem.answer)
        assert all(0 < step.result <= 99 for step in problem.steps)


def test_no_name_thing_or_template_is_in_two_splits() -> None:
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not words_of(one) & words_of(other)
        assert not templates_of(one) & templates_of(other)
        assert {p.question for p in PROBLEMS[one]}.isdisjoint({p.question for p in PROBLEMS[other]})
    for pools in (*TEMPLATES.values(), *QUESTIONS.values()):
        assert all(len(pools[split]) >= 2 for split in SPLITS)


def test_the_text_of_a_split_has_nothing_of_another() -> None:
    for split, problems in PROBLEMS.items():
        foreign = frozenset().union(*(words_of(other) for other in SPLITS if other != split))
        for problem in problems:
            assert not foreign & set(re.findall(r"\w+", problem.question + problem.cot))
            assert templates_of(split).issuperset(problem.templates)


def test_every_word_of_a_held_out_template_is_known_from_training() -> None:
    known = set(re.findall(r"[A-Za-z]+", " ".join(templates_of("train"))))
    assert set(re.findall(r"[A-Za-z]+", " ".join(templates_of("test") | templates_of("dev")))) <= known


def test_the_question_stands_at_either_end() -> None:
    first = [p for p in ALL if p.question_first]
    assert 0.15 < len(first) / len(ALL) < 0.35
    assert all(p.question.startswith(p.question_sentence) for p in first)
    assert all(p.question.endswith(p.question_sentence) for p in ALL if not p.question_first)
    for where, wanted in (("start", True), ("end", False)):
        assert {draw(WordsSpec(question=where), "test", 0, i).question_first for i in range(30)} == {wanted}


def test_distractors_change_the_text_alone() -> None:
    distracted = [p for p in ALL if p.distractors]
    assert len(distracted) > 400
    for problem in distracted:
        bare = replace(problem, distractors=())
        assert (bare.answer, bare.cot) == (problem.answer, problem.cot)
        assert len(problem.sentences) == len(bare.sentences) + len(problem.distractors)
        assert problem.sentences[0] == bare.sentences[0]  # the story begins before anything distracts from it


def test_a_pronoun_means_the_person_named_last() -> None:
    for problem in ALL:
        for before, sentence in zip(problem.sentences, problem.sentences[1:], strict=False):
            if re.match(r"(She|He|Then she|Then he)\b", sentence):
                assert problem.other not in before


def test_a_changed_fact_is_a_problem_again() -> None:
    rng = random.Random(0)
    changed = 0
    for problem in ALL[:300]:
        event = rng.randrange(len(problem.events))
        try:
            other = problem.with_number(event, problem.events[event].number + 1)
        except ValueError:
            continue
        changed += 1
        assert read(other) == other.answer
        if problem.asked == "own":
            assert other.answer != problem.answer
    assert changed > 250
    problem = draw(WordsSpec(2, 2), "test", 0, 1)
    with pytest.raises(ValueError, match="makes a result negative"):
        replace(problem, events=(problem.events[0], replace(problem.events[1], kind="lose"))).with_number(1, 999)


def test_names_are_swapped_everywhere() -> None:
    problem = next(p for p in PROBLEMS["test"] if p.thing == "pears")
    swapped = problem.renamed({problem.name: "Zoe", "pears": "nuts"})
    assert not re.search(rf"\b({problem.name}|pears)\b", swapped.question + swapped.cot)
    assert swapped.cot.startswith("First Zoe has")
    assert swapped.answer == problem.answer


def test_what_follows_from_a_changed_chain_of_thought() -> None:
    # 3 * 5 = 15, 14 + 15 = 29, 29 - 8 = 21. With 3 * 6: 18, 32, 24; with 15 misread as 17: 31, 23; with - 9: 20.
    steps = (Step(3, "*", 5, 15, None, None), Step(14, "+", 15, 29, None, 0), Step(29, "-", 8, 21, 1, None))
    assert follow(steps, 0, right=6)[-1].result == 24
    assert follow(steps, 0, result=17)[-1].result == 23
    assert follow(steps, 2, right=9)[-1].result == 20
    assert follow(steps, 1, left=20)[-1].result == 27
    with pytest.raises(ValueError, match="must be left, right or result"):
        follow(steps, 0, middle=1)
    sentences = (
        "First Maya has 14 pears.",
        "3 bags of 5 are 3 * 5 = 15.",
        "Add them, 14 + 15 = 29.",
        "Take away 8, 29 - 8 = 21.",
    )
    assert rewritten(sentences, follow(steps, 0, right=6))[1:] == (
        "3 bags of 5 are 3 * 6 = 18.",
        "Add them, 14 + 18 = 32.",
        "Take away 8, 32 - 8 = 24.",
    )
    with pytest.raises(ValueError, match="as many as"):
        rewritten(sentences, steps[:1])


@pytest.mark.parametrize("index", range(0, 300, 25))
def test_provenance_is_what_the_problem_says(index: int) -> None:
    """A changed number in the problem and the same change in its steps come to the same answer."""
    problem = PROBLEMS["test"][index]
    at = next(i for i, step in enumerate(problem.steps) if step.right_from is None)
    event = next(e for e in range(len(problem.events)) if problem.events[e].kind != "start")
    number = problem.events[event].number + 1
    changed = replace(
        problem, events=(*problem.events[:event], replace(problem.events[event], number=number), *problem.events[event + 1 :])
    )
    assert follow(problem.steps, at, right=number) == changed.steps
    assert follow(problem.steps, 0) == problem.steps


def test_the_task_gives_fixed_lists_and_an_endless_stream() -> None:
    stream = TASK.load(LoadRequest("train", seed=3)).examples
    assert stream[123_456] == stream[123_456 - len(stream)]
    assert stream[5:7] == [stream[5], stream[6]]
    assert stream[0] != TASK.load(LoadRequest("train", seed=4)).examples[0]
    with pytest.raises(IndexError):
        stream[len(stream)]
    for split, size in (("dev", 200), ("test", 500)):
        examples = TASK.load(LoadRequest(split)).examples
        assert len(examples) == len({e.question for e in examples}) == size
        assert TASK.load(LoadRequest(split, seed=9, limit=20)).examples == examples[:20]


def test_an_id_leads_to_the_facts() -> None:
    options = {"min_steps": 2, "max_steps": 3, "distractors": 0}
    for example in TASK.load(LoadRequest("dev", limit=20, options=options)).examples:
        problem = problem_of(example.id, options)
        assert (problem.question, str(problem.answer)) == (example.question, example.answer)
    with pytest.raises(UserError, match="is not a question of task words"):
        problem_of("arithmetic/test/1+2")


def test_templates_of_training_with_held_out_names() -> None:
    problem = draw(WordsSpec(templates="train"), "test", 0, 0)
    assert templates_of("train").issuperset(problem.templates)
    assert problem.words <= words_of("test")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 2}, "no option 'steps'"),
        ({"min_steps": 3, "max_steps": 2}, "option max_steps: must be 3 to 4, got 2"),
        ({"max_steps": "2"}, "option max_steps: must be an integer"),
        ({"distractors": 4}, "option distractors: must be 0 to 3"),
        ({"max_value": 5}, "option max_value: must be 20 to 999"),
        ({"templates": "mine"}, "option templates: must be held_out or train"),
        ({"question": "middle"}, "option question: must be either, end or start"),
    ],
)
def test_bad_options(options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        get_task("words", options)


def test_it_takes_no_file(tmp_path) -> None:
    with pytest.raises(UserError, match="task words generates its questions"):
        TASK.load(LoadRequest("test", data=tmp_path))
