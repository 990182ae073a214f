"""GGUF files as models: dequantized exactly, tokenized as they were trained, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from markovlm.cli.main import main
from markovlm.config.model import Loading
from markovlm.errors import UserError
from markovlm.models.fetch import RECORD, converted
from markovlm.models.gguf import convert, gguf_file
from markovlm.models.load import load_model
from markovlm.models.registry import resolve
from support import gguf_files


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MARKOVLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_files.write(gguf_files.llama(), tmp_path_factory.mktemp("gguf") / "small.gguf", "Q4_1")


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_1"])
def test_the_weights_are_what_the_blocks_mean(kind: str, tmp_path: Path) -> None:
    model = gguf_files.llama()
    file = gguf_files.write(model, tmp_path / "small.gguf", kind)
    said = convert(file, tmp_path / "made", "small")
    expected = model if kind == "F32" else gguf_files.rounded(model, kind)
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    ids = torch.arange(3, 60)[None]
    torch.testing.assert_close(made(ids).logits, expected(ids).logits, rtol=1e-4, atol=1e-4)
    assert made.config.tie_word_embeddings
    assert not hasattr(made.config, "quantization_config")
    assert said["tensors"].get(kind, 0) >= 15
    assert (said["architecture"], said["dtype"], said["notes"]) == ("llama", "float32", [])


def test_digits_are_split_where_the_vocabulary_was_learned_so(tmp_path: Path) -> None:
    """The merge `1 7` is in the file; a vocabulary of SmolLM's kind never applies it to text. `\\n\\n` before a digit stays together."""
    for pre, wanted in (("smollm", ["1", "7"]), ("gpt-2", ["17"])):
        file = gguf_files.write(gguf_files.llama(), tmp_path / f"{pre}.gguf", pre=pre)
        convert(file, tmp_path / pre, pre)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / pre)
        assert tokenizer.tokenize("17") == wanted
        assert tokenizer.decode(tokenizer("17\n\n4 ab<|im_end|>")["input_ids"]) == "17\n\n4 ab<|im_end|>"
        assert tokenizer("<|im_end|>")["input_ids"] == [2]
        assert (tokenizer.eos_token, tokenizer.bos_token) == ("<|im_end|>", "<|im_start|>")
        assert "<|im_start|>assistant" in tokenizer.chat_template


def test_a_rule_of_splitting_that_nobody_knows_is_noted(tmp_path: Path) -> None:
    file = gguf_files.write(gguf_files.llama(), tmp_path / "odd.gguf", pre="mine")
    (note,) = convert(file, tmp_path / "made", "odd")["notes"]
    assert "tokenizer.ggml.pre=mine" in note


def test_a_file_is_a_model_and_says_once_that_it_was_dequantized(
    quantized: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lm = load_model(str(quantized), Loading(device="cpu"))
    assert (lm.vocabulary, lm.terminators, lm.dtype) == (len(gguf_files._vocabulary()), (2,), torch.float32)
    said = capsys.readouterr().err
    assert said.count("dequantized from GGUF (") == 1
    assert "Q4_1 x 15" in said
    assert str(cache) in said
    assert resolve(str(quantized)) == str(converted(quantized))
    assert Path(resolve(str(quantized.parent))) == converted(quantized)  # a directory with nothing else in it
    assert capsys.readouterr().err == ""
    assert (converted(quantized) / RECORD).is_file()
    assert [path.name for path in (cache / "gguf").iterdir() if path.suffix == ".tmp"] == []


def test_commands_take_a_file(quantized: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out"), "--json"]
    assert main(["eval", str(quantized), "--task", "arithmetic", "--limit", "2", "--rollouts.max_cot_tokens", "3", *out]) == 0
    assert '"n": 2' in capsys.readouterr().out


def test_neighbours_of_the_file_are_not_read(quantized: Path, tmp_path: Path) -> None:
    place = tmp_path / "downloads"
    place.mkdir()
    file = place / "small.gguf"
    file.write_bytes(quantized.read_bytes())
    (place / "tokenizer.json").write_text("{}")
    (place / "tokenizer_config.json").write_text('{"eos_token": "<other>"}')
    convert(file, tmp_path / "made", "small")
    assert AutoTokenizer.from_pretrained(tmp_path / "made").eos_token == "<|im_end|>"


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("text.gguf", b"hello", "is not a GGUF file"),
        ("empty.gguf", b"", "is not a GGUF file"),
        ("short.gguf", b"GGUF\x03\x00\x00\x00", "the GGUF file is damaged"),
        ("model.bin", b"GGUF", "is neither a directory made by save_pretrained nor a GGUF file"),
    ],
)
def test_other_files_are_refused(name: str, content: bytes, wanted: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=wanted) as error:
        load_model(str(tmp_path / name), Loading(device="cpu"))
    assert "\n" not in str(error.value)


def test_a_truncated_file_and_a_foreign_architecture_are_refused(quantized: Path, tmp_path: Path, cache: Path) -> None:
    whole = quantized.read_bytes()
    (tmp_path / "half.gguf").write_bytes(whole[: len(whole) // 2])
    gguf_files.write(gguf_files.llama(), tmp_path / "odd.gguf", architecture="unheardof")
    for name in ("half.gguf", "odd.gguf"):
        with pytest.raises(UserError, match=name) as error:
            load_model(str(tmp_path / name), Loading(device="cpu"))
        assert "\n" not in str(error.value)
    assert [path.name for path in (cache / "gguf").iterdir() if not path.name.endswith(".lock")] == []


def test_of_several_files_one_must_be_named(quantized: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(quantized.read_bytes())
    with pytest.raises(UserError, match="holds 2 GGUF files; name one of them"):
        gguf_file(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")  # as beside many GGUF files of the Hub
    with pytest.raises(UserError, match="holds 2 GGUF files; name one of them"):
        gguf_file(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert gguf_file(str(tmp_path)) is None  # a model directory that also has them


def test_files_without_all_weights_are_refused(tmp_path: Path, cache: Path) -> None:
    """transformers draws what is missing at random: silently, as far as a user of this package sees."""
    parts = gguf_files.write(gguf_files.llama(), tmp_path / "small-00001-of-00002.gguf", parts=2)
    with pytest.raises(UserError, match="is one of 2 parts of a GGUF file; join them first"):
        resolve(str(parts))
    short = gguf_files.write(gguf_files.llama(), tmp_path / "short.gguf", left_out="model.layers.1.mlp.")
    with pytest.raises(UserError, match=r"lacks 3 of the model's weights \(model.layers.1.mlp.down_proj.weight"):
        resolve(str(short))
    assert [path.name for path in (cache / "gguf").iterdir() if not path.name.endswith(".lock")] == []
