"""A test that costs too much without saying so fails; costs are written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import costs

BURNS = """
    import time, subprocess, sys, pytest

    def burn(seconds):
        start = time.process_time()
        while time.process_time() - start < seconds:
            pass

    def test_cheap(): pass
    def test_waits(): time.sleep(0.3)
    def test_dear(): burn(0.3)
    def test_dear_in_a_process_of_its_own():
        subprocess.run([sys.executable, "-S", "-c", "import time\\nwhile time.process_time() < 0.3: pass"], check=True)
    @pytest.mark.slow
    def test_dear_and_says_so(): burn(0.3)
    def test_dear_and_wrong():
        burn(0.3)
        assert False, "itself"
    @pytest.fixture
    def prepared(): burn(0.3)
    def test_dear_to_prepare(prepared): pass
"""


def test_the_limit(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makeini("[pytest]\nmarkers = slow: more")
    pytester.makepyfile(BURNS)
    with pytest.MonkeyPatch.context() as patch:  # over before this test's own costs are looked at
        patch.setattr(costs, "LIMIT", 0.2)
        patch.setattr(costs, "yardstick", lambda: costs.REFERENCE)
        patch.setattr(costs, "_all", {})
        patch.setenv(costs.FILE, str(tmp_path / "build" / "durations.txt"))
        found = pytester.inline_run("-p", "no:cacheprovider", plugins=[costs])
    passed, _, failed = found.listoutcomes()
    assert [report.nodeid.partition("::")[2] for report in passed] == [
        "test_cheap", "test_waits", "test_dear_and_says_so", "test_dear_to_prepare",
    ]  # fmt: skip
    said = {report.nodeid.partition("::")[2]: report.longreprtext for report in failed}
    assert list(said) == ["test_dear", "test_dear_in_a_process_of_its_own", "test_dear_and_wrong"]
    assert "s of processor time, the limit for a test without the marker slow is 0.2" in said["test_dear"]
    assert "processor time" in said["test_dear_in_a_process_of_its_own"]
    assert "itself" in said["test_dear_and_wrong"]  # its own failure, not its cost

    head, *lines = (tmp_path / "build" / "durations.txt").read_text().splitlines()
    assert head.startswith("# all: 7 tests, ")
    assert len(lines) == 7
    totals = [float(line.split()[0]) for line in lines]
    assert totals == sorted(totals, reverse=True)
    of = {line.split("::")[1]: [float(number) for number in line.split()[:2]] for line in lines}
    assert of["test_dear_to_prepare"][0] > 0.25 > of["test_dear_to_prepare"][1]
    assert of["test_waits"][0] < 0.1


@pytest.mark.parametrize(("slowness", "seconds", "marks", "fails"), [
    (1.0, 9.9, (), False),
    (1.0, 10.1, (), True),
    (0.5, 10.1, (), True),  # a fast machine has no tighter limit
    (3.0, 29.0, (), False),
    (3.0, 31.0, (), True),
    (1.0, 99.0, ("slow", "distributed"), False),
    (1.0, 99.0, ("long",), False),
    (1.0, 99.0, ("browser",), False),
    (1.0, 99.0, ("distributed", "data"), True),
])  # fmt: skip
def test_the_limit_is_that_of_the_machine(
    slowness: float, seconds: float, marks: tuple[str, ...], fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "yardstick", lambda: slowness * costs.REFERENCE)
    assert (costs.complaint(seconds, marks) is not None) == fails


def test_the_yardstick_is_about_its_reference() -> None:
    """Within what machines differ by; else the limit means something else."""
    assert 0.1 * costs.REFERENCE < min(costs.yardstick() for _ in range(3)) < 20 * costs.REFERENCE
