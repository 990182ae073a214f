"""Wikipedia continuation: from a stretch of an article, predict what follows.

An example is a (context, target) pair of exactly `context_tokens` and `target_tokens` tokens of the tokenizer at hand,
cut from one article, between words. Evaluated by log-likelihood; there is no answer to extract.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from markovlm.errors import UserError
from markovlm.tasks.base import Example, HubSource, Loaded, LoadRequest
from markovlm.tasks.files import SUFFIXES, read_rows, read_text
from markovlm.tasks.rows import BadRow, DataRow
from markovlm.tasks.sources import Dataset

WIKITEXT_SUFFIXES = (".raw", ".txt", ".tokens")
DEFAULTS = {"context_tokens": 200, "target_tokens": 100, "windows_per_article": 1, "max_articles": 5000}
_MAX_SHIFT = 256  # tokens by which a window may move to find a cut between words
_CHARACTERS_PER_TOKEN = 12  # more than any tokenizer packs on average; bounds what is tokenized of a long article

_ENDS = ".?!:*)'\"\N{RIGHT DOUBLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"  # of finished lines
_SECTION = re.compile(r"\s*(=(?: =)+) (.+) \1\s*")
_HEADING = re.compile(r"\s*(=(?: =)*) (.+) \1\s*")
_DETOKENIZE: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r" @([-,.])@ ", r"\1"),
        (r" ([,.;:?!%)\]])(?= |$)", r"\1"),
        (r"([(\[]) ", r"\1"),
        (r'" ([^"]*?) "', r'"\1"'),
        (r" ('s|'t|'re|'ve|'ll|'d|'m|n't)\b", r"\1"),
        (r"(?<=\S)(['\u2019]) (?=s\b)", r"\1"),
        (r"([$£€]) (?=\d)", r"\1"),
        (r" {2,}", " "),
    )
)


@dataclass(frozen=True, slots=True)
class Window:
    """How articles are cut, in tokens."""

    context_tokens: int
    target_tokens: int
    windows_per_article: int
    max_articles: int


def window_from(options: Mapping[str, Any]) -> Window:
    """Raises UserError if an option is not a positive whole number."""
    values = {**DEFAULTS, **options}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"task wiki: option {name} is {value!r}, expected a whole number of at least 1")
    return Window(**values)


def parse(row: DataRow) -> Example:
    """A whole article, for now: `finish` cuts it."""
    return Example(row.text("title") if row.get("title") else "", row.text("text"), "")


def articles_of(lines: Iterable[tuple[str, str]], stem: str) -> Iterator[DataRow]:
    """Articles of WikiText lines `(where, line)`. A line ` = Title = ` begins one, ` = = Sub = = ` a section.

    Sentences that a formula broke into lines can look like titles (` = 1 henry and capacitance C = `): a line between
    an unfinished sentence and one that goes on in lower case or with a digit is text.
    """
    start, title, body, index = "", "", list[str](), 0
    held = [(where, line.strip()) for where, line in lines if line.strip()]
    for i, (where, line) in enumerate(held):
        following = held[i + 1][1] if i + 1 < len(held) else ""
        if _is_title(line, held[i - 1][1] if i else "", following):
            if body:
                yield _article(start, index, stem, title, body)
                index += 1
            match = cast(re.Match[str], _HEADING.fullmatch(line))
            start, title, body = where, detokenized(match[2]), []
        else:
            start = start or where
            body.append(line)
    if body:
        yield _article(start, index, stem, title, body)


def detokenized(text: str) -> str:
    """WikiText's spaced tokens as ordinary writing: `guest @-@ starring role ,` -> `guest-starring role,`."""
    for pattern, replacement in _DETOKENIZE:
        text = pattern.sub(replacement, text)
    return text.strip()


def read_articles(path: Path) -> Iterator[DataRow | BadRow]:
    """Articles of a WikiText file, of a JSON object `{title: text}`, or of rows with `title` and `text`."""
    if path.suffix.lower() in WIKITEXT_SUFFIXES:
        lines = ((f"{path}:{number}", line) for number, line in enumerate(read_text(path).split("\n"), start=1))
        yield from articles_of(lines, path.stem)
        return
    for row in read_rows(path):
        if isinstance(row, BadRow) or row.get("text") or not all(isinstance(text, str) for text in row.values.values()):
            yield row
            continue
        for index, (title, text) in enumerate(row.values.items()):
            yield DataRow(f"{row.where} {title!r}", index, row.stem, {"title": title, "text": text})


