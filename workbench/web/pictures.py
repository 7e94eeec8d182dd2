"""What the page needs to draw the world's pictures, equal to `draw` pixel by pixel.

`draw` paints shapes without smoothing on a sheet three times as large, scales it down with Pillow's Lanczos
filter, and adds noise. The shapes are kept here as runs of paint on that sheet, so that the page only moves
and colours them; the filter is short enough to be written in JavaScript; and the noise is kept as whole
numbers, of a few seeds.
"""

from __future__ import annotations

import itertools

import numpy as np
from PIL import Image, ImageDraw

from workbench.data import drawing
from workbench.data.miniguard import KINDS, SIZE

RADII = (13.0, 14.5, 16.0)  # half the object's size, in pixels: the smallest, a middle and the largest of the world
NOISES = tuple(9 * i for i in range(8))  # seeds of noise; each moves stripes and dots to another place
_FILL: drawing.RGB = (1, 2, 3)  # stands for the object's colour
_PAINTS = (_FILL, drawing._WHITE, drawing._CREAM, drawing._STALK, drawing._LEAF)
_SHEET = SIZE * drawing._SMOOTH
_DOT = 2 * drawing._SMOOTH  # half the size of a background's dot


def picture_tables() -> dict[str, object]:
    """The shapes, a dot of the background, and what the page needs to know about seeds and sizes."""
    return {
        "size": SIZE,
        "smooth": drawing._SMOOTH,
        "radii": RADII,
        "noises": NOISES,
        "paints": [None, *_PAINTS[1:]],  # the first is the object's colour
        "shapes": {kind: [_shape(kind, radius) for radius in RADII] for kind in KINDS},
        "dot": _dot(),
    }


def noise_bytes() -> bytes:
    """The noise of each of NOISES, as signed bytes: (seeds, SIZE, SIZE, 3).

    A pixel is a whole number c, to which `draw` adds noise n and drops what lies behind the point: c + ⌊n⌋.
    """
    shape = (SIZE, SIZE, 3)
    noise = [np.random.default_rng(seed).normal(0, drawing._NOISE, shape) for seed in NOISES]
    return np.floor(np.stack(noise)).astype(np.int8).tobytes()


def _shape(kind: str, radius: float) -> list[int]:
    """An object in the middle of the large sheet, as numbers y, first x, last x, paint; y, first x, …"""
    sheet = Image.new("RGB", (_SHEET, _SHEET))
    middle, half = _SHEET / 2, radius * drawing._SMOOTH

    def place(x: float, y: float) -> drawing.Point:
        return middle + x * half, middle + y * half

    drawing._SHAPES[kind](ImageDraw.Draw(sheet), place, _FILL, round)
    pixels = np.asarray(sheet)  # (y, x, 3)
    numbers = np.zeros(pixels.shape[:2], dtype=int)  # 0 is no paint, then _PAINTS from 1 on
    for number, paint in enumerate(_PAINTS, start=1):
        numbers[(pixels == paint).all(axis=-1)] = number
    return [value for y, row in enumerate(numbers) for run in _runs(row) for value in (y, *run)]


def _runs(row: np.ndarray) -> list[tuple[int, int, int]]:
    """The runs of equal paint in a row: first x, last x, place in _PAINTS."""
    edges = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
    runs = [(first, end - 1, int(row[first]) - 1) for first, end in itertools.pairwise(edges)]
    return [run for run in runs if run[2] >= 0]


def _dot() -> list[int]:
    """A dot of the background around the point (0, 0), as numbers y, first x, last x; y, …"""
    sheet = Image.new("1", (2 * _DOT + 1, 2 * _DOT + 1))
    ImageDraw.Draw(sheet).ellipse((0, 0, 2 * _DOT, 2 * _DOT), fill=1)
    rows = [np.flatnonzero(row) for row in np.asarray(sheet)]
    return [value for y, x in enumerate(rows) if len(x) for value in (y - _DOT, int(x[0]) - _DOT, int(x[-1]) - _DOT)]
