"""The documents say what exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_configuration_page_is_up_to_date() -> None:
    path = ROOT / "scripts" / "write_configuration_doc.py"
    spec = importlib.util.spec_from_file_location("write_configuration_doc", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == module.render()


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        targets = [t for t in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")) if not t.startswith("http")]
        broken += [f"{page.name}: {target}" for target in targets if not (page.parent / target).exists()]
    assert not broken


def test_the_run_directory_page_names_every_metric() -> None:
    from markovlm.training.metrics import metric_row

    text = (ROOT / "docs" / "run-directory.md").read_text(encoding="utf-8")
    source = Path(metric_row.__code__.co_filename).read_text(encoding="utf-8")
    names = set(re.findall(r'^\s+"([a-z_]+)": ', source, flags=re.MULTILINE)) - set(re.findall(r'"([a-z_]+)": s\.', source))
    assert len(names) > 20
    assert sorted(name for name in names if f"`{name}`" not in text) == []
