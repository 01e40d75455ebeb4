import math

import pytest

from reports.palette import DARK, LIGHT, contrast, linear

#: Matrices that simulate colour blindness: each row gives the shares of red, green and blue in one perceived component
#: (G. M. Machado, M. M. Oliveira and L. A. F. Fernandes, 2009, table 1, severity 1.0).
SIGHT = {
    "usual": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanope": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranope": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}
#: Matrix from linear sRGB to CIE XYZ; each row is divided by the corresponding component of the sRGB white point.
XYZ = ((0.4339, 0.3763, 0.1899), (0.2126, 0.7152, 0.0722), (0.0177, 0.1095, 0.8729))


def times(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def perceived(colour, sight):
    """Return the CIE L*a*b* coordinates of *colour* as perceived with the given type of *sight*.

    A distance of 2 between two colours is just visible; colours at a distance of 15 are clearly different.
    """
    x, y, z = (max(0.0, part) ** (1 / 3) for part in times(XYZ, times(SIGHT[sight], linear(colour))))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(
    ("colours", "apart"),
    [
        pytest.param(LIGHT.series[:6], 15, id="series"),
        pytest.param(DARK.series[:6], 15, id="series-dark"),
        pytest.param((LIGHT.good, LIGHT.bad), 35, id="good-and-bad"),
        pytest.param((DARK.good, DARK.bad), 35, id="good-and-bad-dark"),
    ],
)
def test_the_colour_blind_can_tell_the_colours_apart(colours, apart, sight):
    seen = {colour: perceived(colour, sight) for colour in colours}
    near = {(a, b): math.dist(seen[a], seen[b]) for a in seen for b in seen if a < b}
    assert not {pair: distance for pair, distance in near.items() if distance < apart}


def test_contrast_is_that_of_the_guidelines():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
