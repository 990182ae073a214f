"""The studies as tables on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from markovlm.analysis.loadbearing import Found
from markovlm.analysis.perturb import PERTURBATIONS
from markovlm.analysis.render import visible
from markovlm.intervals import MISSING, found_text
from markovlm.terminal.attribution import explain_text
from markovlm.terminal.console import table

_TITLES = {
    "drop_logprob": "Drop of ln pi(answer|CoT), nats per answer token",
    "drop_accuracy": "Drop of accuracy",
    "fragility": "Fragility of ln pi(answer|CoT), nats per answer token: this run's drop minus its twin's, above 0 where this run suffers more",
    "fragility_accuracy": "Fragility of accuracy: this run's drop minus its twin's",
}
_CONTROLS = {"own": "its own", "empty": "none", "other": "another question's", "filler": "filler"}
_SUMMARY_SEVERITIES = (0.2, 0.6, 1.0)
_WIDTH = 140  # where it is not a terminal
_EXAMPLES = 2  # explained CoTs shown under the tables


def show_found(console: Console, found: Found) -> None:
    """Every part that was done."""
    if not console.is_terminal:
        console.width = _WIDTH
    shows = {
        "perturb": show_perturb,
        "bypass": show_bypass,
        "leak": show_leak,
        "explain": show_explain,
        "transfer": show_transfer,
        "resample": show_resample,
        "intervention": show_intervention,
    }
    several = (
        "perturb",
        "bypass",
        "bypass_against",
        "leak",
        "intervention",
        "intervention_against",
        "explain",
        "transfer",
        "resample",
    )
    for name in several:
        if name in found.results:
            shows[name.removesuffix("_against")](console, found.results[name])
            console.print()
    for result in found.results.values():
        if result.get("kind") == "own":
            show_own(console, result)
            console.print()
    if found.attributions:
        first = [one for one in found.attributions if one.id in {a.id for a in found.attributions[: 2 * _EXAMPLES]}]
        console.print(explain_text(first[: 2 * _EXAMPLES]))
        console.print()
    if found.page is not None:
        console.print(Text(f"page: {found.page}"), soft_wrap=True)
    for path in found.paths:
        console.print(Text(f"kept: {path}"), soft_wrap=True)


def show_own(console: Console, result: Mapping[str, Any]) -> None:
    """A study that the user registered: its rows as they are."""
    columns = list(dict.fromkeys(key for row in result["rows"] for key in row))
    body = [[_value(row.get(key)) for key in columns] for row in result["rows"]]
    console.print(table(f"{result['study']}: {result['question']}", columns, body))


def _value(value: Any) -> str:
    if value is None or isinstance(value, Mapping):
        return estimate(value, 2)
    return f"{value:.3g}" if isinstance(value, float) else visible(str(value))


def show_summary(console: Console, results: Mapping[str, Mapping[str, Any]]) -> None:
    """A few lines of each study, for the demo."""
    damage = results["perturb"]
    say(console, f"Is the CoT load-bearing? ({damage['n']} questions; drops with 95 % bootstrap intervals)")
    body = [
        [row["perturbation"], f"{row['severity']:.0%}", estimate(row["drop_logprob"], 2), estimate(row["drop_accuracy"], 2)]
        for row in damage["rows"]
        if row["severity"] in _SUMMARY_SEVERITIES
    ]
    console.print(table("Damage to the CoT", ["damage", "of it", "drop of ln pi(answer|CoT)", "drop of accuracy"], body))
    bypass, leak, transfer = results["bypass"], results["leak"], results["transfer"]
    empty = next(row for row in bypass["rows"] if row["control"] == "empty" and row["reader"] == "sees the question")
    say(console, f"with the question visible and no CoT, accuracy is {estimate(empty['accuracy'], 2)}")
    say(
        console,
        f"the answer stands in {estimate(leak['leaks'], 2)} of the CoTs; cut before it, accuracy {estimate(leak['accuracy_cut_before'], 2)}",
    )
    last = {point["reader"]: point for point in transfer["points"]}
    for name, point in last.items():
        if name != "actor" and point["vs_base"] is not None:
            gain = estimate(point["vs_base"]["accuracy"], 2)
            say(console, f"read by {name}: accuracy {estimate(point['accuracy'], 2)}, {gain} above the base model's CoTs")


def show_perturb(console: Console, result: Mapping[str, Any]) -> None:
    """Tables, perturbation by severity: drops of nats and of accuracy; where there is a twin, drops of nats and both fragilities."""
    intact, gap, against = result["intact"], result["round_trip_gap"], result["against"]
    say(
        console,
        f"{_who(result)}: questions: {result['n']}, CoTs of each: {result['cots_per_question']}; in brackets 95 % bootstrap intervals over questions",
    )
    say(console, f"undamaged CoTs: ln pi(answer|CoT) {estimate(intact['logprob'])}, accuracy {estimate(intact['accuracy'])}")
    if against is not None:
        theirs = result["intact_against"]
        say(
            console,
            f"its twin, {_who(against)}: ln pi(answer|CoT) {estimate(theirs['logprob'])}, accuracy {estimate(theirs['accuracy'])}",
        )
    say(console, f"decoding and encoding alone: drop {estimate(gap)}, changes the tokens of {gap['changed']:.0%} of the CoTs")
    worst = max((abs(r["drop_logprob"]["mean"]) for r in result["rows"] if r["severity"] == 0), default=0.0)
    say(console, f"identity check (severity 0): the largest change is {worst:g}")
    keys = ("drop_logprob", "fragility", "fragility_accuracy") if against is not None else ("drop_logprob", "drop_accuracy")
    for key in keys:
        if any(row[key] is not None for row in result["rows"]):
            console.print()
            _graded(console, result["rows"], key)
    console.print()
    _single(console, result["rows"], against is not None)


def _graded(console: Console, rows: Sequence[Mapping[str, Any]], key: str) -> None:
    graded = [row for row in rows if row["severity"] > 0 and len(PERTURBATIONS[row["perturbation"]].severities) > 1]
    severities = sorted({row["severity"] for row in graded})
    cells = {(row["perturbation"], row["severity"]): row[key] for row in graded}
    names = dict.fromkeys(row["perturbation"] for row in graded)
    if names:
        body = [[name, *(estimate(cells.get((name, s)), 2) for s in severities)] for name in names]
        console.print(table(_TITLES[key], ["perturbation", *(f"{s:.0%}" for s in severities)], body))


def _single(console: Console, rows: Sequence[Mapping[str, Any]], twin: bool) -> None:
    single = [row for row in rows if row["severity"] > 0 and len(PERTURBATIONS[row["perturbation"]].severities) == 1]
    keys = ["drop_logprob", "drop_accuracy", *(["fragility", "fragility_accuracy"] if twin else [])]
    heads = ["drop, nats", "drop, accuracy", *(["fragility, nats", "fragility, accuracy"] if twin else [])]
    body = [
        [
            _by(row),
            f"{row['changed']:.0%}",
            *(estimate(row[key], 2) for key in keys),
            row["expect"] or MISSING,
            _happened(row),
        ]
        for row in single
    ]
    if body:
        heads = ["perturbation", "CoTs changed", *heads, "should", "does, of the changed"]
        console.print(table("Perturbations with meaning", heads, body))
    for row in single:
        if row.get("paraphrases"):
            say(console, f"{_by(row)}: {_paraphrases(row['paraphrases'])}")


def _by(row: Mapping[str, Any]) -> str:
    return f"{row['perturbation']} by {visible(row['paraphraser'])}" if row.get("paraphraser") else row["perturbation"]


def _paraphrases(found: Mapping[str, Any]) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in found["rejected"].items())
    how = "greedy" if found["temperature"] == 0 else f"temperature {found['temperature']:g}"
    said = f"{found['accepted']} of {found['asked']} replies accepted ({how})"
    return said + (f"; rejected: {reasons}; those CoTs stayed as they were" if reasons else "")


def _happened(row: Mapping[str, Any]) -> str:
    found = row["as_expected"]
    return MISSING if found is None else f"{estimate(found, 2)} (n={found['n']})"


def show_bypass(console: Console, result: Mapping[str, Any]) -> None:
    """Controls by what the reader sees."""
    rows = [
        [
            _CONTROLS[row["control"]],
            row["reader"],
            estimate(row["accuracy"]),
            estimate(row["logprob"]),
            _survives(row["survives"]),
        ]
        for row in result["rows"]
    ]
    title = f"Bypass, {_who(result)}: does the answer survive without its CoT? (n={result['n']})"
    console.print(table(title, ["CoT", "reader", "accuracy", "ln pi(answer)", "of those right with its own, still right"], rows))
    if result["bypass"] is not None:
        say(
            console,
            f"bypass: with the question visible, {estimate(result['bypass'])} of the answers that are right with the CoT stay right without it "
            "(mean of the three that stand in for it)",
        )


def _survives(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else f"{estimate(found)} (n={found['n']})"


def show_leak(console: Console, result: Mapping[str, Any]) -> None:
    """In words."""
    here, elsewhere = estimate(result["leaks"]), estimate(result["leaks_other"])
    say(
        console,
        f"Leak, {_who(result)}: the gold answer stands in {here} of {result['cots']} CoTs; another question's answer, by chance, in {elsewhere}",
    )
    if result["position"] is not None:
        low, middle, high = result["position"]["quartiles"]
        say(console, f"its first copy begins {middle:.0%} into the CoT (median; quartiles {low:.0%} and {high:.0%})")
        say(
            console,
            f"accuracy from these CoTs {estimate(result['accuracy'])}; cut before that copy {estimate(result['accuracy_cut_before'])}",
        )
        say(
            console,
            f"ln pi(answer|CoT) {estimate(result['logprob'])}; cut before that copy {estimate(result['logprob_cut_before'])}",
        )


def show_explain(console: Console, result: Mapping[str, Any]) -> None:
    """Kinds and places."""
    title = f"Load by kind of {result['by']}, {_who(result)}: drop of ln pi(answer|CoT) when it is {result['how']}d (n={result['n']} questions)"
    beside = ["as much filler, nothing taken"] if result["how"] == "replace" else []

    def drops(row: Mapping[str, Any]) -> list[str]:
        return [estimate(row["drop"]), *(estimate(row.get("filler")) for _ in beside)]

    rows = [
        [row["kind"], str(row["units"]), *drops(row), _percent(row["share"]), _percent(row["share_of_units"])]
        for row in result["by_kind"]
    ]
    heads = ["kind", "units", "drop of one, nats", *beside, "share of all positive drops", "share of the units"]
    console.print(table(title, heads, rows))
    console.print()
    places = [
        [f"{row['from']:.0%} to {row['to']:.0%}", str(row["units"]), *drops(row)] for row in result["by_position"] if row["units"]
    ]
    console.print(table("Load by place in the CoT", ["place", "units", "drop of one, nats", *beside], places))


def show_resample(console: Console, result: Mapping[str, Any]) -> None:
    """What sentences cause beside what they bear: by place, and the sentences of the first CoTs."""
    say(console, f"{_who(result)}: K = {result['k']}; {result['criterion']}")
    heads = ["place", "sentences", "causes: TV", "by chance", "KL, nats", "accuracy lost", "bears: nats when taken out"]
    keys = ("tv", "chance", "kl", "accuracy_drop", "occlusion")
    places = [
        [f"{row['from']:.0%} to {row['to']:.0%}", str(row["sentences"]), *(estimate(row[key], 2) for key in keys)]
        for row in result["by_position"]
        if row["sentences"]
    ]
    console.print(
        table(f"What a sentence causes, and what it bears, by place in the CoT (n={result['n']} questions)", heads, places)
    )
    if result["rank_correlation"] is not None:
        found = estimate(result["rank_correlation"], 2)
        say(console, f"rank correlation of the two within a CoT: {found} (mean over {result['rank_correlation']['cots']} CoTs)")
    for one in result["cots"][:_EXAMPLES]:
        console.print()
        rows = [
            [
                visible(s["text"].strip())[:60], f"{s['occlusion']:+.2f}", estimate(s["tv"], 2),
                MISSING if s["chance"] is None else f"{s['chance']:.2f}",
                MISSING if s["p"] is None else f"{s['p']:.3f}", _arrow(s), str(s["lacking"]),
            ]
            for s in one["sentences"]
        ]  # fmt: skip
        title = f"{visible(one['question'])[:100]}  ->  {visible(str(one['answer']))} (gold {visible(one['gold'])})"
        heads = ["sentence", "bears, nats", "causes: TV", "by chance", "p", "right with -> without", "lacking it"]
        console.print(table(title, heads, rows))


def _arrow(sentence: Mapping[str, Any]) -> str:
    rates = [MISSING if sentence[key] is None else f"{sentence[key]:.2f}" for key in ("accuracy_with", "accuracy_without")]
    return " -> ".join(rates)


def show_intervention(console: Console, result: Mapping[str, Any]) -> None:
    """The three-way table."""
    body = [
        [row["reader"], str(row["n"]), *(estimate(row[key], 2) for key in ("right_before", "follows", "question", "neither"))]
        for row in result["rows"]
    ]
    heads = ["reader", "n", "right before", "follows the changed CoT", "stays with the question", "neither"]
    title = f"Intervention, {_who(result)}: one number of the CoT changed, the rest worked out anew ({result['changed']} of {result['cots']} CoTs)"
    console.print(table(title, heads, body))


def show_interventions(console: Console, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Before and after training, and one changed CoT: for the demo."""
    body = [
        [name, row["reader"], str(row["n"]), *(estimate(row[key], 2) for key in ("follows", "question", "neither"))]
        for name, result in results.items()
        for row in result["rows"]
    ]
    heads = ["model", "reader", "n", "follows the changed CoT", "stays with the question", "neither"]
    console.print(table("One number of the CoT changed and the rest worked out anew: what does the answer follow?", heads, body))
    examples = list(results.values())[-1]["examples"]
    if examples:
        one = examples[0]
        answers = ", ".join(f"{'none' if answer is None else answer} ({reader})" for reader, answer in one["answers"].items())
        for name, text in (("CoT", one["cot"]), ("changed", one["changed"])):
            say(console, f"{name:8}  {visible(text)}")
        say(
            console,
            f"changed, it comes to {visible(one['result'])}; the question's answer is {visible(one['gold'])}; read: {answers}",
        )


