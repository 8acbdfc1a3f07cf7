"""From an `nn.Module` to a `Program`: torch.fx tracing with values, computed on meta tensors.

While a model is traced, torch.fx patches `nn.Module.__call__` and `__getattr__`, and `patches` a few names more. Calls
from other threads pass through, a lock keeps two traces apart, and all is put back afterwards, also after an error.
"""

from __future__ import annotations

import copy
import inspect
import keyword
import operator
import threading
import warnings
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError
from torch.nn.modules.conv import _ConvNd
from torch.utils import _pytree as pytree

from .errors import CaptureError
from .evaluation import evaluate_anyhow, wants_values
from .layers import PartialConv2d
from .modes import CaptureWarning, asks_for_mode, follow_mode
from .patches import patched
from .program import InputSpec, Program
from .proxies import ShapedProxy

_TRACING = threading.Lock()


def capture(model: nn.Module, example_inputs: Tensor | Sequence[Tensor] | None = None) -> Program:
    """Trace `model` into a `Program` that shares its weights.

    Args:
        model: any module that torch.fx can trace; it is not modified. It is traced in the mode that it is in; a
            `CaptureWarning` says where the other mode would do something else.
        example_inputs: one tensor or a tuple of them, on any device; only shapes and dtypes are read, and nothing
            but shapes is computed. The size is not baked in, but for decisions that forward makes on it, which raise at
            a size where they would come out otherwise. Parameters of forward beyond the example stay at their
            defaults. Without it, (1, C, 256, 256) for the first convolution.

    Raises:
        CaptureError: the model cannot be traced, or does not take inputs of these shapes.
    """
    inputs = input_specs(model, example_inputs)
    if model._forward_hooks or model._forward_pre_hooks:
        raise CaptureError(
            f"{type(model).__name__} itself has forward hooks, which tracing does not run: remove them, or capture "
            "torch.nn.Sequential(model)"
        )
    with _TRACING:
        graph, constants, opaque = _traced(model, inputs)
        modules, tensors, containers, transient = _split_state(model, graph)
        if asks_for_mode(model):
            _compare_modes(model, graph, inputs)
    tensors |= constants
    _drop_unread(graph)
    return Program(
        name=type(model).__name__,
        graph=graph,
        modules=modules,
        tensors=tensors,
        containers=containers,
        inputs=inputs,
        opaque=opaque,
        transient=frozenset(transient | constants.keys()),  # no state_dict holds what tracing wrote into the graph
        training=model.training,
    )


def _traced(model: nn.Module, inputs: tuple[InputSpec, ...]) -> tuple[fx.Graph, dict[str, Any], dict[str, str]]:
    """The graph, the constants that it refers to, and the opaque parts with their causes."""
    tracer = _Tracer(model, inputs)
    with patched(tracer, model):
        try:
            graph = tracer.trace(model)
        except CaptureError:
            raise
        except _UnfitError as error:
            shapes = ", ".join(str(spec) for spec in inputs)
            raise CaptureError(
                f"{type(model).__name__} does not take an input of shape {shapes}: {error}. Pass example_inputs "
                "(--input) of a shape and dtype that it accepts"
            ) from error
        except Exception as error:
            raise CaptureError(
                f"cannot trace {type(model).__name__}{_where(tracer)}: {_one_line(error)}. Control flow on the values "
                "of tensors stops the tracer: move it out of forward, or capture the part without it"
            ) from error
        finally:
            constants = {k: model.__dict__.pop(k) for k in list(model.__dict__) if k.startswith("_tensor_constant")}
    return graph, constants, tracer.opaque


def copied(model: nn.Module) -> nn.Module:
    """A deep copy; results of earlier calls that the model keeps as attributes lose their history, which has no copy.

    Deep supervision keeps such tensors, and so does the old `torch.nn.utils.weight_norm`, which makes them anew at each
    call.
    """
    kept = (leaf for module in model.modules() for leaf in pytree.tree_leaves(vars(module)) if isinstance(leaf, Tensor))
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in kept if not tensor.is_leaf}
    return copy.deepcopy(model, memo)


