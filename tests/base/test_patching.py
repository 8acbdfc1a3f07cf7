"""Names that have other values for a while."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import pytest

from mofa_compiler.base.patching import patched_names


class Parent:
    inherited = 1


class Child(Parent):
    own = 2


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_everything_is_put_back(error: type[BaseException] | None) -> None:
    module, space = types.ModuleType("module"), {"a": 1}
    module.value = 3  # type: ignore[attr-defined]
    homes = (module, Child, space)
    before = [dict(home) if home is space else dict(vars(home)) for home in homes]
    patches = [
        *((Child, "inherited", 10), (Child, "own", 20), (module, "value", 30)),
        *((space, "a", 40), (space, "b", 50), (space, "a", 60)),
    ]
    try:
        with patched_names(patches):
            assert (Child.inherited, Child.own, module.value, space) == (10, 20, 30, {"a": 60, "b": 50})
            if error:
                raise error
    except KeyboardInterrupt:
        assert error
    assert [dict(home) if home is space else dict(vars(home)) for home in homes] == before


def test_what_was_patched_is_put_back_where_the_rest_cannot_be_made() -> None:
    def patches() -> Iterator[tuple[Any, str, Any]]:
        yield Child, "own", 20
        assert Child.own == 20
        raise LookupError

    with pytest.raises(LookupError), patched_names(patches()):
        pytest.fail("not entered")
    assert Child.own == 2
