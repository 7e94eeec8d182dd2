"""Drawing: the same scene gives the same pixels, every attribute is visible, and no object leaves the frame."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from workbench.data import miniguard
from workbench.data.drawing import draw


def test_a_scene_is_drawn_the_same_every_time_and_every_attribute_shows():
    scene = miniguard.random_scene(np.random.default_rng(3))
    assert np.array_equal(draw(scene), draw(scene))
    other = {
        "kind": "cat",
        "colour": "blue",
        "background": "dotted",
        "dx": 3.0,
        "dy": -3.0,
        "radius": 13.5,
        "noise": 1,
        "tone": 200,
    }
    for field, value in other.items():
        if getattr(scene, field) != value:
            changed = dataclasses.replace(scene, **{field: value})
            assert not np.array_equal(draw(scene), draw(changed)), field


def test_every_object_lies_within_the_frame():
    for kind in miniguard.KINDS:
        for dx, dy in ((-4, -4), (4, 4)):
            scene = miniguard.Scene(kind, "black", "plain", dx, dy, 16.0, 240, 0)
            dark = np.asarray(draw(scene)).min(axis=2) < 100
            assert 40 < dark.sum() < 900, kind
            assert not dark[0].all() and not dark[-1].all()


@pytest.mark.parametrize("size", [96, 336])
def test_a_larger_picture_shows_the_same(size):
    """Scaled down, it is the small one but for noise and edges."""
    rng = np.random.default_rng(0)
    for kind in miniguard.KINDS:
        scene = miniguard.random_scene(rng, (kind,))
        large, small = draw(scene, size), np.asarray(draw(scene), dtype=float)
        assert large.size == (size, size)
        difference = np.abs(np.asarray(large.resize((48, 48), Image.Resampling.BOX), dtype=float) - small)
        assert np.median(difference) < 10 and (difference.max(axis=2) > 60).mean() < 0.05
