"""The colours of the charts, seen by everybody on either page."""

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from hfbench.report.charts.chart import WAY_COLOURS, WAY_COLOURS_DARK

Floats = npt.NDArray[np.float64]
# G. M. Machado, M. M. Oliveira and L. A. F. Fernandes, A Physiologically-based Model for Simulation of Color Vision
# Deficiency, IEEE TVCG 15 (2009) 1291: severity 1.0, on linear RGB.
SIGHT = {
    "full": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
PAGES = [(WAY_COLOURS, "#ffffff"), (WAY_COLOURS_DARK, "#14171b")]


def _linear(colour: str) -> Floats:
    channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear: Floats = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear


def _lab(linear: Floats) -> Floats:
    """CIE L*a*b* of linear sRGB, white D65."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ np.clip(linear, 0, 1) / [0.9505, 1.0, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(("colours", "paper"), PAGES)
def test_two_ways_never_look_alike(colours: tuple[str, ...], paper: str, sight: str) -> None:
    seen = [_lab(np.array(SIGHT[sight]) @ _linear(colour)) for colour in colours]
    # ΔE of 2.3 is just noticeable; marks of a few pixels need several times that.
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)) > 15, paper


@pytest.mark.parametrize(("colours", "paper"), PAGES)
def test_marks_stand_out_from_the_page(colours: tuple[str, ...], paper: str) -> None:
    """WCAG 2.2, criterion 1.4.11: a contrast of 3:1."""
    background = _linear(paper) @ [0.2126, 0.7152, 0.0722]
    for colour in colours:
        low, high = sorted((background, _linear(colour) @ [0.2126, 0.7152, 0.0722]))
        assert (high + 0.05) / (low + 0.05) >= 3, colour
