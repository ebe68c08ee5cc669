"""Matrices laid out to be read once per token, as float32, bfloat16 or int8, and their product with a few rows.

    y_o = s_o sum_i W_oi x_i, for every row x

For one row every weight is used once, so the time is that of reading. Fastest to read is a single sequential stream: panels
of WIDTH outputs, the inputs of a panel in sequence, (outputs / WIDTH, inputs, WIDTH). A panel is multiplied as a tile in
registers (tile.py), its numbers widened to float32 there; up to eight rows share one reading. Every product is a sum in the
order of the inputs, so a row's result does not depend on the other rows, nor on the thread.

In this layout 27 million weights took one Zen 4 core 2.0 ms for one row and 4.9 for eight (bf16), where rows of weights,
two outputs of four rows at once, took 4.1 and 11.5; several streams at once read half as fast as one.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earthworks.compilation import compiled
from earthworks.gopher.kernels.tile import ROWS, WIDTH, narrowed, place_in_panel, tile_of, up_to

LARGEST = 127  # of an int8 weight; -128 is left out, so that the range is symmetric
DTYPES = {"fp32": np.float32, "bf16": np.uint16, "int8": np.int8}
FEATURES = 64  # of a row that `pack` copies before the next row, so that its writes stay in the first cache

MOST = 8 if ROWS >= 8 else 4  # rows of the largest tile below: more would not fit into all processors' registers
tile_of_1, tile_of_2, tile_of_4, tile_of_most = tile_of(1), tile_of(2), tile_of(4, prefetched=True), tile_of(MOST, True)


class Stored(NamedTuple):
    """Matrices W = s q, stored consecutively."""

    panels: NDArray[Any]  # q, flat: (outputs / WIDTH rounded up, inputs, WIDTH) of each, zeros beyond its outputs
    scales: NDArray[np.float32]  # s, flat: (outputs) of each
    begins: NDArray[np.int64]  # (matrices, 2): where the panels and the scales of each start


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 q and scales s, one for each output (row): weight = s q, rounded to nearest, s = max |weight| / 127.

    weight (outputs, inputs) -> q of the same shape, s (outputs) float32. The error of a weight is at most s / 2.
    """
    scale = weight.abs().amax(1).float() / LARGEST
    return (weight / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round_().to(torch.int8), scale


def store(weights: list[Tensor], form: str, threads: int) -> Stored:
    """float32 matrices (outputs, inputs) in a form of DTYPES."""
    sizes = [(up_to(len(weight), WIDTH) * weight.shape[1], len(weight)) for weight in weights]
    begins = np.cumsum([(0, 0), *sizes], 0)
    stored = Stored(on_lines((begins[-1, 0],), DTYPES[form]), np.ones(begins[-1, 1], np.float32), begins[:-1])

    def fill(matrix: int) -> None:
        weight = weights[matrix].detach().contiguous()
        if form == "int8":
            weight, scale = quantise(weight)
            stored.scales[begins[matrix, 1] : begins[matrix + 1, 1]] = scale
        pack(weight.numpy(), stored.panels[begins[matrix, 0] : begins[matrix + 1, 0]])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(len(weights))))
    return stored


def on_lines(shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[Any]:
    """np.empty aligned to a cache line, as one array for all: from 4 MB on numpy asks for huge pages."""
    size, line = math.prod(shape), 64 // np.dtype(dtype).itemsize
    space = np.empty(size + line, dtype)
    begin = -space.ctypes.data % 64 // space.itemsize
    return space[begin : begin + size].reshape(shape)


@compiled
def pack(q, panels):
    outputs, inputs = q.shape
    if outputs % WIDTH:
        panels[outputs // WIDTH * WIDTH * inputs :] = 0
    for o in range(0, outputs, WIDTH):
        for begin in range(0, inputs, FEATURES):
            for j in range(min(WIDTH, outputs - o)):
                row = q[o + j, begin : begin + FEATURES]
                to = panels[o * inputs + begin * WIDTH + place_in_panel(panels, j) :]
                for i in range(len(row)):
                    to[i * WIDTH] = narrowed(row[i], panels)


@compiled
def product(stored, matrix, x, sums, y, first, last):
    """y[:, o] = scale_o sum_i q_oi x[:, i] for first <= o < last, `first` a multiple of WIDTH, of a matrix of `stored`.

    x (rows, inputs), y (rows, outputs); sums (MOST * WIDTH) is scratch.
    """
    rows, inputs = x.shape
    flat = x.reshape(rows * inputs)
    begin, scale = stored.begins[matrix, 0], stored.scales[stored.begins[matrix, 1] :]
    for o in range(first, last, WIDTH):
        row = 0
        while row < rows:
            left, given = rows - row, (flat, row * inputs, inputs, 1, stored.panels, begin + o * inputs, inputs, 0)
            if left >= MOST:
                many = MOST
                tile_of_most(sums, 0, WIDTH, *given)
            elif left >= 4:
                many = 4
                tile_of_4(sums, 0, WIDTH, *given)
            elif left >= 2:
                many = 2
                tile_of_2(sums, 0, WIDTH, *given)
            else:
                many = 1
                tile_of_1(sums, 0, WIDTH, *given)
            for i in range(many):
                for j in range(min(WIDTH, last - o)):
                    y[row + i, o + j] = sums[i * WIDTH + j] * scale[o + j]
            row += many


@compiled
def share(me, team, outputs):
    """The outputs computed by thread `me`: whole panels, so that results are the same for any team."""
    panels = up_to(outputs, WIDTH) // WIDTH
    return min(me * panels // team * WIDTH, outputs), min((me + 1) * panels // team * WIDTH, outputs)
