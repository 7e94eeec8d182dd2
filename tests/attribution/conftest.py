"""What tests of attribution share."""

import pytest

from tests.tiny_models import ARCHITECTURES, architecture_params
from workbench.models.load import load


@pytest.fixture(scope="module", params=architecture_params())
def other(tmp_path_factory, request):
    """A random model of each other architecture, with weights large enough for inputs to matter."""
    vlm = load(ARCHITECTURES[request.param](tmp_path_factory.mktemp("models") / request.param), device="cpu")
    for weight in vlm.model.parameters():
        weight.mul_(4 if weight.dim() > 1 else 1)
    return vlm
