"""Studies of chains as a page: no scripts, nothing from outside, every text escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from markovlm.analysis.render import cots_page
from markovlm.studies.chains import Chains
from markovlm.studies.files import read_result
from markovlm.studies.tables import chain_tables

_TEXTS = 12  # shown with their words
_QUESTIONS = 60  # rows of the picture of facts


def chains_html(result: Mapping[str, Any]) -> str:
    """The result of `study_chains` as one page."""
    study = read_result(result, [])
    facts, words = result.get("facts"), result.get("words")
    return cots_page(
        "chains.html",
        result=result,
        thinking=result["chain"] == "thinking",
        tables=chain_tables(study) if isinstance(study, Chains) else [],
        words=[_shaded(text) for text in words["texts"][:_TEXTS]] if words else None,
        survival=words["survival"] if words else None,
        facts=[_fact_row(question) for question in facts["questions"][:_QUESTIONS]] if facts else None,
        asked=len(facts["questions"]) if facts else 0,
        steps=max((known["t"] for question in facts["questions"] for known in question["known"]), default=0) if facts else 0,
    )


def _shaded(text: Mapping[str, Any]) -> dict[str, Any]:
    """Words with a shade: 0 nothing is lost without it, 1 the most of this text.

    Lost of what is predicted; of the next state, where nothing is predicted. The two have scales of their own.
    """
    words = [word for state in text["states"] for word in state["words"]]
    most = {name: max((abs(w[name]) for w in words if w[name] is not None), default=0.0) or 1.0 for name in ("drop", "drop_next")}

    def shade(word: Mapping[str, Any]) -> float:
        name = "drop_next" if word["drop"] is None else "drop"
        return max(word[name] or 0.0, 0.0) / most[name]

    states = [{**state, "words": [{**word, "shade": shade(word)} for word in state["words"]]} for state in text["states"]]
    return {"text": text["text"], "states": states}


def _fact_row(question: Mapping[str, Any]) -> dict[str, Any]:
    cells = [{**known, "p": math.exp(min(known["logprob"], 0.0))} for known in question["known"]]
    return {**question, "known": cells}
