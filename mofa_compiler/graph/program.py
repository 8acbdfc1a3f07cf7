"""A model as a graph of named modules: what `capture` returns and what every pass maps to another one."""

from __future__ import annotations

import copy
import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from .call_spec import CallSpec, InputSpec, specs
from .copying import follow
from .shape_propagation import meta_twin


class CapturedModule(fx.GraphModule):
    """A GraphModule whose copies keep what its graph never uses: aliases, unused layers, non-persistent buffers."""

    def __deepcopy__(self, memo: dict[int, Any]) -> fx.GraphModule:
        new: fx.GraphModule = super().__deepcopy__(memo)
        have = dict(new.named_modules(remove_duplicate=False))
        for path, module in self.named_modules(remove_duplicate=False):
            if path not in have:
                attach(new, path, copy.deepcopy(module, memo))
                have = dict(new.named_modules(remove_duplicate=False))
            twin = have[path]
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None and name not in twin._parameters and name not in twin._buffers:
                    attach(twin, name, copy.deepcopy(tensor, memo))
            twin._non_persistent_buffers_set |= module._non_persistent_buffers_set
            twin.training = module.training
        follow(new, memo)
        return new


@dataclass(frozen=True)
class Comparison:
    """Where a graph was compared with the code that it came from: the inputs' sizes; without any, the reason."""

    sizes: tuple[str, ...]
    reason: str = ""
    too_large: bool = False


@dataclass(frozen=True)
class Program:
    """An fx graph, the modules and tensors it names, and what tracing could not see into.

    Nodes carry `meta["val"]` (a meta tensor or a plain value) and `meta["nn_module_stack"]` (the containers they were
    called in). A program is never changed: a pass makes another one, sharing the modules that it left alone. `ideals`
    remembers, by path of a partial convolution, the depthwise one over all channels that it stands for. `folded` has
    the keys of the model's state_dict that are gone, say of a weight normalization, and what weight each became.
    `ranked` is what calibration saw at nodes, by origin, whose channels it has put in order: what is to stay first.
    `example` is the call that it was captured on, with the tensors that were given, or a spec where none was.
    """

    name: str
    graph: fx.Graph
    modules: Mapping[str, nn.Module]
    tensors: Mapping[str, Tensor]
    containers: Mapping[str, type[nn.Module]]
    example: CallSpec
    opaque: Mapping[str, str] = field(default_factory=dict)
    ideals: Mapping[str, nn.Conv2d] = field(default_factory=dict)
    transient: frozenset[str] = frozenset()
    training: bool = False
    comparison: Comparison = Comparison((), "not asked for")
    folded: Mapping[str, str] = field(default_factory=dict)
    ranked: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def call(self) -> CallSpec:
        """The call that the network was captured on, a spec in place of every tensor."""
        return specs(self.example)

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Shapes and dtypes of the tensors that the network is called with."""
        return self.call.tensors

    def tensor(self, path: str) -> Any:
        """A parameter or buffer by its dotted name, also one of a leaf module's; `training` is the mode."""
        if path == "training":  # functional dropout reads it at run time
            return self.training
        if path in self.tensors:
            return self.tensors[path]
        owner, _, name = path.rpartition(".")
        while owner and owner not in self.modules:
            owner, _, inner = owner.rpartition(".")
            name = f"{inner}.{name}"
        return operator.attrgetter(name)(self.modules[owner])

    def _attribute(self, path: str) -> Any:
        return self.modules[path] if path in self.modules else self.tensor(path)

    @cached_property
    def graph_module(self) -> fx.GraphModule:
        """The program as a runnable module whose state_dict keys are those of the captured model."""
        attributes: dict[str, Any] = {**self.modules, **self.tensors}
        called = {str(node.target) for node in self.graph.nodes if node.op in ("call_module", "get_attr")}
        module = CapturedModule(
            {path: self._attribute(path) for path in called},
            self.graph,
            class_name=self.name,
        )
        for path in attributes.keys() - called:
            attach(module, path, attributes[path])
        for path in self.transient:
            parent, _, name = path.rpartition(".")
            module.get_submodule(parent)._non_persistent_buffers_set.add(name)
        own = {id(inner) for leaf in self.modules.values() for inner in leaf.modules()}
        for inner in module.modules():
            if id(inner) not in own:
                inner.training = self.training
        return module

    @property
    def parameters(self) -> int:
        """Number of parameters, each counted once however often it is shared."""
        tensors = {id(p): p for module in self.modules.values() for p in module.parameters()}
        tensors |= {id(t): t for t in self.tensors.values() if isinstance(t, nn.Parameter)}
        return sum(tensor.numel() for tensor in tensors.values())

    def without_values(self) -> Program:
        """The same program with its parameters and buffers on the meta device; what is shared stays shared."""
        twins: dict[int, Any] = {}

        def tensor_twin(tensor: Tensor) -> Tensor:
            if id(tensor) not in twins:
                twin = torch.empty_like(tensor, device="meta", requires_grad=False)
                is_parameter = isinstance(tensor, nn.Parameter)
                twins[id(tensor)] = nn.Parameter(twin, tensor.requires_grad) if is_parameter else twin
            return twins[id(tensor)]  # type: ignore[no-any-return]

        for module in (*self.modules.values(), *self.ideals.values()):
            if id(module) not in twins:
                twins[id(module)] = meta_twin(module, tensor_twin)
        return replace(
            self,
            modules={path: twins[id(module)] for path, module in self.modules.items()},
            tensors={path: tensor_twin(tensor) for path, tensor in self.tensors.items()},
            ideals={path: twins[id(module)] for path, module in self.ideals.items()},
        )

    def aliases(self, names: Collection[str]) -> set[str]:
        """All names of the modules and tensors that these are names of."""
        held: dict[str, nn.Module | Tensor] = {**self.modules, **self.tensors}
        same = {id(held[name]) for name in names if name in held}
        return {*names, *(name for name, value in held.items() if id(value) in same)}

    def state(self) -> dict[str, Tensor]:
        """What the model's state_dict holds, by the same keys, without building the module."""
        state = {path: tensor for path, tensor in self.tensors.items() if path not in self.transient}
        for path, module in self.modules.items():
            held = module.state_dict(keep_vars=True).items()
            state |= {f"{path}.{key}": value for key, value in held if isinstance(value, Tensor)}  # no extra state
        return state

    @property
    def device(self) -> torch.device:
        """The device of the weights (cpu for a model without any)."""
        for module in self.modules.values():
            for parameter in module.parameters():
                return parameter.device
        return next((t.device for t in self.tensors.values()), torch.device("cpu"))


def attach(root: nn.Module, path: str, value: Any) -> None:
    """Put a module, parameter or buffer that the graph never uses where its state_dict key says."""
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    if isinstance(value, nn.Module):
        root.add_module(name, value)
    elif isinstance(value, nn.Parameter):
        root.register_parameter(name, value)
    else:
        root.register_buffer(name, value)
