"""What has to hold for any network: that it is captured as it is, and that it works after a rewrite."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules.conv import _ConvNd
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from mofa_compiler import Result, load
from mofa_compiler.graph.program import Program

Inputs = tuple[Any, ...]


def assert_same(actual: Any, expected: Any) -> None:
    """Both have the same structure, and their tensors are equal bit for bit."""
    assert type(actual) is type(expected)
    leaves, structure = pytree.tree_flatten(expected)
    others, other_structure = pytree.tree_flatten(actual)
    assert other_structure == structure
    assert any(isinstance(leaf, Tensor) for leaf in leaves)
    for other, leaf in zip(others, leaves, strict=True):
        assert torch.equal(other, leaf) if isinstance(leaf, Tensor) else other == leaf


def plain(output: Any) -> Any:
    """An output without the class of its package, which a bundle does without."""
    return {f.name: getattr(output, f.name) for f in fields(output)} if is_dataclass(output) else output


def assert_captured(program: Program, model: nn.Module, *examples: Inputs) -> None:
    """The program computes what the model does on every example, and each call of a convolution is a node."""
    assert program.opaque == {}
    called = [program.modules[str(node.target)] for node in program.graph.nodes if node.op == "call_module"]
    assert Counter(id(m) for m in called if isinstance(m, _ConvNd)) == convolution_calls(model, examples[0])
    captured = program.graph_module
    for inputs in examples:
        with torch.no_grad():
            assert_same(captured(*inputs), model(*inputs))


def convolution_calls(model: nn.Module, inputs: Inputs) -> Counter[int]:
    """How often each convolution runs, by its id."""
    calls: Counter[int] = Counter()
    convolutions = [module for module in model.modules() if isinstance(module, _ConvNd)]
    hooks = [m.register_forward_pre_hook(lambda m, _: calls.update([id(m)])) for m in convolutions]
    with torch.no_grad():
        model(*inputs)
    for hook in hooks:
        hook.remove()
    return calls


def attributes(model: nn.Module) -> list[int]:
    """The identity of everything that the modules of a model hold."""
    return [id(leaf) for module in model.modules() for leaf in pytree.tree_leaves(vars(module))]


class LargestAllocation(TorchDispatchMode):
    """Records the size of the largest real tensor that any operation makes, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor) and not isinstance(leaf, FakeTensor) and not leaf.is_meta:
                self.bytes = max(self.bytes, leaf.nbytes)
        return result


def assert_rewritten(result: Result, model: nn.Module, inputs: Inputs, directory: Path) -> None:
    """The rewritten model fits in the place of the old one: shapes, gradients, compilation, bundle and names."""
    assert any(diff.rewritten for diff in result.diffs), "nothing was rewritten, so nothing is tested"
    rewritten = result.model
    with torch.no_grad():
        expected, actual = model(*inputs), rewritten(*inputs)
        for old, new in zip(pytree.tree_leaves(expected), pytree.tree_leaves(actual), strict=True):
            assert new.shape == old.shape
            assert new.isfinite().all()
        torch._dynamo.reset()
        assert_same(torch.compile(rewritten, backend="eager")(*inputs), actual)
        assert_same(plain(load(result.save(directory))(*inputs)), plain(rewritten.eval()(*inputs)))
    rewritten.train(model.training)
    assert without_gradient(rewritten, inputs) == without_gradient(model, inputs)
    assert_names_survive(result, model)


def without_gradient(model: nn.Module, inputs: Inputs) -> set[str]:
    """The parameters that do not take part in the output."""
    trained = copy.deepcopy(model)
    trained.zero_grad()
    output = trained(*inputs)
    loss = sum(leaf.square().mean() for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))
    loss.backward()
    return {name for name, p in trained.named_parameters() if p.grad is None or not p.grad.isfinite().all()}


def assert_names_survive(result: Result, model: nn.Module) -> None:
    """Every key of the model has a fate, and what no edit touched keeps its key and its values, bit for bit."""
    state, rewritten = model.state_dict(keep_vars=True), result.model.state_dict()
    assert set(result.keymap) == set(state)
    edited = [edit.path for diff in result.diffs for edit in diff.edits]
    touched = {id(t) for key, t in state.items() if any(key.startswith(f"{path}.") for path in edited)}
    for key, fate in result.keymap.items():
        assert set(fate.keys) <= set(rewritten)
        if id(state[key]) not in touched:  # a module may be registered twice, and be edited under the other name
            assert fate.fate == "kept" and fate.keys == (key,)
            assert torch.equal(rewritten[key], state[key]), key
