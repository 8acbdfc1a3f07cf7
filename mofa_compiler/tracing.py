"""From an `nn.Module` to a `Program`: torch.fx tracing, then shapes by running the graph on meta tensors.

While a model is traced, torch.fx patches `nn.Module.__call__` and `__getattr__`, and this module patches
`torch.autograd.Function.apply`, so that a custom function stays one node with its backward; a lock keeps two traces
apart and everything is put back afterwards, also after an error.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.conv import _ConvNd
from torch.utils import _pytree as pytree

from .errors import CaptureError
from .layers import PartialConv2d
from .program import InputSpec, Program, evaluate

_TRACING = threading.Lock()
_DROPOUTS = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout}


def capture(model: nn.Module, example_inputs: Tensor | Sequence[Tensor] | None = None) -> Program:
    """Trace `model` into a `Program` that shares its weights.

    Args:
        model: any module that torch.fx can trace; it is not modified, and its mode (train or eval) is kept.
        example_inputs: one tensor or a tuple of them, on any device; only shapes and dtypes are read, and nothing
            but shapes is computed. The size is not baked in. Without it, (1, C, 256, 256) for the first convolution.

    Raises:
        CaptureError: the model cannot be traced, or does not take inputs of these shapes.
    """
    inputs = input_specs(model, example_inputs)
    tracer = _Tracer(model, inputs)
    with _TRACING, _patched_autograd(tracer):
        try:
            graph = tracer.trace(model)
        except Exception as error:
            raise CaptureError(
                f"cannot trace {type(model).__name__}{_where(tracer)}: {_one_line(error)}. Control flow on tensor "
                "values or sizes stops the tracer: move it out of forward, or capture the part without it"
            ) from error
        finally:
            constants = {k: model.__dict__.pop(k) for k in list(model.__dict__) if k.startswith("_tensor_constant")}
    modules, tensors, containers, transient = _split_state(model, graph)
    tensors |= constants
    transient |= constants.keys()  # written into the graph by tracing: no state_dict holds them
    _unbake_dropout(graph)
    program = Program(
        name=type(model).__name__,
        graph=graph,
        modules=modules,
        tensors=tensors,
        containers=containers,
        inputs=inputs,
        opaque=tracer.opaque,
        transient=frozenset(transient),
        training=model.training,
    )
    propagate(program)
    return program


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


class _Tracer(fx.Tracer):
    """fx tracing that binds the example inputs and turns what it cannot trace into the smallest opaque leaf."""

    def __init__(self, model: nn.Module, inputs: tuple[InputSpec, ...]):
        super().__init__()
        self.inputs = inputs
        self.opaque: dict[str, str] = {}
        tensors = [*model.named_buffers(), *model.named_parameters()]
        self.tensor_paths = {id(tensor): path for path, tensor in tensors}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, (_ConvNd, PartialConv2d))
        return own or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path = self.path_of_module(m)
        last = next(iter(reversed(self.graph.nodes)))
        stack = dict(self.module_stack)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:
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
        if path is None:
            return attr_val
        if path not in parameter_proxy_cache:
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
                    raise TypeError(
                        f"forward() needs an input {parameter.name!r}, but only {len(self.inputs)} were given"
                    )
        if len(self.inputs) > len(names):
            raise TypeError(f"{len(self.inputs)} inputs were given, but forward() takes {len(names)}")
        proxies = [self.create_proxy("placeholder", name, (), {}) for name in names[: len(self.inputs)]]
        return root_fn, [self.root, *proxies]


@contextmanager
def _patched_autograd(tracer: fx.Tracer) -> Iterator[None]:
    """Record `SomeFunction.apply(...)` on proxies as one call, so that its own backward survives."""
    original = torch.autograd.Function.__dict__["apply"]

    def apply(cls: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(leaf, fx.Proxy) for leaf in pytree.tree_leaves((args, kwargs))):
            return tracer.create_proxy("call_function", autograd_call(cls), args, kwargs)
        return original.__get__(None, cls)(*args, **kwargs)

    setattr(torch.autograd.Function, "apply", classmethod(apply))  # noqa: B010
    try:
        yield
    finally:
        setattr(torch.autograd.Function, "apply", original)  # noqa: B010


@functools.cache
def autograd_call(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """A plain function for `function.apply`, as a graph node needs one; `.autograd_function` leads back."""

    def call(*args: Any) -> Any:
        return function.apply(*args)  # type: ignore[no-untyped-call]

    call.__name__ = call.__qualname__ = f"apply_{function.__name__}"
    call.__module__ = function.__module__
    call.autograd_function = function  # type: ignore[attr-defined]
    return call


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
    return modules, tensors, containers, transient


def _ancestors(path: str, modules: dict[str, nn.Module]) -> list[str]:
    parts = path.split(".")
    return [p for p in (".".join(parts[:i]) for i in range(1, len(parts))) if p in modules]


def _unbake_dropout(graph: fx.Graph) -> None:
    """Let functional dropout follow the module's mode at run time instead of the mode that it was traced in."""
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _DROPOUTS or not node.args:
            continue
        given = "training" in node.kwargs or len(node.args) > 2
        if not given:
            continue
        with graph.inserting_before(node):
            mode = graph.get_attr("training")
        if "training" in node.kwargs:
            node.kwargs = {**node.kwargs, "training": mode}
        else:
            node.args = (*node.args[:2], mode, *node.args[3:])