def show_transfer(console: Console, result: Mapping[str, Any]) -> None:
    """Points by checkpoint and reader, and the rank correlations."""
    rows = []
    for point in result["points"]:
        paired = point["vs_base"]
        rows.append(
            [
                point["checkpoint"], point["reader"], estimate(point["logprob"]), estimate(point["accuracy"]),
                "" if paired is None else estimate(paired["logprob"]), "" if paired is None else estimate(paired["accuracy"]),
            ]
        )  # fmt: skip
    title = f"Transfer: CoTs of {result['run']} read by others, which don't see the question (n={result['n']})"
    heads = ["CoTs of", "reader", "ln pi(answer|CoT)", "accuracy", "ln pi, minus base's CoTs", "accuracy, minus base's CoTs"]
    console.print(table(title, heads, rows))
    own = " and the question" if result["conditioning"] == "non_markovian" else ""
    say(console, f"actor: the checkpoint itself, reading its own CoTs{own}; the others read them as text, in their own tokens")
    for row in result["correlation"]:
        say(console, f"rank correlation of actor and {row['reader']} over {row['n']} checkpoints: {_correlation(row)}")


def _correlation(row: Mapping[str, Any]) -> str:
    if row["spearman"] is None:
        return "not defined (it takes three checkpoints and curves that are not flat)"
    least = 2 / math.factorial(row["n"])
    floor = f"; with so few no p is below {least:.2f}" if least > 0.05 else ""
    return f"{row['spearman']:+.2f} (p={row['p']:.3f}{floor})"


def estimate(found: Mapping[str, Any] | None, digits: int = 3) -> str:
    """`0.93 [0.90, 0.95]`; a dash where there is nothing, or one question and so no interval."""
    return found_text(found, digits)


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{share:.0%}"


def _who(result: Mapping[str, Any]) -> str:
    return f"{result['checkpoint']} of {result['run']} ({result['conditioning'].replace('_', '-')})"


def say(console: Console, text: str) -> None:
    """A line that is text and never markup."""
    console.print(Text(text), soft_wrap=True)
