"""The report's pictures: drawn where the numbers say, whatever the names, down to a single point."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from mimigenrec.report.pictures import WIDTH, draw_curves, draw_intervals, draw_levels


def parsed(svg):
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    for element in root.iter():
        for key in ("x", "x1", "x2", "cx"):
            assert -0.5 <= float(element.get(key, 0)) <= width + 0.5, ElementTree.tostring(element)
        for key in ("y", "y1", "y2", "cy"):
            assert -0.5 <= float(element.get(key, 0)) <= height + 0.5, ElementTree.tostring(element)
    return root


def value(mean, low, high, seeds=()):
    return {"hr@10": {"mean": mean, "low": low, "high": high, "seeds": list(seeds)}}


def test_means_stand_in_proportion_and_models_are_filled():
    found = {"a": value(0.1, 0.05, 0.2), "b": value(0.2, 0.1, 0.3, (0.15, 0.25)), "zero": value(0.0, 0.0, 0.0, (0.0,))}
    root = parsed(draw_intervals(found, "hr@10", ["b"], "a"))
    dots = list(root.iter("circle"))
    zero = float(dots[2].get("cx"))
    assert float(dots[1].get("cx")) - zero == pytest.approx(2 * (float(dots[0].get("cx")) - zero), abs=0.2)
    assert [dot.get("fill") for dot in dots] == ["var(--card)", "var(--c0)", "var(--card)"]
    dashed = [line for line in root.iter("line") if line.get("stroke-dasharray")]
    assert [line.get("x1") for line in dashed] == [dots[0].get("cx")]
    strokes = [
        line for line in root.iter("line") if line.get("x1") == line.get("x2") and line.get("stroke") == "var(--c0)"
    ]
    assert len(strokes) == 2  # one a seed, none for a single one


def test_nothing_right_anywhere_can_still_be_drawn():
    parsed(draw_intervals({"a": value(0.0, 0.0, 0.0)}, "hr@10", [], None))


def test_names_are_escaped_and_cut_to_their_room():
    name = "a<b>&" + "long" * 20
    root = parsed(draw_intervals({name: value(0.1, 0.0, 0.2)}, "hr@10", [], None))
    label = [text.text for text in root.iter("text") if text.get("text-anchor") == "end"][0]
    assert label.startswith("a<b>&long") and label.endswith("…")
    parsed(draw_levels({name: {"wrong": {"1": 1.0}, "right": 0.0, "none": 0.0, "reached": {}}}))


def test_a_curve_goes_from_corner_to_corner():
    root = parsed(draw_curves({"x": "step", "curves": {"loss": [[(0, 4.0), (10, 2.0)]]}}))
    (x0, y0), (x1, y1) = (map(float, p.split()) for p in root.find("path").get("d")[1:].split("L"))
    assert x0 < 60 and x1 == pytest.approx(WIDTH - 10) and y0 < y1  # a lower loss stands lower


@pytest.mark.parametrize("points", [[(5, 1.0)], [(0, 0.0), (1, 0.0)], [(0, 3.0), (0, 3.0)], [(0, -1e-9), (1, 1e9)]])
def test_one_point_a_constant_and_a_wide_range_can_be_drawn(points):
    drawn = draw_curves({"x": "epoch", "curves": {"loss": [points]}})
    assert "nan" not in drawn and "inf" not in drawn
    parsed(drawn)


def test_seeds_share_a_colour_and_curves_do_not():
    curves = {f"curve {i}": [[(0, i), (1, i)], [(0, i), (1, i + 0.5)]] for i in range(3)}
    root = parsed(draw_curves({"x": "step", "curves": curves}))
    assert [path.get("stroke") for path in root.iter("path")] == [f"var(--c{i // 2})" for i in range(6)]
    looks = {(path.get("stroke"), path.get("stroke-dasharray")) for path in root.iter("path")}
    assert len({dash for _, dash in looks}) == 3  # told apart without colour too


def test_bars_of_levels_fill_the_width_in_proportion():
    levels = {
        "a": {"wrong": {"1": 0.5, "2": 0.25}, "right": 0.25, "none": 0.0, "reached": {}},
        "b": {"wrong": {"1": 0.0, "2": 0.0}, "right": 1.0, "none": 0.0, "reached": {}},
    }
    root = parsed(draw_levels(levels))
    bars = [float(box.get("width")) + 1 for box in root.iter("rect") if box.get("height") == "25"]
    right, wrong2, wrong1 = bars[:3]
    assert right == pytest.approx(wrong2) and wrong1 == pytest.approx(2 * right, rel=0.01)
    assert max(bars[3:]) == pytest.approx(right + wrong1 + wrong2, abs=0.5)
    said = " ".join(text.text for text in root.iter("text"))
    assert re.search("the whole SID right.*wrong at level 2.*wrong at level 1", said) and "no list" not in said