def cut(text: str, window: Window, tokenizer: Any) -> list[tuple[str, str]]:
    """The first `windows_per_article` pairs of an article that do not overlap; none where it is too short.

    Without a tokenizer, words stand in for tokens.
    """
    length = window.context_tokens + window.target_tokens
    budget = (length + _MAX_SHIFT) * window.windows_per_article * _CHARACTERS_PER_TOKEN
    text = text if len(text) <= budget else text[:budget].rpartition(" ")[0]
    spans = _token_spans(text, tokenizer)
    pairs: list[tuple[str, str]] = []
    first = tried = 0
    while first + length <= len(spans) and len(pairs) < window.windows_per_article:
        pair = _pair(text, spans[first : first + length], window.context_tokens, tokenizer)
        first, tried = (first + length, 0) if pair else (first + 1, tried + 1)
        if pair:
            pairs.append(pair)
        elif tried > _MAX_SHIFT:
            break
    return pairs


def _is_title(line: str, before: str, after: str) -> bool:
    match = _HEADING.fullmatch(line)
    if match is None or match[1] != "=" or match[2].startswith("=") or match[2].endswith("="):
        return False
    unfinished = before != "" and not _HEADING.fullmatch(before) and before[-1] not in _ENDS
    goes_on = after != "" and (after[0].islower() or after[0].isdigit())
    return not (unfinished and goes_on)


def _article(where: str, index: int, stem: str, title: str, body: list[str]) -> DataRow:
    lines = [detokenized(match[2] if (match := _SECTION.fullmatch(line)) else line) for line in body]
    return DataRow(where, index, stem, {"title": title, "text": "\n".join(lines)})


def _read_hub(rows: Iterable[DataRow | BadRow]) -> Iterator[DataRow]:
    lines = ((row.where, str(row.values.get("text", ""))) for row in rows if isinstance(row, DataRow))
    yield from articles_of(lines, "")


def _token_spans(text: str, tokenizer: Any) -> list[tuple[int, int]]:
    """Where each token stands in the text."""
    if tokenizer is None:
        return [match.span() for match in re.finditer(r"\s*\S+", text)]
    if not getattr(tokenizer, "is_fast", False):
        raise UserError("task wiki: cutting by tokens needs a fast tokenizer (one with tokenizer.json)")
    return list(tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"])


def _pair(text: str, spans: list[tuple[int, int]], context_tokens: int, tokenizer: Any) -> tuple[str, str] | None:
    """Context and target of one window, if both lie between words and have the same tokens by themselves."""
    begin, middle, end = spans[0][0], spans[context_tokens][0], spans[-1][1]
    if not (_between_words(text, begin) and _between_words(text, middle)):
        return None
    context, target = text[begin:middle].strip(), text[middle:end].strip()
    counts = len(_token_spans(context, tokenizer)), len(_token_spans(f" {target}", tokenizer))
    return (context, target) if counts == (context_tokens, len(spans) - context_tokens) else None


def _between_words(text: str, position: int) -> bool:
    return position == 0 or text[position].isspace() or text[position - 1].isspace()


def _finish(articles: list[Example], request: LoadRequest) -> Loaded:
    window = window_from(request.options)
    examples: list[Example] = []
    short = 0
    for article in articles[: window.max_articles]:
        if request.limit is not None and len(examples) >= request.limit:
            break
        pairs = cut(article.question, window, request.tokenizer)
        short += not pairs
        many = window.windows_per_article > 1
        examples += [Example(f"{article.id}#{i}" if many else article.id, *pair) for i, pair in enumerate(pairs)]
    size = f"{window.context_tokens} + {window.target_tokens} tokens"
    notes = [f"{request.split}: {short} articles are too short for {size}"] if short else []
    if request.tokenizer is None:
        notes.append("no tokenizer was given: texts are cut by words instead of tokens")
    return Loaded(examples, notes=tuple(notes))


def _adapt(dataset: Dataset, options: Mapping[str, Any]) -> Dataset:
    return replace(dataset, max_answer_tokens=window_from(options).target_tokens)  # the prompt names it


TASK = Dataset(
    name="wiki",
    summary="continue a Wikipedia article from an excerpt; measured by log-likelihood",
    prompt_kind="continuation",
    answer_type="text",
    default_cot_tokens=50,
    max_answer_tokens=DEFAULTS["target_tokens"],
    extractors=(),
    hub=HubSource("Salesforce/wikitext", "wikitext-103-raw-v1", {"train": "train", "dev": "validation", "test": "test"}),
    licence="CC BY-SA 3.0 and 4.0",
    parse=parse,
    option_help={
        "context_tokens": "tokens of context, default 200",
        "target_tokens": "tokens to predict, default 100",
        "windows_per_article": "pairs cut from one article, default 1",
        "max_articles": "articles used, default 5000",
    },
    adapt=_adapt,
    suffixes=(*SUFFIXES, *WIKITEXT_SUFFIXES),
    read_file=read_articles,
    read_hub=_read_hub,
    finish=_finish,
)
