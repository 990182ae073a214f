"""Files that others wrote: pipes are not waited for, archives and aliases do not grow without end."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
import yaml

from markovlm import content
from markovlm.content import check_regular, parse_yaml, read_content, unpack


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, said in (("pipe", "a named pipe"), ("zero", "a device"), (".", "a directory"), ("loop", "symbolic links")):
        with pytest.raises(OSError, match=said) as error:
            read_content(tmp_path / name)
        assert error.value.filename == str(tmp_path / name)
    (tmp_path / "file").write_bytes(b"four")
    check_regular(tmp_path / "file")
    assert read_content(tmp_path / "file", 4) == b"four"
    with pytest.raises(OSError, match="4 bytes, where at most 3 are expected"):
        read_content(tmp_path / "file", 3)


def test_gzip_is_unpacked_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    two = gzip.compress(b"one ") + gzip.compress(b"two") + b"\0\0"
    assert unpack(two) == b"one two"
    monkeypatch.setattr(content, "_ALWAYS", 1000)
    bomb = gzip.compress(b"0" * 1_000_000)
    assert len(bomb) < 1100
    with pytest.raises(OSError, match="unpacks to more than"):
        unpack(bomb)
    assert unpack(gzip.compress(b"0" * 900)) == b"0" * 900
    with pytest.raises(OSError, match="ends early"):
        unpack(two[:10])
    with pytest.raises(OSError, match="damaged"):
        unpack(b"no gzip at all")


def test_aliases_that_stand_for_billions_are_refused() -> None:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        laughs += f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    with pytest.raises(yaml.YAMLError, match="stands for more than 200,000 values"):
        parse_yaml(laughs)
    with pytest.raises(yaml.YAMLError, match="inside the value that it names"):
        parse_yaml("&a [*a]")
    assert parse_yaml("a: &x {lr: 1}\nb: *x\nc: {<<: *x, d: 2}") == {"a": {"lr": 1}, "b": {"lr": 1}, "c": {"lr": 1, "d": 2}}


@pytest.mark.parametrize(
    "text", ["[" * 50_000, "x: 2020-13-45", f"x: {'9' * 5000}", "x: !!python/object/apply:os.getcwd []", "{"]
)
def test_whatever_is_no_yaml_is_one_kind_of_error(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)
