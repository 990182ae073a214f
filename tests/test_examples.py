"""The scripts of examples/, run as a user runs them: from another directory, with what they say they print."""

from __future__ import annotations

import ast
import json
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SAID = {
    "1_train_on_own_questions": ("step   6  reward", "accuracy from the CoT alone 0.", "n = 40", "ln pi(100 | CoT) = -", "nats"),
    "2_reward_of_ones_own": ("logprob  CoT tokens", "brief    CoT tokens"),
    "3_audit_cots": (
        "from the CoT alone       accuracy 0.",
        "from the question alone  accuracy 0.",
        "(n = 6)",
        "-> 100  follows",
    ),
    "4_diagnose_rows": ("collapsed since step 2", "- "),
    "5_adapter_with_plain_peft": ("<|answer|>",),
}
TRAIN = {"1_train_on_own_questions", "2_reward_of_ones_own", "5_adapter_with_plain_peft"}


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in TRAIN else ()) for n in sorted(SAID)])
def test_an_example_prints_what_it_promises(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `python examples/NAME.py`, in this process: five of them would import torch five times."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    for words in SAID[name]:
        assert words in printed


def test_every_example_is_run_and_listed() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SAID)
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.py`" in listed for name in SAID)


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_it_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cell by cell as IPython does: the value of a last expression is shown, by `_repr_html_` where it has one. Fewer steps and questions."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    space: dict[str, object] = {}
    shown: list[str] = []
    for source in ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"):
        tree = ast.parse(source.replace("STEPS = 10", "STEPS = 2").replace("LIMIT = 50", "LIMIT = 4"))
        last = tree.body.pop()
        assert isinstance(last, ast.Expr)
        exec(compile(tree, "notebook", "exec"), space)
        value = eval(compile(ast.Expression(last.value), "notebook", "eval"), space)
        assert len(repr(value)) < 2000
        shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else repr(value))
    model, asked, run, _, evaluated, frame, damage, verdict = shown
    assert model == "Model('embedded', base, task arithmetic, float32 on cpu)"
    assert "17+4+79" in asked
    assert "<polyline" in run
    assert evaluated.count("<circle") == 2
    assert "step-000002" in frame
    assert "digit_replace" in damage
    assert "verdict" in verdict
