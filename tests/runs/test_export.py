"""What leaves the house: adapter or merged model, its card, and the push to the Hub (with a Hub that only listens)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import SafetensorError
from transformers import PreTrainedModel

from markovlm.cli import main
from markovlm.runs.directory import RunDirectory
from support import runs


@pytest.fixture(scope="module")
def run(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps, evaluated with its base."""
    out = tmp_path_factory.mktemp("export") / "run"
    config = runs.run_config(tiny_models["llama"], training__steps=3)
    from markovlm.training.loop import train

    train(config, out)
    assert main(["eval", str(out), "--limit", "4", "--baseline", "--json"]) == 0
    return out


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[3, 4, 5, 6]])).logits


def test_adapter_and_merged_model_are_the_same_policy(run: Path, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert main(["export", str(run), "--to", str(tmp_path / "adapter")]) == 0
    assert main(["export", str(run), "--to", str(tmp_path / "merged"), "--merge"]) == 0
    base = AutoModelForCausalLM.from_pretrained(tiny_models["llama"])
    plain = logits(base)
    adapted = logits(PeftModel.from_pretrained(base, str(tmp_path / "adapter")))
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    assert torch.allclose(adapted, merged, atol=1e-5)
    assert not torch.allclose(adapted, plain, atol=1e-4)
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]


def test_the_card_has_the_numbers_and_no_path_of_this_machine(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run), "--to", str(tmp_path / "out"), "--base-model", "org/base"]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["base_model"] == "org/base"
    [result] = head["model-index"][0]["results"]
    rows = [json.loads(line) for line in (run / "evals.jsonl").read_text().splitlines()]
    [row] = [r for r in rows if r["role"] == "test" and r["checkpoint"] == "step-000003"]
    assert result["metrics"] == [{"type": "accuracy", "value": round(row["accuracy"], 4), "name": "accuracy (n=4)"}]
    assert f"accuracy {row['accuracy']:.3f} [{row['ci95'][0]:.3f}, {row['ci95'][1]:.3f}]" in card
    assert "The untrained base, for comparison" in card
    assert str(run.parent) not in card
    assert "/tmp" not in card
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/base"


def test_a_base_with_a_name_of_our_own_is_exported_under_it(run: Path, tmp_path: Path) -> None:
    """Where the cache of this machine lies says nothing elsewhere, and `smollm2` alone says nothing to transformers."""
    named = Path(shutil.copytree(run, tmp_path / "named"))
    config = yaml.safe_load((named / "config.yaml").read_text())
    (named / "config.yaml").write_text(yaml.safe_dump({**config, "model": "smollm2"}))
    assert main(["export", str(named), "--to", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == "smollm2"
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'from_pretrained(resolve("smollm2")), "THIS_REPOSITORY")' in card
    assert "from markovlm.models.registry import resolve" in card
    assert "- base: SmolLM2-135M-Instruct by HuggingFaceTB, from a GGUF file in Q4_1; licence: Apache-2.0\n" in card


class Hub:
    """Takes note of what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self, name: str, **how: Any) -> str:
        self.asked.append(("create", {"name": name, **how}))
        return f"https://hub/{name}"

    def upload_folder(self, **how: Any) -> None:
        how["files"] = sorted(p.name for p in Path(how.pop("folder_path")).iterdir())
        self.asked.append(("upload", how))


def test_a_push_is_one_commit_of_the_exported_files(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), "--push", "me/mine", "--private", "--base-model", "org/base", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["repository"], said["address"], said["path"]) == ("me/mine", "https://hub/me/mine", "runs/exports/me--mine")
    files = ["README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json"]
    message = "step-000003 of a markovlm run on arithmetic"
    assert hub.asked == [
        ("create", {"name": "me/mine", "private": True, "exist_ok": True}),
        ("upload", {"repo_id": "me/mine", "commit_message": message, "files": files}),
    ]


def test_a_dry_run_asks_no_network_and_writes_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: pytest.fail("asked the Hub"))
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), "--push", "me/mine", "--merge", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("dry run: nothing is written or uploaded to me/mine")
    assert "# Merged model" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "give a destination: --to DIRECTORY, or --push ORG/NAME"),
        (("--push", "mine"), "must be ORG/NAME"),
        (("--push", "me/mi ne"), "--push me/mi ne: "),
        (("--push", "me/mine"), "give its Hub id with --base-model ID, or use --merge"),
    ],
)
def test_wrong_pushes_are_one_line(
    run: Path,
    flags: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), *flags]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [("token", 2, "you are not logged in"), ("offline", 2, "HF_HUB_OFFLINE is set"), ("network", 1, "the Hub can't be reached; the export is in")],
)  # fmt: skip
def test_a_hub_that_says_no(
    run: Path,
    error: str,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

    raised = {"token": LocalTokenNotFoundError("no"), "offline": OfflineModeIsEnabled("no"), "network": ConnectionError("no")}[
        error
    ]

    class Refusing(Hub):
        def create_repo(self, name: str, **how: Any) -> str:
            raise raised

    monkeypatch.setattr("huggingface_hub.HfApi", Refusing)
    out = tmp_path / "out"
    assert main(["export", str(run), "--to", str(out), "--push", "me/mine", "--merge"]) == code
    printed = capsys.readouterr().err
    assert said in printed
    assert (out / "model.safetensors").exists()  # finished work is kept


def test_a_full_disk_leaves_nothing_and_the_next_call_does_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".out.tmp").mkdir()  # of a call that was killed
    (tmp_path / ".out.tmp" / "half.safetensors").touch()

    def full(self: Any, directory: str) -> None:
        (Path(directory) / "model.safetensors").write_bytes(bytes(10))
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    words = ["export", str(run), "--to", str(tmp_path / "out"), "--merge"]
    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", full)
        assert main(words) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("markovlm: ")]
    assert "out: cannot be written: No space left on device; free space and run the command again" in line
    assert not list(tmp_path.iterdir())
    assert main(words) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "half.safetensors").exists()


def test_nothing_is_written_over(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    assert main(["export", str(run), "--to", str(tmp_path / "there")]) == 2
    assert "exists; name a new directory" in capsys.readouterr().err
    assert main(["export", "embedded", "--to", str(tmp_path / "new")]) == 2
    assert "has no trained adapter" in capsys.readouterr().err
    assert RunDirectory(run).saved_steps() == [0, 3]
