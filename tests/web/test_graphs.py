"""The exported graphs answer as the models do, although their weights are stored in half precision."""

import numpy as np
import pytest

from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.models.merge import merge_adapter
from workbench.web.check import check_graphs, graph_answers
from workbench.web.graphs import decoder_graph, eyes_graph, with_weights_of, write_graph
from workbench.web.models import BASE, Shown, load_shown, same_eyes


@pytest.fixture(scope="module")
def base():
    return load_shown("miniguard", BASE)


@pytest.fixture(scope="module")
def graphs(base, tmp_path_factory):
    """Eyes and decoder of the base, as files."""
    folder = tmp_path_factory.mktemp("graphs")
    write_graph(eyes_graph(base), folder / "eyes.onnx")
    graph = decoder_graph(base)
    write_graph(with_weights_of(graph, base, base), folder / "base.onnx")
    return folder, graph


@pytest.fixture(scope="module")
def asked():
    """Pictures and queries of test data, and other lead words put to the first of them."""
    examples = miniguard_split("test", seed=3, sizes=(60, 60))
    return [e.picture() for e in examples], [e.query for e in examples]


@pytest.mark.slow
def test_greedy_answers_are_torchs(base, graphs, asked):
    folder, _ = graphs
    theirs = graph_answers(base, folder / "eyes.onnx", folder / "base.onnx", *asked)
    assert theirs == base.answers(*asked)


@pytest.mark.slow
def test_another_models_weights_take_the_place_of_the_bases(base, graphs, asked, sft):
    folder, graph = graphs
    merge_adapter(sft)
    assert same_eyes(base, sft)
    write_graph(with_weights_of(graph, base, sft), folder / "sft.onnx")
    theirs = graph_answers(sft, folder / "eyes.onnx", folder / "sft.onnx", *asked)
    assert theirs == sft.answers(*asked)
    assert theirs != base.answers(*asked)
    with pytest.raises(UserError, match="The graph of base answers"):
        check_graphs(base, folder / "eyes.onnx", folder / "sft.onnx")


def test_weights_are_stored_in_half_precision(graphs):
    import onnx

    folder, graph = graphs
    assert (folder / "base.onnx").stat().st_size < 1.7e6
    assert (folder / "eyes.onnx").stat().st_size < 0.7e6
    stored = onnx.load(folder / "base.onnx").graph.initializer
    large = [weight for weight in stored if np.prod(weight.dims) >= 64]
    assert len(large) > 30 and {weight.data_type for weight in large} == {onnx.TensorProto.FLOAT16}
    assert all(weight.data_type != onnx.TensorProto.FLOAT16 for weight in graph.graph.initializer)


def test_a_whole_model_is_shown_like_an_adapter(tmp_path, base, few):
    from workbench.models.load import load
    from workbench.models.merge import write_model

    write_model(load("miniguard-1", device="cpu"), tmp_path / "whole")
    other = load_shown("miniguard", Shown("other", "other", "", tmp_path / "whole"))
    assert not same_eyes(base, other)  # so `export_web` refuses it on this base
