"""The helpers that draw: what no SVG may hold is shown, and one that dies is replaced."""

import pytest

from markovlm.report.draw import Drawers, DrawingFailed

SPEC = {"title": "T", "data": {"values": [{"x": 1, "name": "a\x1b[31m\x07b\ufffe"}]}, "mark": "text"}
SPEC |= {"encoding": {"text": {"field": "name"}, "color": {"field": "name", "title": "c\x1bd"}}}


def test_control_characters_are_drawn_as_a_sign() -> None:
    with Drawers(1) as drawers:
        drawn = drawers.svg(SPEC, {}).result(60)
    assert "a\ufffd[31m\ufffdb\ufffd" in drawn
    assert "c\ufffdd" in drawn


def test_a_helper_that_died_is_replaced() -> None:
    with Drawers(1) as drawers:
        drawers.svg(SPEC, {}).result(60)
        drawers._started[0].kill()
        drawers._started[0].wait()
        with pytest.raises(DrawingFailed, match="ended unexpectedly"):
            drawers.svg(SPEC, {}).result(60)
        assert drawers.svg(SPEC, {}).result(60).startswith("<svg")