def propagate(program: Program) -> None:
    """Write the value of every node, as meta tensors and plain Python values, into its `meta["val"]`.

    Raises:
        CaptureError: the model does not take inputs of these shapes.
    """
    specs = iter(program.inputs)
    fake: FakeTensorMode | None = None
    for node in program.graph.nodes:
        try:
            if node.op == "placeholder":
                spec = next(specs)
                node.meta["val"] = torch.empty(spec.shape, dtype=spec.dtype, device="meta")
            elif node.op != "output":
                node.meta["val"] = evaluate(node, program)
        except Exception as error:
            # Constants that live on a real device do not mix with meta tensors; fake tensors carry a device.
            fake = fake or FakeTensorMode(allow_non_fake_inputs=True)
            attempts: list[AbstractContextManager[Any]] = [fake]
            if node.target in program.opaque:
                attempts.append(nullcontext())
            for attempt in attempts:  # an opaque part may look at values: only then anything is computed
                try:
                    node.meta["val"] = _evaluate_in(attempt, node, program)
                    break
                except Exception:
                    continue
            else:
                shapes = ", ".join(str(spec) for spec in program.inputs)
                raise CaptureError(
                    f"{program.name} does not take an input of shape {shapes}: {_describe(node)} fails: "
                    f"{_one_line(error)}. Pass example_inputs (--input) of a shape that it accepts"
                ) from error


def _evaluate_in(mode: AbstractContextManager[Any], node: fx.Node, program: Program) -> Any:
    """The value of a node, computed under a mode on zeros of its arguments' shapes, as meta tensors."""

    def zeros(value: Any) -> Any:
        values = fx.map_arg(value, lambda n: n.meta["val"])
        return pytree.tree_map_only(Tensor, lambda t: torch.zeros(t.shape, dtype=t.dtype), values)

    with _quiet(), mode, torch.no_grad():
        args, kwargs = zeros(node.args), zeros(node.kwargs)
        if node.op == "call_module":
            value = program.modules[str(node.target)](*args, **kwargs)
        elif node.op == "call_function":
            value = cast(Callable[..., Any], node.target)(*args, **kwargs)
        else:
            value = getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return pytree.tree_map_only(Tensor, lambda t: torch.empty_like(t, device="meta"), value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging a failed fake call: our error says it in one line."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    was = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = was


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
