"""benchmarks/rivals.py: conversion, reading of what a package says, and counting; no package and no network needed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.scripts import load

rivals: Any = load("rivals", "benchmarks")


def test_rows_get_each_package_s_names_and_nothing_but_numbers() -> None:
    rows = [{"step": 3, "reward_mean": 0.5, "kl": None, "behavior_kl": 0.1, "cot_length": 12.0, "unheard_of": 1.0}]
    assert rivals.converted(rows, "trl") == [{"step": 3, "reward": 0.5, "kl": 0.1, "completions/mean_length": 12.0}]
    assert rivals.converted(rows, "rlwatch") == [{"step": 3, "reward_mean": 0.5, "kl_divergence": 0.1}]
    assert rivals.converted(rows, "zen-rl") == [{"step": 3, "rollout/ep_rew_mean": 0.5, "train/approx_kl": 0.1}]


@pytest.mark.parametrize(
    ("name", "text", "verdict", "step"),
    [
        ("rldoctor", {"findings": [{"detector": "a", "severity": "CRITICAL", "summary": "at step 7", "evidence": []}]}, "collapsed", 7),
        ("rldoctor", {"findings": [{"detector": "a", "severity": "SKIPPED", "summary": "", "evidence": []}]}, None, None),
        ("rlwatch", {"alerts": [{"detector": "a", "severity": s, "step": n} for s, n in (("warning", 2), ("critical", 9))]}, "collapsed", 9),
        ("rlwatch", {"alerts": []}, "healthy", None),
        ("rlprobe", [{"signature_id": "A", "severity": "warn", "first_step": 4}], "warn", 4),
        ("markovlm", {"runs": [{"cause": None, "verdict": "unknown", "onset_step": None}]}, None, None),
        ("rlprobe", {"no": "list"}, None, None),
    ],
)  # fmt: skip
def test_worst_finding_is_the_verdict(name: str, text: Any, verdict: str | None, step: int | None) -> None:
    said = rivals.understood(name, json.dumps(text))
    assert (said.verdict, said.step) == (verdict, step)


def test_a_crash_is_no_verdict_and_a_hostile_name_is_dropped() -> None:
    assert rivals.understood("rlwatch", "Traceback (most recent call last)") == rivals.Said()
    assert rivals.understood("zen-rl", "Error: nothing") == rivals.Said()
    assert rivals.worst([("\x1b[31mevil", "critical", None)]).rules == ()


def test_counts() -> None:
    def log(wanted: str, onset: int | None = None) -> Any:
        return rivals.Log(Path("x.log"), 0, True, frozenset({wanted}), onset, SimpleNamespace())

    def said(verdict: str | None) -> Any:
        return rivals.Said(verdict, seconds=1.0)

    got = rivals.counts([(log("collapsed"), said("collapsed")), (log("collapsed"), said("warn")), (log("healthy"), said("collapsed")),
                         (log("healthy"), said(None))])  # fmt: skip
    assert got["real collapses found"].startswith("1 of 2")
    assert got["healthy real logs called collapsed"].startswith("1 of 2")
    assert got["no verdict"].startswith("1 of 4")
