"""The tracer: torch.fx's, with values, the example inputs bound, and the smallest opaque leaves."""

from __future__ import annotations

import dataclasses
import inspect
import operator
import threading
import types
from collections import ChainMap, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx import _symbolic_trace
from torch.fx.immutable_collections import immutable_dict
from torch.fx.proxy import TraceError
from torch.nn.modules.conv import _ConvNd

from ..base.errors import CaptureError, one_line, source_line
from ..base.torch_state import own_randomness
from ..graph.call_spec import InputSpec, map_tree, rebind, tensor_leaves
from ..graph.node_names import describe
from ..graph.plain_layers import HOOKS, computes_as_layer, replaced
from ..graph.shape_propagation import evaluate_anyhow, wants_values
from ..nn.partial_conv import FusedPConv2d, PartialConv2d
from .known import known_value
from .numbers import SizeArray
from .proxies import IN_PLACE, UNKNOWN, ShapedProxy, check_argument, check_length
from .randomness import makes_noise
from .selection import is_of_unknown_size

_FROM_HOOK = "forward uses a tensor that a hook has kept from another call"
_DICTS = (dict, OrderedDict, defaultdict, immutable_dict)


class UnfitError(Exception):
    """An operation cannot run on the shapes that reach it; the message names it."""


class Tracer(fx.Tracer):
    """fx tracing with values: binds the example inputs, evaluates every node on meta tensors as it is made, and turns
    what it cannot trace into the smallest opaque leaf.

    Attributes:
        opaque: causes, by path, of the modules that became leaves though they are no layers of torch's.
        current: the node that is being evaluated.
        gradients: whether eager mode records gradients, which tracing always does.
        asked_gradients: whether forward has asked for that.
    """

    def __init__(self, model: nn.Module, bound: inspect.BoundArguments, gradients: bool = True):
        super().__init__()
        self.bound = bound
        self.opaque: dict[str, str] = {}
        self.modules = dict(model.named_modules())
        held = [*model.named_buffers(), *model.named_parameters()]
        self.tensor_paths = {id(tensor): path for path, tensor in held}
        self.tensors: Mapping[str, Any] = ChainMap(dict(held), model.__dict__)  # constants are put on the model
        self.training = model.training
        self.device = next((tensor.device for _, tensor in reversed(held)), torch.device("cpu"))
        self.current: fx.Node | None = None
        self.without_gradient: set[fx.Node] = set()
        self.failures: list[Exception] = []
        self.of_unknown_size: set[fx.Node] = set()
        self.asked: list[tuple[fx.Node, types.FrameType, int]] = []
        self.layers = {id(module): _attributes(module) for module in self.modules.values()}
        self.autocast = _autocast()
        self.thread = threading.get_ident()
        self.gradients, self.asked_gradients = gradients, False

    def known(self, node: fx.Node) -> Any:
        """What a node returns whatever the input is; None where it may be something else."""
        outer, self.current = self.current, node
        try:
            return known_value(node, self)
        except Exception:  # it will say so itself, when it runs
            return None
        finally:
            self.current = outer

    def stands_for(self, proxy: ShapedProxy) -> Any:
        """What eager mode has in a proxy's place, tensors as meta tensors; `UNKNOWN` where that is not known."""
        node = proxy.node
        return self.tensor(str(node.target)) if node.op == "get_attr" else node.meta.get("val", UNKNOWN)

    def tensor(self, path: str) -> Any:
        """What a get_attr node reads."""
        return self.tensors[path] if path in self.tensors else operator.attrgetter(path)(self.root)

    @property
    def aside(self) -> bool:
        """Whether a patched call comes from evaluating a node, or from another thread, and is none of the trace's."""
        return self.current is not None or threading.get_ident() != self.thread

    def trace(self, root: nn.Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        graph = super().trace(root, concrete_args)
        self.asked.clear()
        self._check_failures(0)
        lost = next((s for node in graph.nodes for s in node.all_input_nodes if s._erased), None)
        if lost is not None:
            raise TraceError(
                f"a value of a part that could not be traced ({', '.join(self.opaque)}) is used outside of it"
            )
        _detach(graph, self.without_gradient)
        return graph

    def failure(self, message: str, kind: type[TraceError] = TraceError) -> TraceError:
        """An error to raise; kept, so that forward cannot swallow it and go another way than it would without us."""
        error = kind(message)
        self.failures.append(error)
        return error

    def _check_failures(self, known: int) -> None:
        """Raise where there are more failures than the `known` ones, which belong to a forward further out."""
        if len(self.failures) > known:
            error = self.failures[-1]
            raise TraceError(f"forward catches the error that stops the tracer ({one_line(error)})") from error

    def note_asked(self, caller: types.FrameType) -> None:
        """Remember the guard that was just made as one of the call that `caller` is at."""
        if self.asked and self.asked[-1][1:] != (caller, caller.f_lasti):
            self.asked.clear()
        self.asked.append((next(reversed(self.graph.nodes)), caller, caller.f_lasti))

    def forget_asked(self, caller: types.FrameType) -> None:
        """Drop the guards that the call which `caller` is at has made by asking sizes for their numbers."""
        while self.asked:
            guard, frame, position = self.asked.pop()
            if frame is not caller or position != caller.f_lasti or guard is not next(reversed(self.graph.nodes)):
                break
            self.graph.erase_node(guard)
        self.asked.clear()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = isinstance(m, (_ConvNd, nn.RNNBase, PartialConv2d, FusedPConv2d)) and computes_as_layer(m)
        known = ours or super().is_leaf_module(m, module_qualified_name)
        if any(getattr(m, hooks) for hooks in HOOKS):
            if not known:
                self.opaque[module_qualified_name] = "has hooks, which run at every call"
            return True
        return known and not replaced(m)  # what another forward than the class's computes is traced

    def proxy(self, node: fx.Node) -> ShapedProxy:
        return ShapedProxy(node, self)

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, Tensor) and not self.aside:
            if path := self.tensor_paths.get(id(a)):
                return self.create_node("get_attr", path, (), {})
            if isinstance(a, nn.Parameter):
                raise CaptureError(_made_anew("a parameter"), code="untraceable")
            if a.is_meta:
                raise TraceError(_FROM_HOOK)
            if a.grad_fn is not None:
                raise TraceError(
                    "forward computes with weights that it does not read as attributes (self.parameters())"
                )
        if isinstance(a, fx.Proxy) and a.tracer is not self:
            raise TraceError("forward uses a value that is cached outside of the model from another trace")
        if isinstance(a, np.generic):
            return a.item()  # a graph's code would not know numpy
        if isinstance(a, SizeArray):
            return self.create_arg(a.tolist())
        if isinstance(a, dict) and type(a) not in _DICTS and all(isinstance(key, str) for key in a):
            # Outputs of diffusers and transformers: both dataclasses and dicts.
            held = vars(a) if dataclasses.is_dataclass(a) else a
            return self.create_node("call_function", type(a), (), {k: self.create_arg(v) for k, v in held.items()})
        return super().create_arg(a)

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        if _autocast() != self.autocast:
            raise TraceError("forward switches autocast on or off, which a graph does not keep")
        node = super().create_node(kind, target, *args, **kwargs)
        if kind in ("placeholder", "output"):
            return node
        if not torch.is_grad_enabled():
            self._check_write(node)
            self.without_gradient.add(node)
        outer, self.current = self.current, node
        drawing = own_randomness() if makes_noise(node) else nullcontext()
        try:
            with drawing:
                node.meta["val"] = evaluate_anyhow(node, self, compute=target in self.opaque)
        except Exception as error:
            if (known := self.known(node)) is not None:  # `mean.item()` of a constant
                node.meta["val"] = known
                return node
            unfit = UnfitError(f"{describe(node)}{self._met(node)}: {one_line(error)}")
            self.graph.erase_node(node)
            self.failures.append(unfit)
            raise unfit from error
        finally:
            self.current = outer
        if is_of_unknown_size(node, self.of_unknown_size):
            self.of_unknown_size.add(node)
        return node

    def _met(self, node: fx.Node) -> str:
        """What an operation fails on: ` (Conv2d, weight 24x3x3x3) fails on 1x1x64x64`."""
        values = (argument.meta.get("val") for argument in node.all_input_nodes)
        shapes = ["x".join(map(str, value.shape)) or "a scalar" for value in values if isinstance(value, Tensor)]
        what = ""
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            weight = getattr(module, "weight", None)
            size = f", weight {'x'.join(map(str, weight.shape))}" if isinstance(weight, Tensor) else ""
            what = f" ({type(module).__name__}{size})"
        given = " and ".join(shapes[:3])
        return f"{what} fails{f' on {given}' if given else ''}"

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self.aside:
            return forward(*args, **kwargs)
        if self.submodule_paths is not None and m not in self.submodule_paths:
            if any(id(tensor) not in self.tensor_paths for tensor in (*m.parameters(), *m.buffers())):
                raise CaptureError(_made_anew(f"a {type(m).__name__}"), code="untraceable")
            return m.forward(*args, **kwargs)  # nn.Upsample(...)(x) or layers[1:](x)
        path = self.path_of_module(m)
        if not args and len(kwargs) == 1 and isinstance(m, (_ConvNd, PartialConv2d)):
            args, kwargs = tuple(kwargs.values()), {}  # conv(input=x): passes look for what a layer reads in its args
        last = next(iter(reversed(self.graph.nodes)))
        stack = dict(self.module_stack)
        self._check_attributes(m, path)
        known = len(self.failures)
        try:
            result = super().call_module(m, forward, args, kwargs)
            self._check_failures(known)
            if any(tensor.is_meta for tensor in tensor_leaves(result)):
                raise TraceError(_FROM_HOOK)
            return result
        except CaptureError:
            raise
        except Exception as error:
            if isinstance(error, UnfitError) and not wants_values(error):
                raise
            for node in list(reversed(self.graph.nodes)):
                if node is last:
                    break
                self.graph.erase_node(node)
            self.module_stack.clear()
            self.module_stack.update(stack)
            self.opaque = {p: cause for p, cause in self.opaque.items() if not p.startswith(f"{path}.")}
            self.opaque[path] = one_line(error) + source_line(error)
            del self.failures[known:]
            return self.create_proxy("call_module", path, args, kwargs)

    def _check_attributes(self, m: nn.Module, path: str) -> None:
        """A leaf runs as the user built it: what forward sets on it before a call would be lost."""
        if self.is_leaf_module(m, path) and (changed := _changed(self.layers[id(m)], _attributes(m))):
            raise TraceError(f"forward sets {changed!r} of {path!r} before it calls it, which a graph does not keep")

    def _check_write(self, node: fx.Node) -> None:
        if node.target in ("detach_", "requires_grad_"):
            return  # no values are written
        if not _keeps_history(node) or node.op == "get_attr" or not isinstance(node.args[0], fx.Node):
            return
        written = node.args[0]
        value = written.meta.get("val")
        if written not in self.without_gradient and isinstance(value, Tensor) and value.is_floating_point():
            raise TraceError("forward writes into a tensor under torch.no_grad(), which a graph does not keep")

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        # As fx does, but by a table instead of a walk over all parameters at every access.
        path = self.tensor_paths.get(id(attr_val)) if isinstance(attr_val, Tensor) else None
        if path is None or self.aside:
            return attr_val
        known = parameter_proxy_cache.get(path)
        if known is None or known.node._erased:  # an opaque part took its nodes with it
            parameter_proxy_cache[path] = self.create_proxy("get_attr", path, (), {})
        return parameter_proxy_cache[path]

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        bound = rebind(self.bound, self._placeholder)
        _symbolic_trace._is_fx_tracing_flag = False  # eager's answer to who asks; fx puts back what it was before
        # The model's own attribute, which may be another forward than its class's.
        return lambda root: root.forward(*bound.args, **bound.kwargs), [self.root]

    def _placeholder(self, name: str, tree: Any) -> Any:
        proxy = self.create_proxy("placeholder", name, (), {})
        proxy.node.meta["val"] = map_tree(tree, InputSpec, lambda s: torch.empty(s.shape, dtype=s.dtype, device="meta"))
        return self._unpacked(proxy, tree, name)

    def _unpacked(self, proxy: Any, tree: Any, name: str) -> Any:
        """An argument as forward sees it: tensors and numbers are proxies, the rest is what it was in the example."""
        if isinstance(tree, InputSpec) or (isinstance(tree, (int, float)) and not isinstance(tree, bool)):
            return proxy
        if isinstance(tree, dict):
            keys = self.create_node("call_function", list, (proxy.node,), {})
            self.create_node("call_function", check_argument, (keys, list(tree), f"the keys of {name}"), {})
            return {key: self._unpacked(proxy[key], value, f"{name}[{key!r}]") for key, value in tree.items()}
        if isinstance(tree, (list, tuple)):
            self.create_node("call_function", check_length, (proxy.node, len(tree)), {})
            items = [self._unpacked(proxy[index], item, f"{name}[{index}]") for index, item in enumerate(tree)]
            return items if isinstance(tree, list) else type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
        self.create_node("call_function", check_argument, (proxy.node, tree, name), {})
        return tree


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What a module is set to: its attributes, and the tensors that it holds."""
    return {**vars(module), **module._parameters, **module._buffers}


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first name under which there is another object, or another number or text, than before."""
    plain = (bool, int, float, str, tuple, type(None))
    for name in {**before, **now}:
        one, other = before.get(name), now.get(name)
        if one is not other and not (isinstance(other, plain) and one == other):
            return name
    return None


