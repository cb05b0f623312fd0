"""One block in three libraries gives one answer: plain PyTorch, PyTorch Geometric and, where it is there, DGL.

`make frameworks` runs this file where DGL is, with STGCN_LAB_DGL=required: then a missing DGL is a failure.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import GCNConv

from stgcn_lab import graphs
from stgcn_lab.layers import GraphConv, propagate

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "frameworks.py"
RESULTS = SCRIPT.with_suffix(".json")
_spec = importlib.util.spec_from_file_location("frameworks", SCRIPT)
frameworks = sys.modules["frameworks"] = importlib.util.module_from_spec(_spec)  # PyG looks its classes up there
_spec.loader.exec_module(frameworks)

CASES = frameworks.cases()
each_case = pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
PRECISIONS = {torch.float32: 1e-5, torch.float64: 1e-12}
each_precision = pytest.mark.parametrize("dtype", PRECISIONS, ids=str)


@pytest.fixture
def dgl():
    if os.environ.get("STGCN_LAB_DGL") == "required":
        import dgl

        return dgl
    return pytest.importorskip("dgl", reason="DGL is no dependency; `make frameworks` tests it in its own environment")


@each_case
def test_the_operator_is_that_of_the_package(graph):
    torch.testing.assert_close(frameworks.operator(graph), graphs.gcn_operator(graph))


@each_precision
@each_case
def test_plain_and_pyg_give_the_same_numbers_and_gradients(graph, dtype):
    (apart,) = frameworks.differences(graph, ["PyG"], dtype).values()
    assert 0 < max(apart.values()) < PRECISIONS[dtype]  # not 0: two ways to add up, not one compared with itself


@each_precision
@each_case
def test_plain_and_dgl_give_the_same_numbers_and_gradients(dgl, graph, dtype):
    (apart,) = frameworks.differences(graph, ["DGL"], dtype).values()
    assert 0 < max(apart.values()) < PRECISIONS[dtype]


def test_the_comparison_would_find_a_difference():
    graph = CASES["directed"]
    found = frameworks.blocks(graph, ["PyG"])
    x, weigh = torch.randn(2, 9, 24, 2), torch.randn(2, 5, 24, 16)
    (plain, operator), (pyg, edges) = (found[name] for name in ("plain", "PyG"))
    right = frameworks.answers(plain, operator, x, weigh)
    wrong_edges = (edges[0].flip(0), edges[1])
    for wrong in (
        frameworks.answers(pyg, wrong_edges, x, weigh),
        frameworks.answers(pyg, edges[:1], x, weigh),  # the weights forgotten
        frameworks.answers(plain, (operator[0].T,), x, weigh),
    ):
        assert set(wrong) == set(right)
        assert frameworks.apart(wrong["output"], right["output"]) > 0.01
        assert frameworks.apart(wrong["squeeze.weight"], right["squeeze.weight"]) > 0.01


@each_case
def test_messages_by_hand_are_the_matrix_product(graph):
    x = torch.randn(2, 3, graph.num_nodes, 4)
    messages = frameworks.PyGMessages()(x, graph.edge_index, graph.edge_weight)
    adjacency = torch.from_numpy(graphs.adjacency(graph).toarray()).float()
    torch.testing.assert_close(messages, propagate(adjacency, x))


@each_case
def test_messages_by_hand_with_dgl(dgl, graph):
    x = torch.randn(2, 3, graph.num_nodes, 4)
    made, weight = frameworks.for_dgl(graph)
    messages = frameworks.dgl_messages(x.movedim(2, 0), made, weight).movedim(0, 2)
    torch.testing.assert_close(messages, propagate(frameworks.operator(graph), x))
    assert not made.ndata and not made.edata


def test_the_timed_forms_compute_the_same():
    graph = CASES["undirected"]
    x, layer = torch.randn(2, 3, 24, 16), GraphConv(16, 16)
    product, pyg = frameworks.SparseGCN(16), GCNConv(16, 16, cached=True)
    for conv in (product.conv, pyg):
        conv.load_state_dict({"lin.weight": layer.weight.T, "bias": layer.bias})
    right = layer(x, graphs.gcn_operator(graph))
    torch.testing.assert_close(product(x, graphs.gcn_operator(graph, sparse=True)), right)
    torch.testing.assert_close(pyg(x, *frameworks.for_pyg(graph)), right)


def test_stored_results_belong_to_the_code_and_keep_the_promise():
    stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert stored["code"] == frameworks.code_hash(), "what is compared has changed; run: make frameworks"
    assert set(stored["differences"]) == set(CASES)
    for case in stored["differences"].values():
        for dtype, limit in PRECISIONS.items():
            found = case[str(dtype).removeprefix("torch.")]
            assert set(found) == {"PyG", "DGL"}
            assert all(0 < value < limit for apart in found.values() for value in apart.values())
    for part in ("layer", "block"):
        assert list(stored[part]) == [str(nodes) for nodes in frameworks.SIZES]
        for row in stored[part].values():
            assert all(0 < form["low"] <= form["ms"] <= form["high"] for form in row.values())


def test_without_dgl_the_benchmark_says_so_and_leaves_the_results_alone(tmp_path):
    (tmp_path / "dgl.py").write_text("raise ImportError('No module named dgl')")  # hides an installed one
    before = RESULTS.read_bytes()
    root = str(SCRIPT.parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), root])}
    done = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 75, done.stderr
    assert done.stdout.startswith("skipped, DGL cannot be imported here (No module named dgl)")
    assert "make frameworks" in done.stdout
    assert before == RESULTS.read_bytes()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_where_dgl_has_no_wheel_one_line_says_so_and_nothing_is_made(tmp_path):
    root = SCRIPT.parents[1]
    for name in ("Makefile", "constraints.txt", "requirements.lock"):
        shutil.copy(root / name, tmp_path)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho Darwin arm64 3 12\n")
    python.chmod(0o755)
    before = set(tmp_path.iterdir())
    command = ["make", "-s", f"PYTHON={python}", "frameworks"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    assert "expected Python 3.11 on Linux x86_64" in line and "'Darwin arm64 3 12'" in line
    assert set(tmp_path.iterdir()) == before
