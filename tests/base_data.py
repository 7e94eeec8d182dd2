"""Base data that take a second to draw, not twenty."""

from workbench.data import splits


def shorten(examples, pictures, change=setattr):
    """Let the base split have fewer examples and pictures.

    Args:
        examples: How many.
        pictures: How many.
        change: Sets an attribute, e.g. monkeypatch.setattr.
    """
    change(splits, "_BASE_EXAMPLES", examples)
    change(splits, "_BASE_PICTURES", pictures)
