"""Loading, adapters and the frozen policy, on every architecture; and what cannot be loaded is one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from markovlm.config.model import Loading, Lora
from markovlm.errors import UserError
from markovlm.models import load
from markovlm.models.fingerprint import base_fingerprint
from markovlm.models.folding import unfold_layers
from markovlm.models.load import LanguageModel, load_model, pick_device
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.types import Decoding, SampleRequest
from markovlm.runs.checkpoint import save_checkpoint
from markovlm.runs.directory import RunDirectory
from markovlm.training.step import take_step
from support import stories, tiny

IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70, 80]])
CPU = Loading(device="cpu", dtype="float32")


@pytest.fixture(params=tiny.ARCHITECTURES)
def directory(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> Path:
    return tiny_models[request.param]


@torch.no_grad()
def logprobs(model: Any) -> Tensor:
    return model(input_ids=IDS).logits.log_softmax(-1)


def plain_base(directory: Path) -> Any:
    """Loaded with no code of the package."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def test_two_steps_then_plain_peft_gives_the_same_logprobs(directory: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    run = tiny.config(directory, loading__dtype="float32", training__lr=1e-2)
    learner = tiny.learner(run, shaken=False, optimizer=torch.optim.AdamW)
    lm, base, fingerprint = learner.lm, logprobs(plain_base(directory)), base_fingerprint(learner.lm)
    assert torch.equal(logprobs(lm.model), base)  # a fresh adapter does nothing
    for step in (1, 2):
        take_step(learner, tiny.QUESTIONS[:2], step)
    trained = logprobs(lm.model)
    assert (trained - base).abs().max() > 1e-3  # it was trained

    with lm.frozen():
        assert torch.equal(logprobs(lm.model), base)  # the frozen policy is the base loaded alone, bit for bit
    assert torch.equal(logprobs(lm.model), trained)  # and the adapter is back afterwards
    assert base_fingerprint(lm) == fingerprint

    directory_of_run = RunDirectory(tmp_path / "run")
    directory_of_run.create()
    saved = save_checkpoint(directory_of_run, 2, lm, learner.optimizer, {})
    plain = PeftModel.from_pretrained(plain_base(directory), str(saved)).eval()
    torch.testing.assert_close(logprobs(plain), trained, rtol=0, atol=1e-5)
    unfold_layers(lm.model)
    assert torch.equal(logprobs(plain), logprobs(lm.model))  # bit for bit, as PEFT computes
    again = load_model(str(directory), CPU, adapter=saved)
    assert torch.equal(logprobs(again.model), trained)
    assert not again.adapter_parameters()  # not trainable unless asked for


def test_only_lora_is_trainable_and_every_linear_layer_has_it(directory: Path) -> None:
    lm = tiny.load(directory, lora=Lora(rank=2))
    names = [name for name, _ in lm.adapter_parameters()]
    assert names
    assert all(".lora_" in name for name in names)
    layers = {"gpt2": 4, "llama": 7, "qwen3": 7, "gemma3": 7}[directory.name] * 2  # two blocks; q k v o gate up down, GPT-2: four
    assert len(names) == 2 * layers
    assert all(p.shape[0] == 2 for name, p in lm.adapter_parameters() if "lora_A" in name)


