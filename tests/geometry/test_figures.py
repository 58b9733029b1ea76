"""Numbers of logarithmic axes that can be read, and curves that can be told apart."""

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtl_ray.geometry.figures import curve_style, plain_log


@pytest.mark.parametrize("low", [1e-6, 0.003, 0.52, 3.3, 900.0])
@pytest.mark.parametrize("decades", [0.01, 0.1, 0.4, 0.6, 0.95, 1.2, 2.5, 4.5, 9.0])
def test_numbers_of_a_logarithmic_axis_do_not_overlap(low: float, decades: float) -> None:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([1, 2], [low, low * 10**decades])
    axes.set_yscale("log")
    plain_log(axes.yaxis)
    figure.canvas.draw()
    places = axes.get_window_extent()
    labels = [label for label in axes.yaxis.get_ticklabels(which="both") if label.get_text()]
    extents = sorted((label.get_window_extent() for label in labels), key=lambda extent: extent.y0)
    shown = [extent for extent in extents if places.y0 <= (extent.y0 + extent.y1) / 2 <= places.y1]
    assert len(shown) >= 2
    assert all(one.y1 <= other.y0 for one, other in itertools.pairwise(shown))


def test_28_curves_differ_in_colour_or_dash() -> None:
    looks = [
        (style["color"], style["linestyle"])
        for style in (curve_style(index, 100) for index in range(28))
    ]
    assert len(set(looks)) == 28
    assert len({colour for colour, _ in looks[:7]}) == 7
    assert curve_style(0, 5)["marker"] is not None
    assert curve_style(0, 100)["marker"] is None
