"""MiniGuard's pictures: eight shapes in six colours on three backgrounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from workbench.data.miniguard import COLOURS, SIZE, Scene

_SMOOTH = 3  # pictures are drawn this much larger and scaled down, which smooths the edges
_NOISE = 0.03 * 255  # standard deviation of the pixel noise, in grey levels

RGB = tuple[int, int, int]
Point = tuple[float, float]
Place = Callable[[float, float], Point]  # (x, y) within a shape, each in [-1, 1] → pixels of the large picture
Thick = Callable[[int], int]  # a line's thickness, for a picture of SIZE × SIZE → pixels of the large picture
Shape = Callable[[ImageDraw.ImageDraw, Place, RGB, Thick], None]

_WHITE: RGB = (255, 255, 255)
_CREAM: RGB = (255, 245, 225)
_STALK: RGB = (110, 70, 30)
_LEAF: RGB = (90, 150, 60)


def draw(scene: Scene, size: int = SIZE) -> Image.Image:
    """Draw a scene in RGB, with a little noise. The same scene and size give the same pixels.

    Args:
        scene: What to draw.
        size: Width and height in pixels; whatever it is, all lies at the same place.
    """
    scale = size / SIZE * _SMOOTH  # pixels of the large picture for one of a picture of SIZE × SIZE
    image = Image.new("RGB", (size * _SMOOTH, size * _SMOOTH), (scene.tone,) * 3)
    pen = ImageDraw.Draw(image)
    _draw_background(pen, scene, scale)
    centre_x, centre_y = (SIZE / 2 + scene.dx) * scale, (SIZE / 2 + scene.dy) * scale
    radius = scene.radius * scale

    def place(x: float, y: float) -> Point:
        return centre_x + x * radius, centre_y + y * radius

    def thick(pixels: int) -> int:
        return round(pixels * scale / _SMOOTH)

    _SHAPES[scene.kind](pen, place, COLOURS[scene.colour][1], thick)
    image = image.resize((size, size), Image.Resampling.LANCZOS)
    noise = np.random.default_rng(scene.noise).normal(0, _NOISE, (size, size, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def _draw_background(pen: ImageDraw.ImageDraw, scene: Scene, scale: float) -> None:
    """Draw stripes or dots, in a darker tone, at an offset that depends on the scene."""
    shade = (scene.tone - 70,) * 3
    if scene.background == "striped":
        for y in range(scene.noise % 8, SIZE, 8):
            pen.rectangle((0, y * scale, SIZE * scale, (y + 3) * scale), fill=shade)
    elif scene.background == "dotted":
        for y in range(scene.noise % 8, SIZE + 8, 8):
            for x in range(scene.noise // 8 % 8, SIZE + 8, 8):
                corners = ((x - 2) * scale, (y - 2) * scale, (x + 2) * scale, (y + 2) * scale)
                pen.ellipse(corners, fill=shade)


def _box(place: Place, left: float, top: float, right: float, bottom: float) -> list[Point]:
    return [place(left, top), place(right, bottom)]


def _fruit(pen: ImageDraw.ImageDraw, place: Place, fill: RGB, thick: Thick) -> None:
    pen.ellipse(_box(place, -0.9, -0.6, 0.9, 1.0), fill=fill)
    pen.line([place(0, -0.5), place(0.15, -1.0)], fill=_STALK, width=thick(6))
    pen.ellipse(_box(place, 0.15, -1.0, 0.7, -0.7), fill=_LEAF)


def _cake(pen: ImageDraw.ImageDraw, place: Place, fill: RGB, thick: Thick) -> None:
    pen.polygon([place(-1, 0.9), place(1, 0.9), place(0.75, 0.05), place(-0.75, 0.05)], fill=fill)
    pen.rectangle(_box(place, -0.75, -0.25, 0.75, 0.1), fill=_CREAM)
    pen.rectangle(_box(place, -0.08, -0.9, 0.08, -0.25), fill=fill)


def _fish(pen: ImageDraw.ImageDraw, place: Place, fill: RGB, thick: Thick) -> None:
    pen.ellipse(_box(place, -1.0, -0.5, 0.55, 0.5), fill=fill)
    pen.polygon([place(0.4, 0), place(1.0, -0.6), place(1.0, 0.6)], fill=fill)
    pen.ellipse(_box(place, -0.75, -0.22, -0.5, 0.03), fill=_WHITE)


def _cat(pen: ImageDraw.ImageDraw, place: Place, fill: RGB, thick: Thick) -> None:
    pen.polygon([place(-0.85, -1.0), place(-0.1, -0.5), place(-0.8, 0.1)], fill=fill)
    pen.polygon([place(0.85, -1.0), place(0.1, -0.5), place(0.8, 0.1)], fill=fill)
    pen.ellipse(_box(place, -0.8, -0.6, 0.8, 0.9), fill=fill)
    for y in (0.25, 0.45):
        pen.line([place(-1.0, y), place(1.0, y)], fill=_WHITE, width=thick(3))


def _lock(pen: ImageDraw.ImageDraw, place: Place, fill: RGB, thick: Thick) -> None:
    pen.arc(_box(place, -0.55, -1.0, 0.55, 0.5), 180, 360, fill=fill, width=thick(11))
    pen.rectangle(_box(place, -0.85, -0.2, 0.85, 0.95), fill=fill)
    pen.rectangle(_box(place, -0.1, 0.15, 0.1, 0.6), fill=_WHITE)


def _flask(pen: ImageDraw.ImageDraw, place: Place, fill: RGB, thick: Thick) -> None:
    pen.rectangle(_box(place, -0.2, -1.0, 0.2, 0.0), outline=fill, width=thick(6))
    pen.polygon([place(-0.2, -0.1), place(0.2, -0.1), place(0.9, 0.95), place(-0.9, 0.95)], fill=fill)


def _walker(pen: ImageDraw.ImageDraw, place: Place, fill: RGB, thick: Thick) -> None:
    pen.ellipse(_box(place, -0.28, -1.0, 0.28, -0.44), fill=fill)
    trunk, arms = ((0, -0.5), (0, 0.25)), ((-0.65, -0.1), (0.65, -0.1))
    legs = ((0, 0.2), (-0.5, 1.0)), ((0, 0.2), (0.5, 1.0))
    for start, end in (trunk, arms, *legs):
        pen.line([place(*start), place(*end)], fill=fill, width=thick(10))


def _face(pen: ImageDraw.ImageDraw, place: Place, fill: RGB, thick: Thick) -> None:
    pen.ellipse(_box(place, -0.9, -0.95, 0.9, 0.95), outline=fill, width=thick(10))
    for x in (-0.35, 0.35):
        pen.ellipse(_box(place, x - 0.14, -0.4, x + 0.14, -0.1), fill=fill)
    pen.arc(_box(place, -0.5, -0.2, 0.5, 0.6), 20, 160, fill=fill, width=thick(8))


_SHAPES: dict[str, Shape] = {
    "fruit": _fruit,
    "cake": _cake,
    "fish": _fish,
    "cat": _cat,
    "lock": _lock,
    "flask": _flask,
    "walker": _walker,
    "face": _face,
}
