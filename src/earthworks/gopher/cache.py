"""Key-value cache of the tokens a model has read, so that the next token costs only one row of attention."""

import torch
from torch import Tensor

from earthworks.gopher.attention.relative import position_table
from earthworks.gopher.config import GopherConfig


class Cache:
    """Keys, values and projected position tables of every layer: `cache = Cache(config)`, then `model(tokens, cache)`.

    `key_mask` (batch, time) bool marks the real tokens of a left-padded first call; everything read later is real.
    The position tables r = W_R S(distance) depend on the weights alone; they are here rather than in the model, so that
    a table cannot outlive the weights it was made from. Memory: 2 L b t a for keys and values, L t a for the tables.
    """

    def __init__(self, config: GopherConfig, key_mask: Tensor | None = None):
        self.config = config
        self.length = 0
        self.key_mask = key_mask
        self.layers = [LayerCache(self) for _ in range(config.num_layers)]

    def layer(self, index: int) -> "LayerCache":
        return self.layers[index]

    def advance(self, time: int) -> None:
        """Called by the model once all layers have taken in `time` new tokens."""
        self.length += time

    def take(self, rows: Tensor, room: int) -> "Cache":
        """A separate cache with the contents of `rows` (n,) of this one, repeats allowed, and room for `room` more
        tokens before it must grow. The position tables are shared."""
        mask = self.mask(self.length)
        taken = Cache(self.config, None if mask is None else mask[rows])
        taken.length = self.length
        for own, theirs in zip(taken.layers, self.layers):
            own.copy(theirs, rows, self.length, self.length + room)
        return taken

    def mask(self, length: int) -> Tensor | None:
        """Which of the first `length` slots are real, (batch, length), or None when all are."""
        if self.key_mask is None:
            return None
        return torch.nn.functional.pad(self.key_mask, (0, length - self.key_mask.shape[1]), value=True)

    def places(self, tokens: Tensor) -> Tensor:
        """Absolute position of each new token in its own row, padding not counted, (batch, time)."""
        total = self.length + tokens.shape[1]
        mask = self.mask(total)
        if mask is None:
            return torch.arange(self.length, total, device=tokens.device)
        return (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]


class LayerCache:
    """One layer's part, (batch, heads, slots, d_head); slots double when they run out, so appending is O(1) amortised."""

    def __init__(self, cache: Cache):
        self.cache = cache
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.table: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append the keys and values of the new tokens; returns all of them and their mask."""
        start = self.cache.length
        end = start + keys.shape[2]
        self.keys = self.grown(self.keys, keys, end)
        self.values = self.grown(self.values, values, end)
        self.keys[:, :, start:end] = keys
        self.values[:, :, start:end] = values
        return self.keys[:, :, :end], self.values[:, :, :end], self.cache.mask(end)

    def grown(self, store: Tensor | None, new: Tensor, end: int) -> Tensor:
        if store is not None and store.shape[2] >= end:
            return store
        batch, heads, _, width = new.shape
        larger = new.new_empty(batch, heads, max(64, 1 << (end - 1).bit_length()), width)
        if store is not None:
            larger[:, :, : store.shape[2]] = store
        return larger

    def copy(self, other: "LayerCache", rows: Tensor, length: int, slots: int) -> None:
        """Copy the first `length` slots of `rows` of another layer cache, with room for `slots` in all."""
        self.keys, self.values = (selected(store, rows, length, slots) for store in (other.keys, other.values))
        self.table = other.table

    def position_table(self, w_r: Tensor, max_distance: int | None) -> Tensor:
        """r for all distances between this layer's slots, (heads, distances, d_head)."""
        assert self.keys is not None, "keys are appended before the table is asked for"
        slots = self.keys.shape[2]
        if self.table is None or self.table.shape[1] < slots:
            self.table = position_table(w_r, slots, max_distance).to(self.keys.dtype)
        return self.table


def selected(store: Tensor | None, rows: Tensor, length: int, slots: int) -> Tensor:
    """`rows` of keys or values, the first `length` slots of each, in a tensor of `slots`."""
    assert store is not None, "a cache is taken from after it has read something"
    fresh = store.new_empty(len(rows), store.shape[1], slots, store.shape[3])
    fresh[:, :, :length] = store[rows, :, :length]
    return fresh
