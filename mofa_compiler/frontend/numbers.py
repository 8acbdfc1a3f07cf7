"""numpy's functions on sizes, recorded as what Python calls the same.

`np.ceil(h / 8)` becomes `float(math.ceil(h / 8))`, `np.prod(x.shape)` becomes `math.prod(x.shape)`, so that a size
stays a size, and source that knows nothing but torch and Python can say it. An array of sizes holds them one by one.
What has no such name is computed by numpy on the numbers of the example, which are then fixed by guards.
"""

from __future__ import annotations

import builtins
import math
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from torch import Tensor, fx

from ..base.torch_state import patched_names

Function = Callable[..., Any]


_OPERATORS: dict[Function, Function] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.divide: operator.truediv,
    np.floor_divide: operator.floordiv,
    np.remainder: operator.mod,
    np.power: operator.pow,
    np.negative: operator.neg,
    np.positive: operator.pos,
    np.equal: operator.eq,
    np.not_equal: operator.ne,
    np.less: operator.lt,
    np.less_equal: operator.le,
    np.greater: operator.gt,
    np.greater_equal: operator.ge,
    np.left_shift: operator.lshift,
    np.right_shift: operator.rshift,
    np.bitwise_and: operator.and_,
    np.bitwise_or: operator.or_,
    np.bitwise_xor: operator.xor,
}
"""What numbers do with numpy's numbers, and tensors do, too"""

_FUNCTIONS: dict[Function, Function] = {
    **_OPERATORS,
    np.absolute: abs,
    np.fabs: abs,
    np.maximum: max,
    np.minimum: min,
    np.fmax: max,
    np.fmin: min,
    np.ceil: math.ceil,
    np.floor: math.floor,
    np.trunc: math.trunc,
    np.rint: round,
    np.sqrt: math.sqrt,
    np.cbrt: math.cbrt,
    np.exp: math.exp,
    np.exp2: math.exp2,
    np.expm1: math.expm1,
    np.log: math.log,
    np.log2: math.log2,
    np.log10: math.log10,
    np.log1p: math.log1p,
    np.sin: math.sin,
    np.cos: math.cos,
    np.tan: math.tan,
    np.arcsin: math.asin,
    np.arccos: math.acos,
    np.arctan: math.atan,
    np.arctan2: math.atan2,
    np.tanh: math.tanh,
    np.hypot: math.hypot,
    np.gcd: math.gcd,
    np.lcm: math.lcm,
    np.degrees: math.degrees,
    np.radians: math.radians,
}

_REDUCTIONS: dict[Function, Function] = {
    np.prod: math.prod,
    np.sum: sum,
    np.max: max,
    np.min: min,
    np.amax: max,
    np.amin: min,
    np.multiply: math.prod,
    np.add: sum,
    np.maximum: max,
    np.minimum: min,
}
"""Functions, and ufuncs of which `reduce` is called, on a flat sequence of numbers"""

_MEAN, _ROUND = np.mean, np.round
"""As numpy passes them on, which while tracing are called by other names"""

_LARGEST = 64
"""Elements of an array whose sizes are recorded one by one"""


class SizeArray(np.ndarray[Any, Any]):
    """An array whose elements are sizes, proxies among them; numpy's functions of it are recorded by element."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Function, types: Any, args: Any, kwargs: Any) -> Any:
        return call_function(function, args, kwargs)

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        if (convert := _conversion(dtype)) is None:
            return fixed(self).astype(dtype, *args, **kwargs)
        return size_array([record(convert, each) for each in self.flat], self.shape)


SCALAR_METHODS = ("astype", "item", "tolist")
"""What code calls on numpy's numbers, as which it has the results of numpy's functions"""


def scalar_method(number: Any, name: str) -> Function:
    """A method of numpy's number that a proxy stands for."""

    def astype(dtype: Any) -> Any:
        convert = _conversion(dtype)
        return np.asarray(fixed(number)).astype(dtype)[()] if convert is None else record(convert, number)

    return astype if name == "astype" else lambda: number


def _conversion(dtype: Any) -> Function | None:
    """The conversion of Python's that gives what a type of numpy's holds; None where that is not all of a number."""
    if isinstance(dtype, type):
        if issubclass(dtype, (bool, np.bool_)):
            return None
        kinds = ((int, (int, np.int32, np.int64)), (float, float))
        return next((kind for kind, known in kinds if issubclass(dtype, known)), None)  # stand-ins for `int`, too
    return {"int": int, "int32": int, "int64": int, "float": float, "float64": float}.get(str(dtype))


