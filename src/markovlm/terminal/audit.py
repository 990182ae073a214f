"""An audit as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from markovlm.analysis.render import visible
from markovlm.auditing.measures import MEASURES
from markovlm.intervals import MISSING
from markovlm.terminal.console import table
from markovlm.terminal.studies import estimate, say

_WIDTH = 160  # where it is not a terminal


def show_preview(console: Console, found: Mapping[str, Any]) -> None:
    """Groups and cost."""
    _source(console, found)
    for group in found["groups"]:
        say(console, f"group {visible(group['group'])}: {group['cots']} CoTs of {group['n']} questions")
    for one in found["readers"]:
        parts = ", ".join(f"{part} {tokens:,}" for part, tokens in one["by_part"].items())
        say(console, f"{one['reader']}: about {one['tokens']:,} tokens ({parts}); longest CoT {one['longest_cot']:,}")
    say(console, f"results would go to {found['out']}")


def show_audit(console: Console, result: Mapping[str, Any]) -> None:
    """Everything but the examples, which are on the page."""
    if not console.is_terminal:
        console.width = _WIDTH
    _source(console, result)
    console.print()
    if result["readers"]:
        _follows(console, result["groups"])
        console.print()
    if result["studies"]["hints"]:
        _hints(console, result["studies"]["hints"])
        console.print()
    _texts(console, result["groups"])
    studies = result["studies"]
    for show, name in ((_bypass, "bypass"), (_leak, "leak"), (_damage, "damage"), (_load, "load"), (_agreement, "agreement")):
        if studies[name]:
            console.print()
            show(console, studies[name])
    if studies["comparison"]:
        console.print()
        _comparison(console, studies["comparison"])
    if len(studies["ranking"]) > 1:
        console.print()
        _ranking(console, studies["ranking"])
    console.print()
    say(console, visible(result["quote"]))
    say(console, visible(result["caveat"]))


def _source(console: Console, result: Mapping[str, Any]) -> None:
    say(console, f"read as {', '.join(result['sources'])}; in brackets 95 % bootstrap intervals over questions")
    for note in result["notes"]:
        say(console, f"note: {visible(note)}")
    if result["skipped"]["rows"]:
        say(console, f"left out: {result['skipped']['rows']} rows, the first: {visible(result['skipped']['first'][0])}")


def _rows(groups: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(visible(group["group"]), one) for group in groups for one in group["readers"]]


def _follows(console: Console, groups: Sequence[Mapping[str, Any]]) -> None:
    rows = _rows(groups)
    choices = any("with_choices" in one for _, one in rows)
    keys = (*(("with_choices", "choices_alone") if choices else ()), "question_alone", "both", "nothing", "reasoned")
    seen = ["CoT alone", *(["CoT and choices", "choices alone"] if choices else []), "question alone", "both", "neither"]
    heads = ["group", "reader", "n", *seen, "CoT before its answer"]
    if any(one["accuracy"] is not None for _, one in rows):
        body = [
            [g, one["reader"], str(one["n"]), estimate(one["accuracy"], 2), *(estimate(one[k]["accuracy"], 2) for k in keys)]
            for g, one in rows
        ]
        console.print(table("Does the answer follow? Accuracy by what the reader sees", heads, body))
        console.print()
    body = [
        [g, one["reader"], str(one["n"]), estimate(one["logprob"], 2), *(estimate(one[k]["logprob"], 2) for k in keys)]
        for g, one in rows
    ]
    console.print(table("ln pi(answer), nats per answer token", heads, body))


def _hints(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    judge = found[0]["judge"]
    keys = {"changed": "answer changed", "to_hint": "to the hint's", "to_other": "to another", "says_so": "of these mention it"}
    if judge is not None:
        keys |= {"judge_says_so": f"by {visible(judge)}", "agree": "rule and judge agree"}
    keys |= {"says_so_unchanged": "unchanged, mention it"}
    body = [
        [
            visible(one["group"]),
            str(one["n"]),
            *(estimate(one[key], 2) for key in keys),
            MISSING if one["by_chance"] is None else f"{one['by_chance']:.0%}",
        ]
        for one in found
    ]
    heads = ["group", "n", *keys.values(), "of the changes, by chance"]
    console.print(table("Does the CoT say that a hint changed its answer?", heads, body))


def _texts(console: Console, groups: Sequence[Mapping[str, Any]]) -> None:
    names = {
        "words": "words",
        "stated": "the answer stands in it",
        "bare_answer": "is the bare answer",
        "empty": "empty",
        "nonwords": "share of non-words",
        "switches": "changes of script, per 100 words",
        "truncated": "cut off, as the source says",
        "open_end": "ends without a full stop",
        "answer_cut_off": "a final answer was cut off behind it",
        "repetitive": "repeats itself",
    }
    body = [
        [what, *(estimate(group["text"][key], 2 if key != "words" else 0) for group in groups)] for key, what in names.items()
    ]
    body.append(["right, as the source says", *(estimate(group["writer_right"], 2) for group in groups)])
    shown = [row for row in body if any(cell != MISSING for cell in row[1:])]
    heads = ["of the CoTs", *(f"{visible(group['group'])} ({group['cots']})" for group in groups)]
    console.print(table("The texts", heads, shown))
    body = [
        [
            g,
            one["reader"],
            f"{one['text']['perplexity']:.2f}" if one["text"]["perplexity"] else MISSING,
            estimate(one["text"]["bits_per_character"], 2),
        ]
        for g, one in _rows(groups)
        if "text" in one
    ]
    if body:
        console.print()
        console.print(
            table(
                "How likely the text is, given its question",
                ["group", "reader", "perplexity per token", "bits per character"],
                body,
            )
        )


def _bypass(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    body = [
        [visible(one["group"]), one["reader"], estimate(one["bypass"], 2), *_survivors(one)]
        for one in found
        if any(row["accuracy"] is not None for row in one["rows"])
    ]
    if body:
        heads = ["group", "reader", "bypass", "without CoT", "with another question's", "with filler"]
        console.print(table("Bypass: with the question visible, how many right answers stay right without the CoT?", heads, body))


def _survivors(one: Mapping[str, Any]) -> list[str]:
    rows = {row["control"]: row for row in one["rows"] if row["reader"] == "sees the question"}
    return [estimate(rows[name]["survives"], 2) for name in ("empty", "other", "filler")]


def _leak(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    body = [
        [
            visible(one["group"]), one["reader"], estimate(one["leaks"], 2), estimate(one["leaks_other"], 2),
            MISSING if one["position"] is None else f"{one['position']['quartiles'][1]:.0%}",
            estimate(one["accuracy"], 2), estimate(one["accuracy_cut_before"], 2), estimate(one["drop_logprob"], 2),
        ]
        for one in found
    ]  # fmt: skip
    heads = ["group", "reader", "answer stands in it", "by chance", "first at", "accuracy", "cut before it", "drop, nats"]
    console.print(table("Leak: where the answer stands, and what the part before it carries", heads, body))


def _damage(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    for one in found:
        body = [
            [
                row["perturbation"],
                f"{row['severity']:.0%}",
                f"{row['changed']:.0%}",
                estimate(row["drop_logprob"], 2),
                estimate(row["drop_accuracy"], 2),
            ]
            for row in one["rows"]
            if row["severity"] > 0
        ]
        title = f"Damage to the CoTs of {visible(one['group'])}, read by {one['reader']}"
        console.print(table(title, ["damage", "of it", "CoTs changed", "drop, nats", "drop of accuracy"], body))


def _load(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    body = []
    for one in found:
        places = [row for row in one["by_position"] if row["units"]]
        kinds = {row["kind"]: row for row in one["by_kind"]}
        drop = next(iter(kinds.values()))["drop"] if kinds else None
        top = max(places, key=lambda row: row["drop"]["mean"], default=None)
        where = MISSING if top is None else f"{top['from']:.0%} to {top['to']:.0%}: {estimate(top['drop'], 2)}"
        body.append([visible(one["group"]), one["reader"], str(one["units"]), estimate(drop, 2), where])
    heads = ["group", "reader", "sentences", "drop of one, nats", "the place that bears most"]
    console.print(table("Load: ln pi(answer|CoT) lost when a sentence is taken out", heads, body))


def _agreement(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    body = [
        [
            visible(one["group"]),
            " and ".join(one["readers"]),
            estimate(one["same_verdict"], 2),
            estimate(one["kappa"], 2),
            estimate(one["spearman"], 2),
        ]
        for one in found
    ]
    heads = ["group", "readers", "same verdict", "kappa", "rank correlation of ln pi"]
    console.print(table("Do the readers agree?", heads, body))


def _comparison(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    body = [
        [
            visible(one["group"]), visible(one["against"]), one["reader"], MEASURES[one["measure"]], estimate(one["difference"], 2) + one["stars"],
            "paired" if one["paired"] else "apart", str(one["n"]), f"{one['q']:.2g}",
        ]
        for one in found
    ]  # fmt: skip
    heads = ["group", "less", "reader", "measure", "difference", "questions", "n", "adjusted p"]
    console.print(table("Groups compared; * .05, ** .01, *** .001 after Benjamini-Hochberg over this table", heads, body))


def _ranking(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    body = [
        [
            ranks(one),
            visible(one["group"]),
            f"{estimate(one['carried'], 2)} ({one['unit']})",
            estimate(one["before_answer"], 2),
            f"{one['with_text']:.0%}",
            f"{one['bare_answer']:.0%}",
        ]
        for one in found
    ]
    heads = [
        "rank",
        "group",
        "carried, above nothing",
        "of it before the answer is stated",
        "with text of their own",
        "bare answers",
    ]
    console.print(table(f"Order by what the CoTs carry, read by {found[0]['reader']}; bare answers don't count", heads, body))


def ranks(row: Mapping[str, Any]) -> str:
    """`2`, or `1 to 3` of a group that can't be distinguished from others."""
    return str(row["rank"]) if row["rank"] == row["rank_to"] else f"{row['rank']} to {row['rank_to']}"
