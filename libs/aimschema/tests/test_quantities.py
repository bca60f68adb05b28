"""Quantities as Kubernetes reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimschema.quantities import GI, LARGEST, human, parse, with_headroom


@pytest.mark.parametrize(
    ("quantity", "size_bytes"),
    [
        ("0", 0),
        ("1", 1),
        (20, 20),
        ("+5", 5),
        ("-5", -5),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1M", 10**6),
        ("20Gi", 20 * GI),
        ("1.5Gi", GI + GI // 2),
        (".5Gi", GI // 2),
        ("1.", 1),
        ("1Ti", 1 << 40),
        ("1Pi", 1 << 50),
        ("1Ei", 1 << 60),
        ("1E", 10**18),
        ("1e3", 1000),
        ("1E3", 1000),
        ("12e-1", 2),
        ("100m", 1),
        ("1u", 1),
        ("1n", 1),
        ("1500m", 2),
        ("0e30", 0),
        ("9Ei", LARGEST),
        ("1e999999", LARGEST),
        ("-1e999", -LARGEST),
        ("1e-999999", 1),
    ],
)
def test_a_quantity_in_bytes(quantity: str | int, size_bytes: int) -> None:
    assert parse(quantity) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 Gi",
        "Gi",
        "1gi",
        "1K",
        "1GB",
        "1Gi ",
        "1e",
        "1e3Gi",
        "--1",
        "1.2.3",
        "nan",
        "inf",
        "١Gi",
        "1e99999999999999999999",
    ],
)
def test_anything_else_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a quantity|is out of range"):
        parse(text)


@given(st.integers(0, 1 << 20), st.sampled_from([("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40)]))
def test_binary_suffixes_shift(number: int, suffix: tuple[str, int]) -> None:
    name, bits = suffix
    assert parse(f"{number}{name}") == number << bits


@given(st.text(alphabet="0123456789.+-eEKMGTPkimun", max_size=12))
def test_any_text_is_a_number_within_bounds_or_a_value_error(text: str) -> None:
    try:
        size = parse(text)
    except ValueError:
        return
    assert -LARGEST <= size <= LARGEST


@given(st.integers(0, 1 << 50))
def test_a_volume_has_a_tenth_to_spare_rounded_up_to_a_gibibyte(
    size_bytes: int,
) -> None:
    volume = parse(with_headroom(size_bytes))
    assert volume % GI == 0
    assert volume >= GI
    assert volume * 10 >= size_bytes * 11
    assert volume == GI or (volume - GI) * 10 < size_bytes * 11


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1536, "1.5 kB"),
        (999_600, "1.0 MB"),
        (15_300_000_000, "15.3 GB"),
        (207e9, "207 GB"),
        (3e12, "3.0 TB"),
    ],
)
def test_sizes_for_people(size_bytes: float, text: str) -> None:
    assert human(size_bytes) == text
