"""The words around states, chunks and questions; texts of one's own; a task of a stranger's, as docs/chains.md has it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models
from transformers import PreTrainedTokenizerFast

from markovlm.chains.prompts import NOTES, PAST, UPDATE, choose_chain_style, words
from markovlm.chains.texts import cut_by_tokens
from markovlm.cli.main import main
from markovlm.errors import UserError
from markovlm.tasks import get_task
from markovlm.tasks.base import LoadRequest
from markovlm.tasks.chain import ChainExample, Query, chain_example
from markovlm.tasks.ledger_data import LedgerSpec, draw_ledger

DOCS = Path(__file__).parents[2] / "docs" / "chains.md"


def tokenizer(template: str | None = None, specials: tuple[str, ...] = ()) -> Any:
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0}, "<unk>")), bos_token="<s>")
    made.add_tokens([AddedToken(text, special=True) for text in specials])
    made.chat_template = template
    return made


CHAT = "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
STYLES = {"plain": tokenizer(), "chat": tokenizer(CHAT), "compact": tokenizer(None, (NOTES, UPDATE, PAST))}
TASK = "Read a text in pieces and keep notes of at most 9 tokens: nothing else is kept."
GOLDEN = {  # slots are filled with [state], [chunk] or [question], what was read so far with [past]
    ("write", "plain", False): f"{TASK}\nNotes:[state]\nText:[chunk]\nNew notes:",
    ("continue", "plain", False): "Notes:[state]\nText:",
    ("ask", "plain", False): "Notes:[state]\nQuestion:[question]\nAnswer:",
    ("ask", "plain", True): "Text so far:[past]\nNotes:[state]\nQuestion:[question]\nAnswer:",
    ("write", "chat", False): f"<|user|>{TASK}\nNotes:[state]\nText:[chunk]<|end|><|assistant|>New notes:",
    ("continue", "chat", False): "<|user|>Notes:[state]<|end|><|assistant|>Text:",
    ("ask", "chat", True): "<|user|>Text so far:[past]\nNotes:[state]\nQuestion:[question]<|end|><|assistant|>Answer:",
    ("write", "compact", False): "<bos><|notes|>[state]<|text|>[chunk]<|update|>",
    ("continue", "compact", False): "<bos><|notes|>[state]<|text|>",
    ("ask", "compact", True): "<bos><|past|>[past]<|notes|>[state]<|question|>[question]<|answer|>",
}


@pytest.mark.parametrize(("frame", "style", "in_sight"), GOLDEN)
def test_golden_frames(frame: Any, style: str, in_sight: bool) -> None:
    assert choose_chain_style(STYLES[style], "auto") == style
    found = words(frame, style, 9, STYLES[style], None, in_sight)
    slots = ["[state]", "[chunk]" if frame == "write" else "[question]"]
    text = found.before_past + ("[past]" if in_sight else "")
    for piece, slot in zip(found.pieces, [*slots[: len(found.pieces) - 1], ""], strict=True):
        text += piece + slot
    assert text == GOLDEN[frame, style, in_sight]


def test_a_style_that_the_tokenizer_has_not_is_refused() -> None:
    with pytest.raises(UserError, match=r"prompt\.style: compact prompts of chains need"):
        choose_chain_style(STYLES["plain"], "compact")
    with pytest.raises(UserError, match=r"prompt\.style: chat needs a tokenizer with a chat template"):
        choose_chain_style(STYLES["plain"], "chat")


def test_a_ledger_is_what_it_says() -> None:
    """Balances added up here from the text alone; no account twice in a chunk; the answer settled where `fact` says."""
    spec = LedgerSpec(
        chunks=7,
        min_chunks=3,
        accounts=5,
        events=3,
        questions=4,
        max_amount=12,
        ask_each=True,
        names=("al", "bo", "cy", "di", "ed", "fi"),
    )
    lengths = set()
    for number in range(50):
        ledger = draw_ledger(spec, "test", 0, number)
        lengths.add(len(ledger.chunks))
        balance: dict[str, int] = {}
        last: dict[str, int] = {}
        asked = 0
        for t, chunk in enumerate(ledger.chunks, 1):
            events = re.findall(r"(\w+?)([+-]\d+)(?: |$)", chunk)
            assert len({name for name, _ in events}) == len(events) == 3
            for name, amount in events:
                balance[name] = balance.get(name, 0) + int(amount)
                last[name] = t
            assert all(0 <= value <= 40 for value in balance.values())
            for query in [query for query in ledger.queries if query.after == t]:
                asked += 1
                assert (query.answer, query.fact) == (str(balance[query.question[:-1]]), last[query.question[:-1]])
        assert asked == len(ledger.queries)
        assert len(balance) <= 5
    assert lengths == {3, 4, 5, 6, 7}
    assert draw_ledger(spec, "dev", 0, 1) != draw_ledger(spec, "test", 0, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"events": 5}, r"option events: must be in 1\.\.accounts \(4\), got 5"),
        ({"chunks": "four"}, "option chunks: must be int, got 'four'"),
        ({"min_chunks": 9}, r"option min_chunks: must be in 1\.\.4, got 9"),
        ({"names": "a,b,b2,c"}, "option names: must consist of letters only"),
        ({"max_amount": 30}, "option max_balance: must be at least twice max_amount"),
        ({"chunk": 3}, "has no option 'chunk'"),
    ],
)
def test_an_impossible_ledger_is_said_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        get_task("ledger", options)


def test_documents_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows: list[dict[str, Any]] = [
        {"id": "a", "chunks": ["one", "two"], "questions": [{"question": "which?", "answer": "one", "fact": 1}]},
        {"text": "first\nline\n\nsecond", "questions": [{"question": "q", "answer": "x", "after": 1}], "start": "known"},
        {"text": "only", "questions": [{"question": "q", "answer": "x", "after": 2}]},
        {"text": "only", "questions": [{"question": "q"}]},
        {"text": "only", "questions": "q"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = get_task("documents").load(LoadRequest("test", data=file))
    first, second = loaded.examples
    assert isinstance(first, ChainExample)
    assert isinstance(second, ChainExample)
    assert first.queries == (Query("which?", "one", 2, 1),)
    assert first.queries[0].distance == 1
    assert (second.chunks, second.start, second.queries[0].after) == (("first\nline", "second"), "known", 1)
    assert [line.rpartition(": ")[2] for line in loaded.skipped] == [
        "'q' is asked after chunk 2 of 1",
        "'questions[0].answer' is NoneType, expected text",
        "'questions' is str, expected a list of objects",
    ]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (((), ()), "at least one chunk"),
        ((("a", ""), ()), "none may be empty"),
        ((("a",), (Query("q", "x", 2),)), "asked after chunk 2 of 1"),
        ((("a", "b"), (Query("q", "x", 1, 2),)), "has its fact in chunk 2"),
        ((("a",), (Query("q", "", 1),)), "has no answer"),
    ],
)
def test_an_impossible_text_is_refused(parts: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        chain_example("x", *parts)


def test_a_text_is_cut_by_tokens(tiny_models: dict[str, Path]) -> None:
    from support.tiny import char_tokenizer

    assert cut_by_tokens("abcdefgh", 3, char_tokenizer()) == ("abc", "def")
    assert cut_by_tokens("abcdefgh", 3, char_tokenizer(), keep_rest=True) == ("abc", "def", "gh")
    assert cut_by_tokens("ab", 3, char_tokenizer()) == ("ab",)


def test_a_strangers_task_goes_all_the_way(
    tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The template of docs/chains.md as it stands: trained, evaluated at other lengths too, asked, damaged."""
    from markovlm.plugins import _loaded
    from markovlm.registry import TASKS

    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    file = tmp_path / "rooms.py"
    file.write_text(code)
    flags = {
        "chain.kind": "notes_then_questions", "chain.state_tokens": 4, "training.steps": 1, "training.eval_every": 1,
        "evaluation.dev_size": 2, "rollouts.group_size": 2, "rollouts.questions_per_step": 1, "lora.rank": 2,
    }  # fmt: skip
    given = [part for key, value in flags.items() for part in (f"--{key}", str(value))]
    before = set(_loaded)
    try:
        run = ["train", "--plugin", str(file), "--task", "rooms", "--model", str(tiny_models["llama"]), *given]
        assert main([*run, "--out", str(tmp_path / "run"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["steps"] == 1

        def said(*arguments: str) -> dict[str, Any]:
            assert main([*arguments, "--json"]) == 0
            return json.loads(capsys.readouterr().out)

        out, text = str(tmp_path / "run"), tmp_path / "text.txt"
        evaluated = said("eval", out, "--limit", "2", "--lengths", "2,6")
        assert evaluated["results"][0]["predicted"]["answer"]["own"]["n"] == 2
        assert [(row["chunks"], row["states"]["written"]) for row in evaluated["lengths"]] == [(2, 4), (6, 12)]
        text.write_text("Zoe goes to the moon.\nAnn goes to bed.\nBob stays.\nZoe comes back!\nAnn wakes.\n")
        asked = said("ask", out, "Where is Zoe?", "--text", str(text))
        assert (len(asked["states"]), max(asked["tokens"]) <= 4) == (5, True)
        rows = said("perturb", out, "--limit", "2", "--only", "other_cot")["damage"]["rows"]
        assert {row["lag"] for row in rows if row["predicted"] == "answer"} == {0, 1, 2, 3}
    finally:
        TASKS.remove([name for name in TASKS if name == "rooms"])
        for one in set(_loaded) - before:
            _loaded.pop(one)
