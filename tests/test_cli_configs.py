"""`markovlm configs`, and configurations by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from markovlm.api.training import configure
from markovlm.cli import main
from markovlm.config.shipped import find_config, shipped
from markovlm.errors import UserError

ROOT = Path(__file__).parents[1]


def test_all_of_the_repository_ship_under_their_names() -> None:
    assert {one.path for one in shipped().values()} == set((ROOT / "configs").rglob("*.yaml"))
    assert shipped()["recommended/gsm8k-24gb"].task == "gsm8k"


def test_a_copy_is_the_file_and_never_written_over_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "my.yaml"
    assert main(["configs", "recommended/gsm8k-24gb", "--to", str(copy)]) == 0
    assert copy.read_text() == (ROOT / "configs" / "recommended" / "gsm8k-24gb.yaml").read_text()
    copy.write_text("mine")
    assert main(["configs", "recommended/arc", "--to", str(copy)]) == 2
    assert copy.read_text() == "mine"
    capsys.readouterr()
    assert main(["configs", "recommended/gsm8k-24g"]) == 2
    assert "did you mean 'recommended/gsm8k-24gb'?" in capsys.readouterr().err
    assert main(["configs", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["configs"]] == list(shipped())


def test_train_takes_one_by_its_name_and_a_file_of_ones_own_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = shipped()["embedded/markovian"].path
    for name in ("embedded/markovian", "embedded/markovian.yaml", "configs/embedded/markovian.yaml"):
        assert find_config(Path(name)) == wanted
    assert configure("embedded/markovian").model == "embedded-shortcut"
    (tmp_path / "embedded").mkdir()
    (tmp_path / "embedded" / "markovian.yaml").write_text("model: embedded\n")
    assert configure("embedded/markovian.yaml").model == "embedded"
    assert find_config(Path("nothere.yaml")) == Path("nothere.yaml")
    with pytest.raises(UserError, match=r"recommended/gms8k: no such file \(did you mean 'recommended/gsm8k'\?\)"):
        find_config(Path("recommended/gms8k"))
