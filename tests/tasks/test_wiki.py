"""Wikipedia continuation: articles found, written as ordinary text, and cut by tokens."""

from __future__ import annotations

import json

import pytest

from markovlm.errors import UserError
from markovlm.tasks import get_task
from markovlm.tasks.base import LoadRequest
from markovlm.tasks.wiki import Window, cut, detokenized, read_articles


@pytest.fixture(scope="module")
def tokenizer():
    """A byte-level BPE tokenizer, trained here: most words take several tokens."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    made = ByteLevelBPETokenizer()
    made.train_from_iterator(["the guest of the house, in the year of the long text that goes on"] * 9, vocab_size=320)
    return PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, bos_token="<s>")


def tokens(tokenizer, text):
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_articles_of_wikitext(fixtures):
    first, second = read_articles(fixtures / "wiki" / "wiki.test.raw")
    assert first.get("title") == "First Article"
    assert second.get("title") == "Second Article (film)"
    assert first.get("text").split("\n") == [
        'The guest-starring role, a "quoted word", cost 4,000 or 2.5 (about).',
        "Section",
        "The half-section has inductance L",
        "= 1 henry and capacitance C =",  # a sentence that a formula broke, not a title
        "1 farad. More words follow here.",
    ]
    assert first.where.endswith("wiki.test.raw:1")
    assert second.where.endswith("wiki.test.raw:7")


def test_articles_of_json(fixtures, tmp_path):
    articles = list(read_articles(fixtures / "wiki" / "articles.json"))
    assert [(a.get("title"), a.get("text")) for a in articles] == [
        ("Pláto", "First words of an article."),
        ("Second", "Other words stand here."),
    ]
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"id": "1", "title": "T", "text": "words"}))
    assert [a.get("text") for a in read_articles(rows)] == ["words"]


@pytest.mark.parametrize(
    ("spaced", "text"),
    [
        ("half @-@ life of 1 @,@ 000 . 5 @.@ 2 !", "half-life of 1,000. 5.2!"),
        ('He said " no " ; she \'s ( here ) .', 'He said "no"; she\'s (here).'),
        ("plain words stay", "plain words stay"),
    ],
)
def test_wikitext_as_ordinary_writing(spaced, text):
    assert detokenized(spaced) == text


LONG = "\n".join(
    f"In the year {year} the guests of the house wrote a long, unlikely text about themselves." for year in range(1900, 1960)
)


def test_windows_have_exactly_their_tokens_and_begin_between_words(tokenizer):
    pairs = cut(LONG, Window(40, 25, 4, 9), tokenizer)
    assert len(pairs) == 4
    position = 0
    for context, target in pairs:
        assert tokens(tokenizer, context) == 40
        assert tokens(tokenizer, f" {target}") == 25
        start = LONG.index(context, position)
        assert LONG[start + len(context) :].lstrip().startswith(target)
        assert start == 0 or (LONG[start - 1].isspace() and LONG[start + len(context)].isspace())
        position = LONG.index(target, start + len(context)) + len(target)  # no window overlaps the one before
    assert cut(LONG, Window(40, 25, 4, 9), tokenizer) == pairs


def test_short_articles_give_nothing(tokenizer):
    assert cut("too short", Window(40, 25, 1, 9), tokenizer) == []
    assert cut("", Window(1, 1, 1, 9), tokenizer) == []
    assert cut("x" * 5000, Window(40, 25, 1, 9), tokenizer) == []  # no word ends here


def test_a_window_never_crosses_articles(load, fixtures, tokenizer):
    loaded = load(
        "wiki",
        fixtures / "wiki" / "wiki.test.raw",
        tokenizer=tokenizer,
        context_tokens=12,
        target_tokens=6,
        windows_per_article=50,
    )
    first, second = (article.get("text") for article in read_articles(fixtures / "wiki" / "wiki.test.raw"))
    assert len(loaded.examples) == 3  # so many fit
    for example in loaded.examples:
        text = first if "/First Article#" in example.id else second
        assert example.question in text
        assert example.answer in text
    assert len({e.id for e in loaded.examples}) == len(loaded.examples)


def test_options_and_notes(load, fixtures, tokenizer):
    words = load("wiki", fixtures / "wiki" / "wiki.test.raw", context_tokens=4, target_tokens=2)
    assert words.examples[0].question == "The guest-starring role, a"
    assert words.examples[0].answer == '"quoted word",'
    assert "no tokenizer was given: texts are cut by words" in words.notes[0]
    assert (
        load("wiki", fixtures / "wiki" / "wiki.test.raw", context_tokens=4, target_tokens=2, max_articles=1).examples
        == words.examples[:1]
    )
    with pytest.raises(UserError, match="option context_tokens is 0, expected a whole number of at least 1"):
        get_task("wiki", {"context_tokens": 0})
    with pytest.raises(UserError, match=r"no usable example in the test split"):
        load("wiki", fixtures / "wiki" / "wiki.test.raw", tokenizer=tokenizer)

    class Slow:
        is_fast = False

    with pytest.raises(UserError, match="needs a fast tokenizer"):
        load("wiki", fixtures / "wiki" / "wiki.test.raw", tokenizer=Slow())


@pytest.mark.data("wikipedia")
def test_wiki_real(load, real, tokenizer):
    path = real / "wikipedia" / "wiki.test.raw"
    articles = list(read_articles(path))
    # 62 lines look like titles; two of them are pieces of a sentence of "Constant k filter" that formulas broke up.
    assert len(articles) == 60
    titles = [a.get("title") for a in articles]
    assert titles[0] == "Robert Boulter"
    assert titles[-1] == "The Hustler (film)"
    assert "Ise-class battleship" in titles
    assert not any("henry" in title or "rad / s" in title for title in titles)
    text = "\n".join(a.get("text") for a in articles)
    assert "@-@" not in text
    assert "@,@" not in text
    assert "@.@" not in text
    assert "\r" not in text

    request = LoadRequest("test", path, tokenizer=tokenizer)
    loaded = get_task("wiki").load(request)
    assert get_task("wiki").load(request) == loaded
    assert 50 < len(loaded.examples) <= 60
    for example in loaded.examples:
        assert tokens(tokenizer, example.question) == 200
        assert tokens(tokenizer, f" {example.answer}") == 100
    folds = [load("wiki", path, split, disjoint=True).examples for split in ("train", "dev", "test")]
    assert [len(fold) for fold in folds] == [36, 6, 18]
    assert len({e.id for fold in folds for e in fold}) == 60

    plain = load("wiki", real / "wikipedia" / "wikipedia_data.json", context_tokens=20, target_tokens=10)
    assert [e.id.rpartition("/")[2] for e in plain.examples][:2] == ["Roger Apéry", "Owen Richardson"]
    assert len(plain.examples) == 7
