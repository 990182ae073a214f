"""A run directory may be somebody else's: nothing in it may decide that code is run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from markovlm.api.training import configure
from markovlm.cli.main import main
from markovlm.config import load_recorded, load_yaml
from markovlm.errors import UserError
from markovlm.runs.ahead import resumed_config
from markovlm.runs.targets import open_targets
from markovlm.training.loop import train
from support import runs

CODE = "open({path!r}, 'w').close()\n"


@pytest.fixture(scope="module")
def made(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stranger") / "run"
    train(runs.run_config(tiny_models["llama"], training__steps=1, training__eval_every=0), out)
    return out


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def rewrite(run: Path, old: str, new: str) -> None:
    text = (run / "config.yaml").read_text()
    assert old in text
    (run / "config.yaml").write_text(text.replace(old, new))


def test_a_run_cannot_allow_code_from_a_models_repository(run: Path) -> None:
    rewrite(run, "trust_remote_code: false", "trust_remote_code: true")
    assert load_yaml(run / "config.yaml")["loading"]["trust_remote_code"] is True
    assert load_recorded(run / "config.yaml")["loading"]["trust_remote_code"] is False
    (target,) = open_targets(str(run), "last", {})
    assert not target.config.loading.trust_remote_code
    assert target.trained is not None
    assert not target.trained.loading.trust_remote_code
    assert not resumed_config(run, {}).loading.trust_remote_code
    assert not configure(run / "config.yaml").loading.trust_remote_code
    # the user can
    allowed = {"loading": {"trust_remote_code": True}}
    assert open_targets(str(run), "last", allowed)[0].config.loading.trust_remote_code
    assert resumed_config(run, allowed).loading.trust_remote_code
    assert configure(run / "config.yaml", over=allowed).loading.trust_remote_code


def test_a_configuration_of_ones_own_can(run: Path, tmp_path: Path) -> None:
    rewrite(run, "trust_remote_code: false", "trust_remote_code: true")
    shutil.copy(run / "config.yaml", tmp_path / "mine.yaml")
    assert configure(tmp_path / "mine.yaml").loading.trust_remote_code


def test_plugins_beside_a_runs_configuration_are_not_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "evil.py").write_text(CODE.format(path=str(tmp_path / "sprung")))
    rewrite(run, "plugins: []", "plugins: [evil.py]")
    for words in (["train", str(run / "config.yaml"), "--dry-run"], ["train", "--resume", str(run)], ["eval", str(run)]):
        assert main(words) == 2
        assert "load it yourself with --plugin evil.py" in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(UserError, match="--plugin"):
        configure(run / "config.yaml")
