"""The report of scripts/bench: what it plots is what was measured, and a page that needs nothing else."""

import sys
import xml.etree.ElementTree as ElementTree

import pytest

from support.kavachd import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import report  # noqa: E402


def svg(chart: report.Chart) -> ElementTree.Element:
    return ElementTree.fromstring(report.svg_of(chart))


def dots(image) -> list[tuple[float, float]]:
    return [(float(dot.get("cx")), float(dot.get("cy"))) for dot in image.iter("circle")]


@pytest.mark.parametrize("log", [False, True])
def test_more_is_further_right_and_higher(log):
    image = svg(report.Chart({"one": [(1, [10.0]), (10, [100.0]), (100, [1000.0])]}, "x", "y", log_x=log, log_y=log))
    (x1, y1), (x2, y2), (x3, y3) = dots(image)
    assert x1 < x2 < x3 and y1 > y2 > y3
    assert (x2 - x1 == pytest.approx(x3 - x2, abs=0.2)) == log


def test_a_point_is_the_median_and_its_bar_the_spread():
    image = svg(report.Chart({"one": [(1, [3.0, 1.0, 2.0]), (2, [4.0, 4.0, 4.0])]}, "x", "y"))
    titles = [title.text for title in image.iter("title")]
    assert titles == ["2 (1..3)", "4 (4..4)"]
    bars = [line for line in image.iter("line") if line.get("stroke") in report.COLORS]
    assert float(bars[0].get("y1")) - float(bars[0].get("y2")) > 10 and bars[1].get("y1") == bars[1].get("y2")


def test_each_line_has_its_name():
    image = svg(report.Chart({"a <b>": [(1, [1.0])], "c": [(1, [2.0])]}, "left & right", "y", x_names=["p50"]))
    texts = [text.text for text in image.iter("text")]
    assert {"a <b>", "c", "left & right", "p50"} <= set(texts)


def test_a_page_needs_nothing_else_and_shows_texts_as_they_are():
    page = report.page("t", "<about>", [report.Section("h", "a & b", table=(["work"], [["1 < 2: **not met**"]]))])
    assert "&lt;about&gt;" in page and "a &amp; b" in page and "<td class=not>1 &lt; 2: not met</td>" in page
    for outside in ("http://", "https://", "<script", "src=", "<link"):
        assert outside not in page
