"""Quantized presets are kept in the cache: torn ones are made again, and no process fails at it."""

import multiprocessing
import warnings
from collections import Counter

import pytest

from edgemoe import workloads
from edgemoe_models.graph.file import graph_bytes, read_graph
from support.random_graphs import random_graph, small_model

NAME = "m3vit-micro"
GRAPH = random_graph(small_model())  # stands for the quantized preset, which takes long


@pytest.fixture
def quantized(monkeypatch):
    """How often the preset was quantized."""
    made = []

    def quantize(*arguments, **options):
        made.append(1)
        return GRAPH

    monkeypatch.setattr(workloads.quantize, "quantize_checkpoint", quantize)
    return made


def entry(folder):
    (path,) = folder.glob("*.graph.safetensors")
    return path


def test_is_made_once(quantized, tmp_path):
    first, second = (workloads.preset_graph(NAME, tmp_path) for _ in range(2))
    assert graph_bytes(first) == graph_bytes(second) == graph_bytes(GRAPH) and len(quantized) == 1
    assert graph_bytes(read_graph(entry(tmp_path))) == graph_bytes(GRAPH)
    assert [path.name for path in tmp_path.iterdir()] == [entry(tmp_path).name]


def test_lies_where_caches_lie(quantized, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEMOE_BUILD", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    workloads.preset_graph(NAME)
    assert entry(tmp_path / "cache" / "graphs").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize("torn", [b"", b"x" * 100, graph_bytes(GRAPH)[:-100], graph_bytes(GRAPH) + b"x"])
def test_is_made_again_where_it_is_torn(quantized, tmp_path, torn):
    workloads.preset_graph(NAME, tmp_path)
    entry(tmp_path).write_bytes(torn)
    assert graph_bytes(workloads.preset_graph(NAME, tmp_path)) == graph_bytes(GRAPH)
    assert entry(tmp_path).read_bytes() == graph_bytes(GRAPH) and len(quantized) == 2


def _load(folder, start, results):
    warnings.simplefilter("error")
    start.wait()
    try:
        results.put(len(workloads.preset_graph(NAME, folder).blocks))
    except BaseException as error:
        results.put(repr(error))


def test_processes_that_find_a_torn_one(quantized, tmp_path):
    workloads.preset_graph(NAME, tmp_path)
    path, context, found = entry(tmp_path), multiprocessing.get_context("fork"), Counter()
    for _ in range(8):
        path.write_bytes(graph_bytes(GRAPH)[:9000])
        start, results = context.Barrier(4), context.SimpleQueue()
        processes = [context.Process(target=_load, args=(tmp_path, start, results)) for _ in range(4)]
        for process in processes:
            process.start()
        found.update(results.get() for _ in processes)
        for process in processes:
            process.join()
    assert found == {len(GRAPH.blocks): 32}
    assert graph_bytes(read_graph(path)) == graph_bytes(GRAPH)
    assert list(tmp_path.iterdir()) == [path]