def size_array(items: list[Any], shape: tuple[int, ...] | None = None) -> SizeArray:
    """An array of these numbers; whole ones become floats where others are floats, as in numpy's arrays."""
    if any(isinstance(_value(item), float) for item in items):
        items = [record(float, item) if isinstance(_value(item), int) else item for item in items]
    array = np.empty(len(items), dtype=object)
    for position, item in enumerate(items):
        array[position] = item
    return array.reshape(shape if shape is not None else (len(items),)).view(SizeArray)


def call_ufunc(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `ufunc` makes of sizes: recorded where Python can say it, else a constant, with guards."""
    if method == "__call__" and not kwargs:
        if any(isinstance(_value(each), Tensor) for each in inputs) and ufunc in _OPERATORS:
            return record(_OPERATORS[ufunc], *inputs)
        if ufunc in _FUNCTIONS or ufunc in (np.square, np.sign):
            if all(_is_number(each) for each in inputs):
                return _number(ufunc, inputs)
            arrays = [_boxed(each) for each in inputs]
            if all(array is not None and array.size <= _LARGEST for array in arrays):
                together = np.broadcast_arrays(*(array.view(np.ndarray) for array in arrays if array is not None))
                results = [_number(ufunc, items) for items in zip(*(each.flat for each in together), strict=True)]
                return size_array(results, together[0].shape)
    if method == "reduce" and ufunc in _REDUCTIONS and kwargs.get("axis", 0) in (None, 0):
        usual = {"axis": kwargs.get("axis"), "dtype": None, "out": None, "keepdims": False, "where": True}
        plain = all(key in usual and value is usual[key] for key, value in kwargs.items())
        if plain and len(inputs) == 1 and isinstance(inputs[0], SizeArray) and inputs[0].ndim == 1:
            return record(_REDUCTIONS[ufunc], list(inputs[0]))
    return getattr(ufunc, method)(*map(fixed, inputs), **{key: fixed(value) for key, value in kwargs.items()})


def call_function(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a function of numpy's makes of sizes, as `call_ufunc`."""
    given = {key: value for key, value in kwargs.items() if value is not None}
    numbers = args and _is_number(args[0])
    if function in _REDUCTIONS and len(args) == 1 and not given and (found := _sequence(args[0])) is not None:
        return record(_REDUCTIONS[function], found)
    if function is _MEAN and len(args) == 1 and not given and (found := _sequence(args[0])) is not None:
        return record(operator.truediv, record(sum, found), len(_value(found)))
    if function is _ROUND and numbers:
        return _rounded(*args, **given)
    if function is np.fix and numbers and not given:
        return _number(np.trunc, args)
    if function is np.clip and len(args) == 3 and not given and all(map(_is_number, args)):
        return _number(np.minimum, (_number(np.maximum, args[:2]), args[2]))
    if function is _ROUND and isinstance(args[0], SizeArray):
        return size_array([_rounded(each, *args[1:], **given) for each in args[0].flat], args[0].shape)
    return function(*fixed(args), **fixed(kwargs))


def _rounded(number: Any, decimals: int = 0) -> Any:
    """As numpy rounds: to even, and to decimals by scaling."""
    if isinstance(_value(number), int):
        return number
    if not decimals:
        return _number(np.rint, (number,))
    scale = 10.0**decimals
    return record(operator.truediv, _number(np.rint, (record(operator.mul, number, scale),)), scale)


def _number(ufunc: np.ufunc, numbers: tuple[Any, ...]) -> Any:
    """One number from numbers, of numpy's type: `np.ceil` of a float is a float."""
    if ufunc is np.square:
        return record(operator.mul, *numbers, *numbers)
    if ufunc is np.sign:
        result = record(operator.sub, record(operator.gt, *numbers, 0), record(operator.lt, *numbers, 0))
    else:
        result = record(_FUNCTIONS[ufunc], *numbers)
    is_float = isinstance(ufunc(*map(_value, numbers)), np.floating)
    return record(float, result) if is_float and isinstance(_value(result), int) else result


def record(function: Function, *args: Any) -> Any:
    """A call as a node where a proxy is among its arguments, or in a list among them; else its result."""
    args = tuple(each.item() if isinstance(each, np.generic) else each for each in args)
    flat = [item for each in args for item in (each if isinstance(each, list) else [each])]
    proxy = next((each for each in flat if isinstance(each, fx.Proxy)), None)
    return function(*args) if proxy is None else proxy.tracer.create_proxy("call_function", function, args, {})


def fixed(value: Any) -> Any:
    """A value with the example's numbers in the place of proxies, and a guard for each."""
    if isinstance(value, fx.Proxy):
        return value.fixed()
    if isinstance(value, SizeArray):
        return np.array([fixed(each) for each in value.flat]).reshape(value.shape)
    if isinstance(value, dict):
        return {key: fixed(item) for key, item in value.items()}
    return type(value)(map(fixed, value)) if type(value) in (list, tuple) else value


def _value(item: Any) -> Any:
    return item.value if isinstance(item, fx.Proxy) else item


def _is_number(item: Any) -> bool:
    """Whether an item is a number that Python's own stand for exactly."""
    return isinstance(_value(item), (int, float, np.integer))


def _boxed(item: Any) -> np.ndarray[Any, Any] | None:
    """An item as an array of objects, None where it is not of numbers."""
    if not isinstance(item, np.ndarray):
        found = [item] if _is_number(item) else _sequence(item)
        if found is None:
            return None
        array = size_array(list(found))
        return array.reshape(()) if _is_number(item) else array
    exact = item.dtype in (np.int64, np.float64, np.object_)
    return item.astype(object) if exact and not isinstance(item, SizeArray) else item if exact else None


def _sequence(item: Any) -> Any:
    """A flat sequence of numbers, as code says it: a proxy of one, or a list; None for anything else."""
    if isinstance(item, SizeArray):
        return list(item) if item.ndim == 1 else None
    value = _value(item)
    if not isinstance(value, (list, tuple)) or not value or not all(map(_is_number, value)):
        return None
    return item if isinstance(item, fx.Proxy) else list(item)


def _has_sizes(item: Any) -> bool:
    return isinstance(item, fx.Proxy) or (type(item) in (list, tuple) and any(isinstance(i, fx.Proxy) for i in item))


_MATH: dict[str, Any] = {name: value for name, value in vars(math).items() if callable(value) and name[0] != "_"}
_MACHINERY = {"torch", "numpy", "mofa_compiler"}

_OF_LISTS = ("prod", "sum", "max", "min", "amax", "amin", "mean")
"""Functions that numpy does not let a proxy in a list answer for"""


def _imported() -> Iterator[tuple[dict[str, Any], str, Function]]:
    """Where functions of `math` were imported by name: torch.fx sees to those that are called as `math.sqrt`."""
    for module in list(sys.modules.values()):
        package = str(getattr(module, "__name__", "")).partition(".")[0]
        if package in sys.stdlib_module_names or package in _MACHINERY:
            continue
        home: dict[str, Any] = getattr(module, "__dict__", {})
        for name, function in _MATH.items():
            if home.get(name) is function:
                yield home, name, _MATH[name]


def patched_numbers() -> AbstractContextManager[None]:
    """Record `np.array`, and functions of numpy's and Python's own that go through a list, where it holds sizes."""

    def array(make: Function) -> Function:
        def made(*args: Any, **kwargs: Any) -> Any:
            plain = len(args) == 1 and not kwargs.keys() - {"dtype"} and _has_sizes(args[0])
            if not plain or (found := _sequence(args[0])) is None:
                return make(*args, **kwargs)
            sizes = size_array(list(found))
            return sizes if kwargs.get("dtype") is None else sizes.astype(kwargs["dtype"])

        return made

    def of_list(function: Function) -> Function:
        def called(*args: Any, **kwargs: Any) -> Any:
            if args and type(args[0]) in (list, tuple) and _has_sizes(args[0]) and _sequence(args[0]) is not None:
                args = (size_array(list(args[0])), *args[1:])
            return function(*args, **kwargs)

        return called

    def extreme(choose: Function) -> Function:
        def chosen(*args: Any, **kwargs: Any) -> Any:
            given = args[0] if len(args) == 1 else args
            if not kwargs and _has_sizes(given) and _sequence(given) is not None:
                return record(choose, *(args if len(args) > 1 else [_sequence(given)]))
            return choose(*args, **kwargs)

        return chosen

    def of_numbers(function: Function) -> Function:
        def called(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs) if kwargs or not any(map(_has_sizes, args)) else record(function, *args)

        return called

    patches: list[tuple[Any, str, Function]] = [
        *((np, name, array(getattr(np, name))) for name in ("array", "asarray")),
        *((np, name, of_list(getattr(np, name))) for name in _OF_LISTS),
        *((builtins, name, extreme(getattr(builtins, name))) for name in ("max", "min")),
        *((home, name, of_numbers(function)) for home, name, function in _imported()),
    ]
    return patched_names(patches)