def _made_anew(what: str) -> str:
    return (
        f"forward uses {what} that is registered nowhere: made in forward, it is another one at every call; kept in a "
        "plain list or tuple, no checkpoint holds it. Register it in __init__ (nn.ModuleList, nn.ParameterList)"
    )


def _autocast() -> tuple[bool, bool]:
    return torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")


def _detach(graph: fx.Graph, without_gradient: set[fx.Node]) -> None:
    """Let what forward computes under `torch.no_grad()` have no gradient in the graph either."""
    inside: set[fx.Node] = set()
    for node in graph.nodes:
        piece = node.target is operator.getitem and not isinstance(node.args[0].meta["val"], Tensor)
        if node in without_gradient or (piece and node.args[0] in inside):
            inside.add(node)
    for node in inside:
        value = node.meta["val"]
        outside = [user for user in node.users if user not in inside]
        if not outside or not isinstance(value, Tensor) or not value.is_floating_point() or _keeps_history(node):
            continue
        with graph.inserting_after(node):
            detached = graph.call_method("detach", (node,))
        detached.meta = {"val": value, "nn_module_stack": node.meta.get("nn_module_stack")}
        for user in outside:
            user.replace_input_with(node, detached)


def _keeps_history(node: fx.Node) -> bool:
    """Whether a node, made without gradients, returns a tensor that has some: a parameter, or one written in place."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return node.op == "get_attr" or in_place or node.target in IN_PLACE
