"""Sources of models that are built in every way.

Each line that makes layers says which, `#@ path path`; `.` is the definition of the model itself. The model is `Net`.
"""

from __future__ import annotations

import textwrap

_HEADER = """\
import copy, functools
from collections import OrderedDict
from dataclasses import dataclass, field
from torch import nn
"""

_CASES = {
    "attributes": """
        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(3, 4, 3)  #@ conv
                self.norm, self.act = nn.BatchNorm2d(4), nn.ReLU()  #@ norm act
    """,
    "comprehension and loop": """
        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(  #@ body
                    *[nn.Conv2d(4, 4, 3) for _ in range(2)],  #@ body.0 body.1
                    *(nn.Conv2d(4, 4, 1) for _ in range(1)),  #@ body.2
                )
                self.downs = nn.ModuleList()  #@ downs
                for width in (4, 8):
                    self.downs.append(nn.Conv2d(width, 2 * width, 2, 2))  #@ downs.0 downs.1
                self.heads = nn.ModuleDict({  #@ heads
                    name: nn.Linear(4, 4)  #@ heads.a heads.b
                    for name in "ab"
                })
    """,
    "helper function and lambda": """
        def conv3x3(width):
            return nn.Conv2d(width, width, 3)  #@ a b.0

        shuffle = lambda: nn.PixelShuffle(2)  #@ c

        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.a = conv3x3(4)
                self.b = nn.Sequential(conv3x3(8))  #@ b
                self.c = shuffle()
    """,
    "subclass of a layer": """
        class Same(nn.Conv2d):
            def __init__(self, width, **options):
                self.scale = 2
                super().__init__(
                    width, width, 3, padding=1, **options)

        class Scaled(Same):
            def __init__(self, width):
                options = dict(bias=False)
                super(Scaled, self).__init__(width, **options)

        class Net(nn.Module):  #@ .
            def __init__(self):
                nn.Module.__init__(self)
                self.a = Same(4)  #@ a
                self.b = Scaled(4)  #@ b
    """,
    "layers made before the container is": """
        class Pair(nn.Sequential):
            def __init__(self, width):
                conv = nn.Conv2d(width, width, 3)  #@ pair.0
                super().__init__(
                    conv,
                    nn.ReLU(),  #@ pair.1
                )

        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.pair = Pair(4)  #@ pair
    """,
    "factory from a configuration": """
        LAYERS = [
            {"name": "Conv2d", "in_channels": 3, "out_channels": 4, "kernel_size": 3},
            {"name": "ReLU"},
        ]

        def make(name, **options):
            return getattr(nn, name)(**options)  #@ body.0 body.1

        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(*map(lambda layer: make(**layer), LAYERS))  #@ body
    """,
    "partial": """
        conv = functools.partial(nn.Conv2d, kernel_size=3)

        class Net(nn.Module):  #@ .
            def __init__(self, make=functools.partial(conv, bias=False)):
                super().__init__()
                self.a = make(  #@ a
                    3, 4,
                )
    """,
    "add_module, and an ordered dictionary over several lines": """
        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.add_module("0", nn.Conv2d(3, 4, 3))  #@ 0
                self.body = nn.Sequential(OrderedDict([  #@ body
                    ("conv", nn.Conv2d(  #@ body.conv
                        3, 4, 3,
                    )),
                    ("act", nn.ReLU()),  #@ body.act
                ]))
                setattr(self, "last", nn.Identity())  #@ last
    """,
    "dataclass": """
        @dataclass(eq=False)
        class Block(nn.Module):
            width: int
            act: nn.Module = field(default_factory=nn.ReLU)

            def __post_init__(self):
                act = self.__dict__.pop("act", None)
                super().__init__()
                self.conv = nn.Conv2d(self.width, self.width, 3)  #@ block.conv

        @dataclass(eq=False)
        class Net(nn.Module):  #@ .
            width: int = 4

            def __post_init__(self):
                super().__init__()
                self.block = Block(self.width, act=None)  #@ block
    """,
    "decorators": """
        REGISTRY = {}

        def register(name):
            def add(cls):
                REGISTRY[name] = cls
                return cls
            return add

        def logged(init):
            @functools.wraps(init)
            def inner(*args, **options):
                return init(*args, **options)
            return inner

        def called(make):
            return make()  #@ act

        @register("block")
        class Block(nn.Module):
            @logged
            @logged
            def __init__(self, width):
                super().__init__()
                self.conv = nn.Conv2d(width, width, 3)  #@ block.conv

        @called
        class ACT(nn.Module):
            pass

        @register(
            "net",
        )
        class Net(  #@ .
            nn.Module,
        ):
            def __init__(self):
                super().__init__()
                self.block = REGISTRY["block"](4)  #@ block
                self.act = ACT
    """,
    "metaclass": """
        class Counting(type):
            made = 0

            def __call__(cls, *args, **options):
                Counting.made += 1
                return super().__call__(*args, **options)

        class Block(nn.Module, metaclass=Counting):
            def __new__(cls, width):
                return super().__new__(cls)

            def __init__(self, width):
                super().__init__()
                self.conv = nn.Conv2d(width, width, 3)  #@ block.conv

        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.block = Block(4)  #@ block
    """,
    "class method, later": """
        class Block(nn.Module):
            @classmethod
            def wide(cls):
                return cls(8)  #@ block

            def __init__(self, width):
                super().__init__()
                self.conv = nn.Conv2d(width, width, 3)  #@ block.conv

        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.build()

            def build(self):
                self.block = Block.wide()
                self.lazy = nn.LazyConv2d(4, 3)  #@ lazy
    """,
    "copies stand where their original was made": """
        from copy import deepcopy

        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(4, 4, 3)  #@ a.conv b.conv c.conv

        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                block = Block()  #@ a b c
                self.a = block
                self.b = deepcopy(block)
                self.c = copy.copy(self.b)
                act = nn.ReLU()  #@ d.0 d.1
                self.d = nn.ModuleList(deepcopy(act) for _ in range(2))  #@ d
    """,
    "shared": """
        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.a = nn.ReLU()  #@ a b.0 b.1
                self.b = nn.Sequential(self.a, self.a)  #@ b
    """,
    "recursive": """
        class Level(nn.Module):
            def __init__(self, depth):
                super().__init__()
                self.conv = nn.Conv2d(4, 4, 3)  #@ top.conv top.below.conv top.below.below.conv
                self.below = Level(depth - 1) if depth else None  #@ top.below top.below.below

        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.top = Level(2)  #@ top
    """,
    "torch changes the class of a layer": """
        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                conv = nn.Conv2d(3, 4, 3)  #@ conv
                norm = nn.utils.parametrizations.weight_norm
                self.conv = norm(  #@ conv.parametrizations conv.parametrizations.weight conv.parametrizations.weight.0
                    conv)
    """,
    "accents before the call": """
        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                größe = "ñ𝒜"; self.conv = nn.Conv2d(3, 4, 3)  #@ conv
    """,
    "a factory": """
        def Net(*, width=(lambda: 4)()) -> "nn.Module":  #@ .
            return nn.Sequential(
                nn.Conv2d(3, width, 3),  #@ 0
            )
    """,
    "a decorated factory": """
        def logged(make):
            @functools.wraps(make)
            def inner(**options):
                return make(**options)
            return inner

        @logged
        @logged
        def build():  #@ .
            return nn.Sequential(nn.ReLU())  #@ 0

        Net = functools.partial(build)
    """,
    "an instance": """
        class Inner(nn.Module):  #@ .
            def __init__(self, width):
                super().__init__()
                self.conv = nn.Conv2d(3, width, 3)  #@ conv

        Net = Inner(4)
    """,
    "an instance of a container": """
        Net = nn.Sequential(  #@ .
            nn.ReLU(),  #@ 0
        )
    """,
    "generated code points at what runs it": """
        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                exec("self.conv = nn.Conv2d(3, 4, 3)")  #@ conv
    """,
}

SOURCES = {name: _HEADER + textwrap.dedent(body) for name, body in _CASES.items()}


def marked_lines(source: str) -> dict[str, int]:
    """The line of each path that a source marks; the empty path is the model's own."""
    lines = enumerate(source.splitlines(), start=1)
    paths = {path: number for number, line in lines for path in line.partition("#@ ")[2].split()}
    return {"" if path == "." else path: number for path, number in paths.items()}