def _compare_modes(model: nn.Module, graph: fx.Graph, inputs: tuple[InputSpec, ...]) -> None:
    """Let what can follow the mode at run time do so, and warn about the rest."""
    mode = "train" if model.training else "eval"
    try:
        other = copied(model).train(not model.training)
        same = follow_mode(graph, _traced(other, inputs)[0], model.training)
    except (CaptureError, RuntimeError):
        same = False
    if not same:
        warnings.warn(
            f"{type(model).__name__} does not do the same in train and in eval mode; captured is what it does in "
            f"{mode} mode, and stays so: call .eval() or .train() before, for the mode that it will run in",
            CaptureWarning,
            stacklevel=3,
        )


def input_specs(model: nn.Module, example_inputs: Tensor | Sequence[Tensor] | None) -> tuple[InputSpec, ...]:
    """The specs of the example inputs, or one inferred from the first convolution.

    Raises:
        CaptureError: there is no convolution to infer from, or an example input is not a tensor.
    """
    if example_inputs is None:
        first = next((m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))), None)
        if first is None:
            raise CaptureError(
                f"{type(model).__name__} has no Conv2d to infer an input from: pass example_inputs, for instance "
                "torch.rand(1, 3, 256, 256)"
            )
        return (InputSpec((1, first.in_channels, 256, 256), first.weight.dtype),)
    given = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    for index, value in enumerate(given):
        if not isinstance(value, Tensor):
            raise CaptureError(f"example input {index} is a {type(value).__name__}, expected a tensor")
    return tuple(InputSpec(tuple(value.shape), value.dtype) for value in given)


def _autocast() -> tuple[bool, bool]:
    return torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")


class _UnfitError(Exception):
    """An operation cannot run on the shapes that reach it; the message names it."""


class _Tracer(fx.Tracer):
    """fx tracing with values: binds the example inputs, evaluates every node on meta tensors as it is made, and turns
    what it cannot trace into the smallest opaque leaf."""

    def __init__(self, model: nn.Module, inputs: tuple[InputSpec, ...]):
        super().__init__()
        self.inputs = inputs
        self.opaque: dict[str, str] = {}
        self.modules = dict(model.named_modules())
        held = [*model.named_buffers(), *model.named_parameters()]
        self.tensor_paths = {id(tensor): path for path, tensor in held}
        self.tensors: Mapping[str, Any] = ChainMap(dict(held), model.__dict__)  # constants are put on the model
        self.training = model.training
        self.evaluating = False
        self.autocast = _autocast()
        self.thread = threading.get_ident()

    def tensor(self, path: str) -> Any:
        """What a get_attr node reads."""
        return self.tensors[path] if path in self.tensors else operator.attrgetter(path)(self.root)

    @property
    def aside(self) -> bool:
        """Whether a patched call comes from evaluating a node, or from another thread, and is none of the trace's."""
        return self.evaluating or threading.get_ident() != self.thread

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, (_ConvNd, PartialConv2d))
        return own or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> ShapedProxy:
        return ShapedProxy(node, self)

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        if _autocast() != self.autocast:
            raise TraceError("forward switches autocast on or off, which a graph does not keep")
        node = super().create_node(kind, target, *args, **kwargs)
        if kind not in ("placeholder", "output"):
            self.evaluating = True
            try:
                node.meta["val"] = evaluate_anyhow(node, self, compute=target in self.opaque)
            except Exception as error:
                what = _describe(node)
                self.graph.erase_node(node)
                raise _UnfitError(f"{what} fails: {_one_line(error)}") from error
            finally:
                self.evaluating = False
        return node

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self.aside:
            return forward(*args, **kwargs)
        path = self.path_of_module(m)
        if not args and len(kwargs) == 1 and isinstance(m, (_ConvNd, PartialConv2d)):
            args, kwargs = tuple(kwargs.values()), {}  # conv(input=x): passes look for what a layer reads in its args
        last = next(iter(reversed(self.graph.nodes)))
        stack = dict(self.module_stack)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:
            if isinstance(error, _UnfitError) and not wants_values(error):
                raise
            for node in list(reversed(self.graph.nodes)):
                if node is last:
                    break
                self.graph.erase_node(node)
            self.module_stack.clear()
            self.module_stack.update(stack)
            self.opaque = {p: cause for p, cause in self.opaque.items() if not p.startswith(f"{path}.")}
            self.opaque[path] = _one_line(error)
            return self.create_proxy("call_module", path, args, kwargs)

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
        parameters = list(inspect.signature(root_fn).parameters.values())[1:]
        names: list[str] = []
        for parameter in parameters:
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                names += [f"{parameter.name}_{i}" for i in range(len(self.inputs) - len(names))]
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                names.append(parameter.name)
                if parameter.default is parameter.empty and len(names) > len(self.inputs):
                    raise CaptureError(
                        f"forward() of {type(self.root).__name__} needs an input {parameter.name!r}, but only "
                        f"{len(self.inputs)} were given: pass example_inputs (--input, once each) for all of them"
                    )
        if len(self.inputs) > len(names):
            raise CaptureError(
                f"{len(self.inputs)} inputs were given, but forward() of {type(self.root).__name__} takes {len(names)}"
            )
        proxies = [self.create_proxy("placeholder", name, (), {}) for name in names[: len(self.inputs)]]
        for proxy, spec in zip(proxies, self.inputs, strict=True):
            proxy.node.meta["val"] = torch.empty(spec.shape, dtype=spec.dtype, device="meta")
        return root_fn, [self.root, *proxies]


