"""The sizes of the paper, and the count of parameters against models that are built (on a device without memory)."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earthworks.gopher import FAMILY, Gopher, GopherConfig
from earthworks.gopher.config import SIZES
from earthworks.runs import EarthworksError

# The count with one tied embedding and one W_R a layer, rounded, is the paper's name; and everything that is built.
COUNTS = {
    "44M": (43_646_976, 43_720_448),
    "117M": (116_588_544, 116_713_472),
    "417M": (417_202_176, 417_420_032),
    "1.4B": (1_374_158_848, 1_374_684_416),
    "7.1B": (7_110_393_856, 7_111_740_672),
    "280B": (279_697_162_240, 279_710_317_824),
}

# Hoffmann et al. 2022, Table A9: millions of parameters, d_model, key/value size, heads, layers.
CHINCHILLA = """
44 512 64 8 8 | 57 576 64 9 9 | 74 640 64 10 10 | 90 640 64 10 13 | 106 640 64 10 16 | 117 768 64 12 12
140 768 64 12 15 | 163 768 64 12 18 | 175 896 64 14 14 | 196 896 64 14 16 | 217 896 64 14 18 | 251 1024 64 16 16
278 1024 64 16 18 | 306 1024 64 16 20 | 425 1280 128 10 18 | 489 1280 128 10 21 | 509 1408 128 11 18
552 1280 128 10 24 | 587 1408 128 11 21 | 632 1536 128 12 19 | 664 1408 128 11 24 | 724 1536 128 12 22
816 1536 128 12 25 | 893 1792 128 14 20 | 1018 1792 128 14 23 | 1143 1792 128 14 26 | 1266 2048 128 16 22
1424 2176 128 17 22 | 1429 2048 128 16 25 | 1593 2048 128 16 28 | 1609 2176 128 17 25 | 1731 2304 128 18 24
1794 2176 128 17 28 | 2007 2304 128 18 28 | 2283 2304 128 18 32 | 2298 2560 128 20 26 | 2639 2560 128 20 30
2980 2560 128 20 34 | 3530 2688 128 22 36 | 3802 2816 128 22 36 | 4084 2944 128 22 36 | 4516 3072 128 24 36
6796 3584 128 28 40 | 9293 4096 128 32 42 | 11452 4352 128 32 47 | 12295 4608 128 36 44 | 12569 4608 128 32 47
13735 4864 128 32 47 | 14940 4992 128 32 49 | 16183 5120 128 40 47
"""

SMALL = {"num_layers": 2, "num_heads": 2, "d_head": 4, "d_model": 8, "vocabulary": 11, "context": 16}


def built(config: GopherConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Gopher(config).parameters())


@pytest.mark.parametrize("size", FAMILY)
def test_the_six_sizes_have_the_counts_that_give_them_their_names(size):
    config = GopherConfig.preset(size)
    assert (config.num_parameters(full=False), config.num_parameters()) == COUNTS[size]
    assert built(config) == COUNTS[size][1]
    unit, digits = (1e9, 1) if size.endswith("B") else (1e6, 0)
    assert round(COUNTS[size][0] / unit, 0 if size == "280B" else digits) == float(size[:-1])


@pytest.mark.parametrize("size", FAMILY)
def test_the_count_is_the_formula_that_was_identified_and_the_final_gain(size):
    layers, heads, d_head, d = SIZES[size]
    a, vocabulary = heads * d_head, 32_000
    full = layers * (5 * d * a + 8 * d * d + 8 * d + 2 * a) + vocabulary * d + vocabulary
    assert GopherConfig.preset(size).num_parameters() == full + d


def test_the_same_count_gives_all_fifty_sizes_of_the_same_laboratory():
    """Several have heads x key size other than the width, so 5 d a and 8 d^2 are told apart."""
    rows = [tuple(map(int, row.split())) for row in re.split(r"[|\n]", CHINCHILLA.strip())]
    assert len(rows) == 50
    assert sum(heads * d_head != d for _, d, d_head, heads, _ in rows) > 5
    for millions, d, d_head, heads, layers in rows:
        config = GopherConfig(num_layers=layers, num_heads=heads, d_head=d_head, d_model=d)
        assert round(config.num_parameters() / 1e6) == millions, (d, d_head, heads, layers)


shapes = st.fixed_dictionaries(
    {
        "num_layers": st.integers(1, 2),
        "num_heads": st.integers(1, 4),
        "d_head": st.integers(1, 6),
        "d_model": st.integers(1, 6).map(lambda half: 2 * half),
        "vocabulary": st.integers(1, 40),
        "context": st.integers(1, 20),
        "d_position": st.none() | st.integers(1, 6).map(lambda half: 2 * half),
        "max_distance": st.none() | st.integers(1, 30),
        "norm": st.sampled_from(["rms", "layer"]),
        "positions": st.sampled_from(["relative", "absolute", "none"]),
        "tied": st.booleans(),
    }
)


@given(shapes)
@settings(max_examples=40)
def test_the_count_is_what_is_built_for_every_shape(shape):
    config = GopherConfig(**shape)
    with torch.device("meta"):
        named = dict(Gopher(config).named_parameters())
    assert config.num_parameters() == sum(p.numel() for p in named.values())
    matrices = [p for name, p in named.items() if p.ndim == 2 and not name.endswith("_bias")]
    assert config.num_parameters(full=False) == sum(p.numel() for p in matrices)


def test_a_preset_is_its_row_with_any_field_replaced():
    config = GopherConfig.preset("44M", vocabulary=256, d_position=64, num_layers=3)
    assert config == GopherConfig(num_layers=3, num_heads=16, d_head=32, d_model=512, vocabulary=256, d_position=64)
    assert config.position_width == 64
    assert config.d_attention == 512
    assert config.d_feedforward == 2048
    assert config.with_(d_position=None).position_width == 512
    paper = GopherConfig.preset("280B")
    assert (paper.vocabulary, paper.context, paper.tied, paper.norm, paper.positions) == (
        32_000,
        2048,
        True,
        "rms",
        "relative",
    )


def test_a_configuration_survives_its_mapping():
    config = GopherConfig(**SMALL, d_position=6, max_distance=9, norm="layer", positions="absolute", tied=False)
    assert GopherConfig.from_dict(config.to_dict()) == config


def test_our_own_sizes_carry_no_number_and_the_paper_s_come_first():
    assert tuple(SIZES)[: len(FAMILY)] == FAMILY
    for name in set(SIZES) - set(FAMILY):
        assert not re.search(r"\d", name)
    for name in SIZES:
        _, heads, d_head, d = SIZES[name]
        assert heads * d_head == d


@pytest.mark.parametrize(
    ("field", "value"),
    [(name, value) for name in SMALL for value in (0, -1, 2.0, "8", None, True)]
    + [(name, value) for name in ("d_position", "max_distance") for value in (0, -2, 1.5, "x", False)]
    + [
        ("d_position", 7),
        ("norm", "batch"),
        ("norm", None),
        ("positions", "rotary"),
        ("positions", ""),
        ("norm_epsilon", 0.0),
        ("norm_epsilon", -1e-6),
        ("norm_epsilon", float("nan")),
        ("norm_epsilon", "1e-6"),
    ],
)
def test_an_error_names_the_field_and_shows_the_value(field, value):
    with pytest.raises(EarthworksError) as error:
        GopherConfig.from_dict({**SMALL, field: value})
    assert field in str(error.value)
    assert str(value) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_odd_width_needs_an_even_sinusoid_only_where_there_is_one():
    odd = {**SMALL, "d_model": 9}
    with pytest.raises(EarthworksError, match="d_position"):
        GopherConfig(**odd)
    assert GopherConfig(**odd, d_position=4).position_width == 4
    assert built(GopherConfig(**odd, positions="none")) == GopherConfig(**odd, positions="none").num_parameters()


def test_an_unknown_size_or_field_is_answered_with_those_that_exist():
    with pytest.raises(EarthworksError, match=r"44m.*44M, 117M"):
        GopherConfig.preset("44m")
    with pytest.raises(EarthworksError, match=r"num_layer'.*num_layers"):
        GopherConfig.preset("44M", num_layer=2)