def test_the_adapter_is_seeded(directory: Path) -> None:
    one, same, other = (tiny.load(directory, lora=Lora(rank=2), seed=seed) for seed in (5, 5, 6))
    values = [torch.cat([p.detach().reshape(-1) for _, p in lm.adapter_parameters()]) for lm in (one, same, other)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_dropout_of_the_base_is_off_and_loras_is_on_in_training_only(directory: Path) -> None:
    """GPT-2 has 0.1 in its configuration; with any dropout left two passes in train mode would differ."""
    lm = tiny.load(directory, lora=Lora(rank=2))
    tiny.shake(lm)
    assert not lm.model.training
    with lm.training_mode():
        assert torch.equal(logprobs(lm.model), logprobs(lm.model))
    dropped = tiny.load(directory, lora=Lora(rank=2, dropout=0.5))
    tiny.shake(dropped)
    assert torch.equal(logprobs(dropped.model), logprobs(dropped.model))
    with dropped.training_mode():
        assert not torch.equal(logprobs(dropped.model), logprobs(dropped.model))
        with dropped.frozen():
            assert torch.equal(logprobs(dropped.model), logprobs(dropped.model))
    assert not dropped.model.training


def test_the_fingerprint_sees_one_bit_of_the_base_and_nothing_of_the_adapter(directory: Path) -> None:
    bare, adapted = tiny.load(directory, dtype="float32"), tiny.load(directory, dtype="float32", lora=Lora(rank=2))
    expected = base_fingerprint(bare)
    assert base_fingerprint(adapted) == expected
    tiny.shake(adapted)
    assert base_fingerprint(adapted) == expected
    weight = next(p for name, p in adapted.causal_lm.named_parameters() if "lora_" not in name and p.ndim == 2)
    bits = weight.data.view(torch.int32)
    bits[1, 1] ^= 1
    assert base_fingerprint(adapted) != expected
    bits[1, 1] ^= 1
    assert base_fingerprint(adapted) == expected
    weight.data[0, 0], weight.data[1, 1] = weight.data[1, 1].clone(), weight.data[0, 0].clone()
    assert base_fingerprint(adapted) != expected  # two numbers that change places leave the plain sum as it was


def test_the_decoder_and_the_head_give_the_models_own_logits(directory: Path) -> None:
    lm = tiny.load(directory, shaken=True)
    ours = lm.logits(lm.decode(IDS, use_cache=False).last_hidden_state)
    assert torch.equal(ours, lm.causal_lm(input_ids=IDS, use_cache=False).logits)
    assert lm.vocabulary == 100
    assert lm.terminators == (tiny.EOS,)


def test_logits_are_float32_over_a_bfloat16_base_and_the_adapter_too(directory: Path) -> None:
    lm = load_model(str(directory), Loading(device="cpu", dtype="bfloat16"), lora=Lora(rank=2))
    assert all(p.dtype == torch.float32 for _, p in lm.adapter_parameters())
    hidden = lm.decode(IDS, use_cache=False).last_hidden_state
    assert hidden.dtype == torch.bfloat16
    assert lm.logits(hidden).dtype == torch.float32


# ------------------------------------------------------------------------------------------------------- errors


def refused(name: str | Path, **keys: Any) -> str:
    with pytest.raises(UserError) as error:
        load_model(str(name), CPU, **keys)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_paths_that_are_not_models(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nothing")
    assert "does not exist" in refused("./nothing")
    (tmp_path / "file").write_text("x")
    assert "is neither a directory" in refused(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in refused(tmp_path / "empty")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "never heard of"}'),
        ("config.json", b'{"model_type": "t5"}'),
        ("model.safetensors", b"torn"),
        ("model.safetensors", None),
        ("tokenizer.json", b"{"),
    ],
)
def test_a_damaged_model_is_one_line_with_its_name(
    tiny_models: dict[str, Path], tmp_path: Path, file: str, content: bytes | None
) -> None:
    model = Path(shutil.copytree(tiny_models["llama"], tmp_path / "model"))
    if content is None:
        (model / file).unlink()
    else:
        (model / file).write_bytes(content)
    assert str(model) in refused(model)