def _split_state(
    model: nn.Module, graph: fx.Graph
) -> tuple[dict[str, nn.Module], dict[str, Tensor], dict[str, type[nn.Module]], set[str]]:
    """Leaf modules, the tensors that containers hold, the containers' classes, and the non-persistent buffers.

    A module registered under two names appears under both, so that no state_dict key is lost.
    """
    called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    read_from = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    named = dict(model.named_modules(remove_duplicate=False))
    called_modules = {id(named[path]) for path in called}
    modules: dict[str, nn.Module] = {}
    tensors: dict[str, Tensor] = {}
    containers: dict[str, type[nn.Module]] = {}
    transient: set[str] = set()
    for path, module in named.items():
        _refuse_keyword(path)
        if any(path.startswith(f"{leaf}.") for leaf in _ancestors(path, modules)):
            continue
        unused = path and not module._modules and path not in read_from
        if unused or id(module) in called_modules:
            modules[path] = module
            continue
        containers[path] = type(module)
        prefix = f"{path}." if path else ""
        held = {**module._parameters, **module._buffers}
        tensors |= {prefix + name: tensor for name, tensor in held.items() if tensor is not None}
        transient |= {
            prefix + name for name in module._non_persistent_buffers_set if module._buffers.get(name) is not None
        }
    for node in graph.nodes:
        path, (owner, _, name) = str(node.target), str(node.target).rpartition(".")
        if node.op != "get_attr" or path in tensors or owner not in named or name in named[owner]._parameters:
            continue
        if owner in modules and name not in named[owner]._buffers:
            node.target = f"_{path.replace('.', '_')}"  # no module may gain a buffer by the name of its attribute
        if isinstance(value := getattr(named[owner], name, None), Tensor) and name not in named[owner]._buffers:
            tensors[str(node.target)] = value  # a plain attribute, neither parameter nor buffer
            transient.add(str(node.target))
    return modules, tensors, containers, transient


def _refuse_keyword(path: str) -> None:
    name = path.rpartition(".")[2]
    if keyword.iskeyword(name):
        raise CaptureError(f"module {path!r} is named by a Python keyword, which no source can say: rename {name!r}")


def _ancestors(path: str, modules: dict[str, nn.Module]) -> list[str]:
    parts = path.split(".")
    return [p for p in (".".join(parts[:i]) for i in range(1, len(parts))) if p in modules]


def _drop_unread(graph: fx.Graph) -> None:
    """Erase reads of parameters and attributes that came to nothing, such as that of `x.to(self.weight.dtype)`."""
    for node in reversed(graph.nodes):
        pure = node.op == "get_attr" or node.target is getattr
        if pure and not node.users:
            graph.erase_node(node)


def _describe(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    inside = f" in {stack[-1][0]!r}" if stack and stack[-1][0] else ""
    return (
        f"layer {node.target!r}"
        if node.op == "call_module"
        else f"{getattr(node.target, '__name__', node.target)}(){inside}"
    )


def _where(tracer: _Tracer) -> str:
    path = next(reversed([p for p, _ in tracer.module_stack.values()]), "")
    return f" (in {path!r})" if path else ""


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text[:300]}"
