"""Real pretrained models: fetched, tokenized as they were trained, asked, trained for a step, read by each other. `make test-real`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from markovlm.cli.main import main
from markovlm.config.model import Loading
from markovlm.models.load import load_model
from markovlm.models.registry import is_here, resolve

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return Path(resolve("smollm2"))


def test_its_directory_is_plain_and_has_the_licence(smollm2: Path) -> None:
    assert {"model.safetensors", "tokenizer.json", "config.json", "LICENSE", "markovlm-source.json"} <= {
        p.name for p in smollm2.iterdir()
    }
    assert "quantization_config" not in json.loads((smollm2 / "config.json").read_text())
    assert "Apache License" in (smollm2 / "LICENSE").read_text()


def test_text_is_cut_as_in_training(smollm2: Path) -> None:
    """SmolLM2's own tokenizer splits digits before anything else: two line breaks in front of one stay one token."""
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.convert_ids_to_tokens(tokenizer("17 = 1,080\n\n4")["input_ids"]) == [
        "1", "7", "Ġ=", "Ġ", "1", ",", "0", "8", "0", "ĊĊ", "4"
    ]  # fmt: skip
    assert (tokenizer.eos_token, len(tokenizer)) == ("<|im_end|>", 49152)


@torch.no_grad()
def test_it_knows_english(smollm2: Path) -> None:
    lm = load_model("smollm2", Loading(device="cpu"))
    assert (lm.caching, lm.terminators, lm.shares_keys) == ("padded", (2,), True)
    ids = torch.tensor([lm.tokenizer("The capital of France is")["input_ids"]])
    assert lm.tokenizer.decode(lm.causal_lm(ids).logits[0, -1].argmax()) == " Paris"


def test_it_is_trained_evaluated_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    small = [
        "--training.steps",
        "1",
        "--rollouts.max_cot_tokens",
        "8",
        "--rollouts.group_size",
        "8",
        "--training.eval_every",
        "0",
    ]
    assert main(["train", "--model", "smollm2", "--out", str(run), *small]) == 0
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert row["grad_norm"] > 0
    assert abs(row["behavior_gap"]) < 1e-4  # sampler and scorer agree
    assert main(["eval", str(run), "--limit", "4", "--json"]) == 0
    assert main(["ask", str(run), "Anna has 4 plums. She buys 3. How many plums does Anna have now?"]) == 0
    assert "answer" in capsys.readouterr().out
    assert main(["export", str(run), "--to", str(tmp_path / "merged"), "--merge"]) == 0
    assert "Apache License" in (tmp_path / "merged" / "LICENSE").read_text()


@pytest.mark.skipif(not is_here("gemma3-270m"), reason="markovlm models --fetch gemma3-270m --accept-terms")
def test_another_family_reads_its_cots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lm = load_model("gemma3-270m", Loading(device="cpu"))
    assert (lm.vocabulary, lm.terminators) == (262144, (1,))
    rows = tmp_path / "cots.jsonl"
    sum_of_two = {"question": "What is 4 + 3?", "cot": "4 + 3 = 7.", "answer": "7"}
    rows.write_text("".join(json.dumps(row) + "\n" for row in (sum_of_two, {**sum_of_two, "cot": "Plums are nice."})))
    readers = ["--reader", "smollm2", "--reader", "gemma3-270m"]
    assert main(["audit", str(rows), *readers, "--out", str(tmp_path / "audit"), "--json"]) == 0
    assert capsys.readouterr().out