def test_weights_that_are_not_there_or_no_numbers_are_refused(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """transformers draws missing weights at random and says so in a warning, which is not shown."""
    from safetensors.torch import load_file, save_file

    whole = load_file(tiny_models["llama"] / "model.safetensors")

    def altered(weights: dict[str, Tensor]) -> str:
        directory = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(tiny_models["llama"], directory)
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
        return refused(directory)

    partly = {name: tensor for name, tensor in whole.items() if "layers.1.mlp" not in name}
    assert "lacks 3 of its weights (model.layers.1.mlp.down_proj.weight, " in altered(partly)
    assert "not finite" in altered({name: tensor * float("nan") for name, tensor in whole.items()})
    narrow = {name: tensor[:3] if name == "model.norm.weight" else tensor for name, tensor in whole.items()}
    assert "do not have the shapes that its config.json gives" in altered(narrow)


def test_weights_are_unpickled_as_tensors_alone(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (tmp_path.joinpath("went off").touch, ())

    directory = tmp_path / "pickled"
    shutil.copytree(tiny_models["llama"], directory)
    (directory / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Bomb()}, directory / "pytorch_model.bin")
    assert "pytorch_model.bin is not a file of tensors, and nothing else is ever unpickled" in refused(directory)
    assert not (tmp_path / "went off").exists()


def test_a_model_without_a_tokenizer_is_one_line(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    directory = tmp_path / "bare"
    shutil.copytree(tiny_models["llama"], directory, ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    assert "has no tokenizer that transformers can read" in refused(directory)


def test_gated_missing_and_unreachable_repositories(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoConfig, AutoTokenizer

    def hub(error: Exception) -> str:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise OSError("You are trying to access something.\nMore lines of text.") from error

        for loader in (AutoConfig, AutoTokenizer):
            monkeypatch.setattr(loader, "from_pretrained", fail)
        return refused("some-org/some-model")

    kinds = {
        name: type(name, (OSError,), {}) for name in ("GatedRepoError", "RepositoryNotFoundError", "LocalEntryNotFoundError")
    }
    assert "is gated" in hub(kinds["GatedRepoError"]())
    assert "is not on the Hub" in hub(kinds["RepositoryNotFoundError"]())
    assert "Hub cannot be reached" in hub(kinds["LocalEntryNotFoundError"]())
    assert "cannot be loaded" in hub(ValueError("odd"))


def test_adapters_that_do_not_fit(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    assert "no adapter_config.json" in refused(tiny_models["llama"], adapter=tmp_path)
    lm = tiny.load(tiny_models["gpt2"], lora=Lora(rank=2))
    lm.model.save_pretrained(str(tmp_path / "gpt2"), save_embedding_layers=False)
    assert "does not fit the model" in refused(tiny_models["llama"], adapter=tmp_path / "gpt2")
    assert "lora.targets" in refused(tiny_models["llama"], lora=Lora(targets=("no_such_layer",)))
    partly = refused(tiny_models["llama"], lora=Lora(targets=("q_proj", "no_such_layer")))
    assert "has no linear layer named no_such_layer" in partly
    assert "output head" in refused(tiny_models["llama"], lora=Lora(targets=("lm_head",)))


def test_devices_that_are_not_there() -> None:
    for device in ("cuda:99", "gpu", "nonsense:1"):
        with pytest.raises(UserError, match=r"loading\.device"):
            pick_device(device)
    assert pick_device("cpu").type == "cpu"


def test_an_unknown_way_to_logits_is_refused(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """An architecture that does something to its logits that we don't know must not be mis-scored."""
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def scaled(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = forward(self, *args, **kwargs)
        out.logits = out.logits * 1.5
        return out

    monkeypatch.setattr(LlamaForCausalLM, "forward", scaled)
    assert "does not know" in refused(tiny_models["llama"])


# ------------------------------------------------------------------------------------------------------- real weights


@pytest.mark.data("stories260K")
def test_stories260k_says_what_it_should(real: Path, stories_model: Path) -> None:
    """Real weights, through loading, prefill, KV cache and greedy decoding."""
    lm = load_model(str(stories_model), CPU)
    request = SampleRequest((stories.BOS,), (("greedy",),))
    ((story,),) = HFSampler(lm).sample([request], Decoding(256, temperature=0.0))
    expected = (real / "stories260K" / "greedy_reference.txt").read_text(encoding="utf-8")
    text = lm.tokenizer.decode(list(story.ids), skip_special_tokens=True)
    assert text.strip() == expected.strip()


@pytest.mark.data("stories260K")
def test_the_stories_tokenizer_encodes_what_it_decodes(stories_model: Path) -> None:
    lm = load_model(str(stories_model), CPU)
    text = "Once upon a time, there was a little girl named Lily."
    ids = lm.tokenizer(text)["input_ids"]
    assert ids[0] == stories.BOS
    assert lm.tokenizer.decode(ids[1:]) == text
    assert len(ids) < len(text) / 2  # merges are applied


def test_the_embedded_model_loads() -> None:
    lm: LanguageModel = load_model("embedded", CPU, lora=Lora())
    assert lm.terminators
    assert lm.vocabulary < 100


@pytest.mark.parametrize("name", ["attention_dropout", "attention_probs_dropout_prob", "resid_pdrop"])
def test_dropout_of_the_base_is_off_under_any_name(name: str) -> None:
    """The training pass must score the distribution that was sampled; BioGPT and BERT say `_dropout_prob`."""
    config = hf.PretrainedConfig(**{name: 0.1, "rope_theta": 0.5})
    assert getattr(load._without_dropout(config), name) == 0.0
    assert config.rope_theta == 0.5
