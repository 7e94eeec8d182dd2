"""Features of pictures are reused for the same pictures, and only for these."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from workbench.models import features
from workbench.models.vlm import generate, prompt_batch


@pytest.fixture
def looks(vlm):
    """A list that grows by one entry whenever the vision tower is run."""
    runs = []
    hook = vlm.model.model.vision_tower.register_forward_hook(lambda *_: runs.append(1))
    yield runs
    hook.remove()


def test_pictures_are_looked_at_once(looks, vlm, fresh, images, queries):
    first = fresh.answers(images, queries)
    assert fresh.answers(images, queries[::-1]) != first and fresh.answers(images, queries) == first
    assert len(looks) == 1
    assert (
        first == [a.text for a in generate(vlm, prompt_batch(vlm, images, queries))] and len(looks) == 2
    )  # as without a cache
    assert fresh.answers(images[::-1], queries[::-1]) == first[::-1] and len(looks) == 3
    assert not any("get_image_features" in vars(module) for module in vlm.model.modules())  # the network is as before


def test_threads_that_ask_one_model_see_their_own_pictures(vlm, fresh, images, queries):
    """A notebook's cell may ask while a widget does; what is cached for one must not reach the other."""
    alone = [vlm.answer(image, query) for image, query in zip(images, queries, strict=True)]
    assert len(set(alone)) > 6
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert list(pool.map(fresh.answer, images, queries)) == alone


def test_features_are_bounded_and_never_cached_while_the_projector_learns(
    monkeypatch, fresh, lora_copy, images, queries
):
    three_pictures = 3 * (37 * 96 + 36 * 128) * 4  # tower and projector, 4 bytes a number
    monkeypatch.setattr(features, "FEATURE_BYTES", three_pictures)
    for image, query in zip(images, queries, strict=True):
        fresh.answer(image, query)
    assert len(fresh.features) == 3
    student = lora_copy(projector=True)
    student.answers(images, queries)
    assert not student.features
