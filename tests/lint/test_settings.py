"""Numbers with units, and shapes."""

from __future__ import annotations

import pytest

from mofa_compiler.lint.settings import memory, number, shape


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (7, 7),
        (2e9, 2_000_000_000),
        ("850k", 850_000),
        ("1.2M", 1_200_000),
        ("2 G", 2_000_000_000),
        ("1T", 10**12),
        ("1234", 1234),
        ("1.2345k", 1234),
    ],
)
def test_number(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (4096, 4096),
        ("100", 100),
        ("100B", 100),
        ("512kB", 512_000),
        ("512KB", 512_000),
        ("512KiB", 524_288),
        ("20MB", 20_000_000),
        ("20MiB", 20_971_520),
        ("1.5 GiB", 1_610_612_736),
    ],
)
def test_memory(text, value):
    assert memory(text) == value


@pytest.mark.parametrize("value", ["2Q", "2m", "2MB", "-1", "1e3", "", "M", "1.M", "٣k", True, 1.5, None, [1]])
def test_what_is_no_number(value):
    with pytest.raises(ValueError, match=r"is not a number such as 2G"):
        number(value)


@pytest.mark.parametrize("value", ["20M", "20mb", "20MIB", "KiB", float("nan"), float("inf"), False])
def test_what_is_no_size(value):
    with pytest.raises(ValueError, match=r"is not a size in bytes such as 20MB or 20MiB"):
        memory(value)


@pytest.mark.parametrize("value", [0, -3, "0", "0.5", "0.0001k"])
def test_limits_that_nothing_keeps(value):
    with pytest.raises(ValueError, match="is less than 1"):
        number(value)


def test_shape():
    assert shape("1x3x256x256") == (1, 3, 256, 256)
    assert shape("7") == (7,)


@pytest.mark.parametrize("value", ["", "1x", "1x0x3", "1,3", "1x3X3", "-1x3", [1, 3], 3])
def test_what_is_no_shape(value):
    with pytest.raises(ValueError, match="is not a shape such as 1x3x256x256"):
        shape(value)
