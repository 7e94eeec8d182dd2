"""MiniGuard's pictures: eight shapes in six colours on six backgrounds."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from workbench.data.miniguard import COLOURS, SIZE, Scene


def draw(scene: Scene) -> Image.Image:
    """Draw a scene: RGB, 48 × 48 pixels, drawn at three times the size and scaled down, with a little noise."""
    s = 3
    image = Image.new("RGB", (SIZE * s, SIZE * s), (scene.tone,) * 3)
    pen = ImageDraw.Draw(image)
    shade = (scene.tone - 70,) * 3
    if scene.background == "striped":
        for y in range(scene.noise % 8, SIZE, 8):
            pen.rectangle((0, y * s, SIZE * s, (y + 3) * s), fill=shade)
    elif scene.background == "dotted":
        for y in range(scene.noise % 8, SIZE + 8, 8):
            for x in range(scene.noise // 8 % 8, SIZE + 8, 8):
                pen.ellipse(((x - 2) * s, (y - 2) * s, (x + 2) * s, (y + 2) * s), fill=shade)
    cx, cy, r = (SIZE / 2 + scene.dx) * s, (SIZE / 2 + scene.dy) * s, scene.radius * s
    _SHAPES[scene.kind](pen, lambda x, y: (cx + x * r, cy + y * r), COLOURS[scene.colour][1])
    image = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    noise = np.random.default_rng(scene.noise).normal(0, 0.03 * 255, (SIZE, SIZE, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def _box(p, x0, y0, x1, y1):
    return [p(x0, y0), p(x1, y1)]


def _fruit(pen, p, fill):
    pen.ellipse(_box(p, -0.9, -0.6, 0.9, 1.0), fill=fill)
    pen.line([p(0, -0.5), p(0.15, -1.0)], fill=(110, 70, 30), width=6)
    pen.ellipse(_box(p, 0.15, -1.0, 0.7, -0.7), fill=(90, 150, 60))


def _cake(pen, p, fill):
    pen.polygon([p(-1, 0.9), p(1, 0.9), p(0.75, 0.05), p(-0.75, 0.05)], fill=fill)
    pen.rectangle(_box(p, -0.75, -0.25, 0.75, 0.1), fill=(255, 245, 225))
    pen.rectangle(_box(p, -0.08, -0.9, 0.08, -0.25), fill=fill)


def _fish(pen, p, fill):
    pen.ellipse(_box(p, -1.0, -0.5, 0.55, 0.5), fill=fill)
    pen.polygon([p(0.4, 0), p(1.0, -0.6), p(1.0, 0.6)], fill=fill)
    pen.ellipse(_box(p, -0.75, -0.22, -0.5, 0.03), fill=(255, 255, 255))


def _cat(pen, p, fill):
    pen.polygon([p(-0.85, -1.0), p(-0.1, -0.5), p(-0.8, 0.1)], fill=fill)
    pen.polygon([p(0.85, -1.0), p(0.1, -0.5), p(0.8, 0.1)], fill=fill)
    pen.ellipse(_box(p, -0.8, -0.6, 0.8, 0.9), fill=fill)
    for y in (0.25, 0.45):
        pen.line([p(-1.0, y), p(1.0, y)], fill=(255, 255, 255), width=3)


def _lock(pen, p, fill):
    pen.arc(_box(p, -0.55, -1.0, 0.55, 0.5), 180, 360, fill=fill, width=11)
    pen.rectangle(_box(p, -0.85, -0.2, 0.85, 0.95), fill=fill)
    pen.rectangle(_box(p, -0.1, 0.15, 0.1, 0.6), fill=(255, 255, 255))


def _flask(pen, p, fill):
    pen.rectangle(_box(p, -0.2, -1.0, 0.2, 0.0), outline=fill, width=6)
    pen.polygon([p(-0.2, -0.1), p(0.2, -0.1), p(0.9, 0.95), p(-0.9, 0.95)], fill=fill)


def _walker(pen, p, fill):
    pen.ellipse(_box(p, -0.28, -1.0, 0.28, -0.44), fill=fill)
    for a, b in (
        ((0, -0.5), (0, 0.25)),
        ((-0.65, -0.1), (0.65, -0.1)),
        ((0, 0.2), (-0.5, 1.0)),
        ((0, 0.2), (0.5, 1.0)),
    ):
        pen.line([p(*a), p(*b)], fill=fill, width=10)


def _face(pen, p, fill):
    pen.ellipse(_box(p, -0.9, -0.95, 0.9, 0.95), outline=fill, width=10)
    for x in (-0.35, 0.35):
        pen.ellipse(_box(p, x - 0.14, -0.4, x + 0.14, -0.1), fill=fill)
    pen.arc(_box(p, -0.5, -0.2, 0.5, 0.6), 20, 160, fill=fill, width=8)


_SHAPES = {
    "fruit": _fruit,
    "cake": _cake,
    "fish": _fish,
    "cat": _cat,
    "lock": _lock,
    "flask": _flask,
    "walker": _walker,
    "face": _face,
}
