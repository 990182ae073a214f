"""Other models read the CoTs as text, through their own tokenizer; paired with the base's; ranks by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from markovlm.analysis.scoring import Variant
from markovlm.analysis.study import Study
from markovlm.analysis.transfer import open_readers, rank_correlation, transfer
from markovlm.errors import UserError
from markovlm.runs.rows import read_rows
from markovlm.runs.setup import Setup
from markovlm.tasks.base import Example
from support import studied
from support.studied import targets_of, watch

Twins = tuple[Path, Path]


def transferred(run: Path, readers: list[Path | str], folder: Path, **more: Any) -> dict[str, Any]:
    settings = {"split": "test", "limit": 3, "cots": 2, **more}
    return transfer(targets_of(run), [str(reader) for reader in readers], folder=folder, **settings)[0]


@pytest.fixture(scope="module")
def found(twins: Twins, byte_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("transferred")
    return transferred(twins[0], [byte_model, twins[1]], folder), folder


def cots(folder: Path, checkpoint: str) -> list[dict[str, Any]]:
    [path] = folder.glob(f"cots-{checkpoint}-*.jsonl")
    return read_rows(path)


def plain_scores(setup: Setup, rows: list[dict[str, Any]], conditioning: str) -> list[float]:
    """ln pi(gold | the text of each CoT), alone, in the tokens of this reader."""
    scores = []
    for row in rows:
        ids = tuple(setup.lm.tokenizer(row["text"], add_special_tokens=False, split_special_tokens=True)["input_ids"])
        variant = Variant(Example(row["id"], row["question"], row["gold"]), 0, "", ids, ids, conditioning)
        scores.append(studied.read_alone(setup.lm, setup.prompter, variant))
    return scores


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


CHECKPOINTS = ("base", "step-000001", "step-000002", "step-000003")


def test_readers_read_the_text_without_the_question(found: tuple[dict[str, Any], Path], twins: Twins, byte_model: Path) -> None:
    result, folder = found
    points = {(p["reader"], p["checkpoint"]): p for p in result["points"]}
    assert len(points) == len(result["points"]) == 3 * 4
    for name in (str(byte_model), str(twins[1])):  # the second was trained to see the question, and does not here
        reader = dict(open_readers([name], targets_of(twins[0])[0].config))[name].prepare()
        scores = {checkpoint: plain_scores(reader, cots(folder, checkpoint), "markovian") for checkpoint in CHECKPOINTS}
        for checkpoint in CHECKPOINTS:
            point = points[name, checkpoint]
            assert point["logprob"]["mean"] == pytest.approx(mean(scores[checkpoint]), abs=2e-5)
            assert point["n"] == 3
            if checkpoint == "base":
                assert point["vs_base"] is None
                continue
            gains = [a - b for a, b in zip(scores[checkpoint], scores["base"], strict=True)]
            questions = [row["id"] for row in cots(folder, "base")]
            assert point["vs_base"]["logprob"]["mean"] == pytest.approx(mean(gains), abs=2e-5)
            assert point["vs_base"]["logprob"]["ci95"] == pytest.approx(studied.bootstrap(gains, questions, 0), abs=1e-4)
    assert [p["step"] for p in result["points"][:4]] == [0, 1, 2, 3]
    assert result["reader_conditioning"] == "markovian"


def test_the_actor_is_each_checkpoint_itself(found: tuple[dict[str, Any], Path], twins: Twins) -> None:
    result, folder = found
    for target, point in zip(sorted(targets_of(twins[0]), key=lambda t: t.step or 0), result["points"], strict=False):
        setup = target.prepare()
        rows = cots(folder, target.checkpoint)
        scores = []
        for row in rows:
            ids = tuple(row["ids"])
            variant = Variant(Example(row["id"], row["question"], row["gold"]), 0, "", ids, ids, "markovian")
            scores.append(studied.read_alone(setup.lm, setup.prompter, variant))
        assert (point["reader"], point["checkpoint"]) == ("actor", target.checkpoint)
        assert point["logprob"]["mean"] == pytest.approx(mean(scores), abs=1e-9)


def test_the_correlation_is_of_the_two_curves(found: tuple[dict[str, Any], Path], byte_model: Path) -> None:
    result, _ = found
    curve = {name: [p["logprob"]["mean"] for p in result["points"] if p["reader"] == name] for name in ("actor", str(byte_model))}
    first, second = result["correlation"]
    assert (first["reader"], second["n"]) == (str(byte_model), 4)
    assert first == {"reader": str(byte_model), **rank_correlation(curve["actor"], curve[str(byte_model)])}
    ranks = [[sorted(values).index(value) for value in values] for values in curve.values()]
    squares = sum((a - b) ** 2 for a, b in zip(*ranks, strict=True))
    assert first["spearman"] == pytest.approx(1 - 6 * squares / (4 * 15))


def test_a_second_time_nothing_is_read(
    found: tuple[dict[str, Any], Path], twins: Twins, byte_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("markovlm.analysis.study.read_variants", lambda *_: pytest.fail("read again"))
    assert transferred(twins[0], [byte_model, twins[1]], found[1]) == found[0]


def test_a_reader_of_other_weights_is_another_reader(
    twins: Twins, byte_model: Path, tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    """A directory whose model was replaced is not confused with what it was."""
    reader = tmp_path / "reader"
    values = []
    for source in (byte_model, tiny_models["qwen3"]):
        reader.unlink(missing_ok=True)
        reader.symlink_to(source)
        result = transferred(twins[0], [reader], tmp_path / "study", limit=2, cots=1)
        values.append([p["logprob"]["mean"] for p in result["points"] if p["reader"] == str(reader)])
    assert all(a != b for a, b in zip(*values, strict=True))


def test_one_model_is_in_memory_at_a_time(
    twins: Twins, byte_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(monkeypatch)
    transferred(twins[0], [byte_model, twins[1]], tmp_path, limit=1, cots=1)


# -------------------------------------------------------------------------------------------------------------- opening


def test_readers_are_looked_for_before_any_work(twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Study, "read", lambda *_: pytest.fail("read"))
    for name, message in (
        (str(tmp_path / "nowhere"), "does not exist"),
        (str(Path(__file__)), "is a file"),
        (str(tmp_path), "neither a run"),
    ):
        with pytest.raises(UserError, match=rf"^--readers {name}: .*{message}"):
            transferred(twins[0], [name], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_reader_without_prompts_for_the_task_is_refused(twins: Twins) -> None:
    fixture = Path(__file__).parents[1] / "fixtures" / "gsm8k"
    config = targets_of(twins[0])[0].config
    data = config.data.model_copy(update={"path": str(fixture)})
    config = config.model_copy(update={"task": "gsm8k", "data": data})
    with pytest.raises(UserError, match=r"^--readers embedded: prompt style compact: this model has no token for '"):
        open_readers(["embedded"], config)


# ---------------------------------------------------------------------------------------------------------------- ranks


@pytest.mark.parametrize(
    ("ours", "theirs", "rho", "p"),
    [
        # 1 - 6 sum d^2 / (n (n^2 - 1)); p: of all orders, those with |rho| at least as large
        ([1, 2, 3], [10, 20, 30], 1.0, 2 / 6),
        ([1, 2, 3], [5, 4, 6], 0.5, 1.0),  # sum d^2 = 2; the six are ±1, ±.5, ±.5
        ([1, 2, 3, 4], [1, 3, 2, 4], 0.8, 8 / 24),  # sum d^2 = 2: one order with 0, three with 2, and as many reversed
        ([4, 3, 2, 1], [1, 2, 3, 4], -1.0, 2 / 24),
        ([1, 2, 3, 4, 5], [1, 2, 3, 5, 4], 0.9, 2 * (1 + 4) / 120),  # four swaps of neighbours
        ([1, 2, 2], [1, 2, 3], 3**0.5 / 2, 4 / 6),  # ranks 1, 2.5, 2.5: a third of the orders have rho 0
    ],
)
def test_rank_correlation_by_hand(ours: list[float], theirs: list[float], rho: float, p: float) -> None:
    for found in (rank_correlation(ours, theirs), rank_correlation(theirs, ours)):
        assert found["spearman"] == pytest.approx(rho)
        assert found["p"] == pytest.approx(p)
        assert found["n"] == len(ours)


def test_many_checkpoints_have_students_t() -> None:
    """n = 8, sum d^2 = 2: rho = 1 - 12/504; t = rho sqrt(6 / (1 - rho^2)) = 11.0, whose two-sided p is below 1e-4."""
    found = rank_correlation([1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 8, 7])
    assert found["spearman"] == pytest.approx(1 - 12 / 504)
    assert 1e-5 < found["p"] < 1e-4


@pytest.mark.parametrize(("ours", "theirs"), [([1, 2], [1, 2]), ([], []), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [4, 4, 4])])
def test_too_few_or_flat_curves_have_none(ours: list[float], theirs: list[float]) -> None:
    assert rank_correlation(ours, theirs) == {"spearman": None, "n": len(ours), "p": None}
