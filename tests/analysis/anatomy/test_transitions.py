"""Where the paths that go down into a stage have merged, against networkx's dominators."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

import networkx as nx
import pytest

from mofa_compiler.analysis.anatomy.transitions import _merge_of, _Run


@pytest.mark.parametrize("seed", range(200))
@pytest.mark.sample(20)
def test_paths_merge_at_the_nearest_node_that_all_of_them_pass(seed: int) -> None:
    draw = random.Random(seed)
    last = draw.randint(3, 12)
    nodes = list(range(last + draw.randint(1, 3)))  # also what comes after the run
    users = {i: sorted(draw.sample(nodes[i + 1 :], min(draw.randint(0, 2), len(nodes) - i - 1))) for i in nodes}
    users[last - 1] = [last]
    graph = nx.DiGraph([(i, user) for i in nodes for user in users[i] if user <= last])
    ahead = [i for i in nodes[:last] if i in graph and nx.has_path(graph, i, last)]
    entrances = draw.sample(ahead, min(draw.randint(1, 3), len(ahead)))
    backwards = graph.reverse()
    backwards.add_edges_from((entrance, "source") for entrance in entrances)
    sources = {i: [source for source in nodes if i in users[source]] for i in nodes}
    flow = SimpleNamespace(nodes=nodes, users=users, sources=sources, main=[last])
    merge = _merge_of(cast(Any, flow), _Run(1.0, 0, 1, cast(Any, entrances)), cast(Any, {i: i for i in nodes}))
    assert cast(Any, merge) == nx.immediate_dominators(backwards, last)["source"]
