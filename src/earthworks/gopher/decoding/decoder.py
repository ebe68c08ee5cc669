"""CPU decoder: weights laid out to be read once per token, a preallocated key-value cache, and a thread team."""

import threading
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from earthworks.gopher.attention.relative import position_table
from earthworks.gopher.cache import Cache
from earthworks.gopher.decoding.compiled_step import Memory, Weights, follow, lead, meet
from earthworks.gopher.decoding.stored_weights import MOST, on_lines, store
from earthworks.gopher.kernels.tile import WIDTH, up_to
from earthworks.gopher.model import Attention, Block, Gopher
from earthworks.runs import EarthworksError
from earthworks.runs.progress import said_when_slow
from earthworks.training.precision import choose_precision

Stored = Literal["auto", "fp32", "bf16", "int8"]

FIRST_SLOTS = 256  # initial slots of keys and values; doubled when they run out


def choose_stored(name: str, weight: Tensor) -> Literal["fp32", "bf16", "int8"]:
    """Storage format of the weights; `auto` as in training: bf16 where the processor multiplies bf16 matrices faster.

    Weights that are not float32 are left as they are by `auto` and `fp32`.
    """
    if name not in get_args(Stored):
        raise EarthworksError(f"precision is {name!r}; it must be one of {', '.join(get_args(Stored))}")
    plain = weight.dtype == torch.float32
    if (name == "bf16" and not plain) or (name == "int8" and not (plain and weight.device.type == "cpu")):
        where = " on the CPU" if name == "int8" else ""
        raise EarthworksError(
            f"precision {name} needs float32 weights{where}, but these are {weight.dtype} on {weight.device.type}: use auto"
        )
    if name == "int8":
        return "int8"
    return "bf16" if choose_precision(name if plain else "fp32", weight.device) == "bf16" else "fp32"


class Decoder:
    """Steps of one token for every row, on the CPU, continuing from `cache`.

    `with Decoder(model, "bf16", cache, rows, most) as decoder: logits = decoder.step(tokens)`, tokens (rows) int64 ->
    logits (rows, vocabulary) float32, overwritten by the next step. The rows grow to at most `most` tokens. Weights are
    copied at construction, so a decoder is made for each answer.
    """

    def __init__(self, model: Gopher, stored: Literal["fp32", "bf16", "int8"], cache: Cache, rows: int, most: int):
        self.model, self.most, self.length = model, most, cache.length
        self.team = torch.get_num_threads()
        config = model.config
        blocks: list[Any] = [block for block in model.blocks if isinstance(block, Block)]
        weights = [matrix.weight for block in blocks for matrix in matrices(block)]
        norms: list[Any] = [norm for block in blocks for norm in (block.attention_norm, block.feedforward_norm)]
        norms.append(model.final_norm)
        centred = isinstance(model.final_norm, nn.LayerNorm)
        a = config.d_attention
        self.weights = Weights(
            stored=store([*weights, model.output_weight], stored, self.team),
            logit_bias=array(model.logit_bias),
            gains=together([norm.weight if centred else norm.gain for norm in norms]),
            shifts=together([norm.bias if centred else torch.zeros(config.d_model) for norm in norms]),
            content_bias=together([bias(block.attention, "content_bias") for block in blocks]),
            position_bias=together([bias(block.attention, "position_bias") for block in blocks]),
            output_bias=together([block.attention.output.bias for block in blocks]),
            up_bias=together([block.feedforward.up.bias for block in blocks]),
            down_bias=together([block.feedforward.down.bias for block in blocks]),
            epsilon=np.float32(config.norm_epsilon),
            centred=centred,
            relative=config.positions == "relative",
        )
        slots = self.room(0)
        of_slots = (config.num_layers, rows, config.num_heads, slots // WIDTH, config.d_head, WIDTH)
        of_features = (config.num_layers, rows, config.num_heads, up_to(config.d_head, WIDTH) // WIDTH, slots, WIDTH)
        mask = cache.mask(self.length)
        floats = np.float32
        self.memory = Memory(
            keys=on_lines(of_slots),
            values=on_lines(of_features),
            table=self.table(slots),
            first=np.zeros(rows, np.int64) if mask is None else (~mask).sum(1).numpy(),
            length=np.zeros(1, np.int64),
            x=np.empty((rows, config.d_model), floats),
            normal=np.empty((self.team, rows, config.d_model), floats),
            query_key_value=np.empty((rows, 3 * a), floats),
            mixed=np.empty((rows, a), floats),
            inner=np.empty((rows, config.d_feedforward), floats),
            added=np.empty((rows, config.d_model), floats),
            sums=np.empty((self.team, MOST * WIDTH), floats),
            queries=np.empty((self.team, 2, config.d_head), floats),
            scores=np.empty((self.team, 2, slots), floats),
            logits=np.empty((rows, config.vocabulary), floats),
        )
        for layer, read in enumerate(cache.layers if self.length else []):
            assert read.keys is not None
            assert read.values is not None
            panels = in_panels(read.keys[:, :, : self.length], -2).mT  # (b, h, slots / WIDTH, k, WIDTH)
            self.memory.keys[layer, :, :, : panels.shape[2]] = array(panels)
            panels = in_panels(read.values[:, :, : self.length], -1).transpose(2, 3)
            self.memory.values[layer, :, :, :, : self.length] = array(panels)

    def room(self, slots: int) -> int:
        """Number of slots to allocate next, in whole panels."""
        return up_to(min(self.most, max(FIRST_SLOTS, 2 * self.length, 2 * slots)), WIDTH)

    def table(self, slots: int) -> Any:
        """r of every layer, the largest distance first, (layers, heads, slots / WIDTH, d_head, WIDTH)."""
        config = self.model.config
        if config.positions != "relative":
            return np.empty((config.num_layers, config.num_heads, 1, 1, 1), np.float32)
        attentions: list[Any] = [block.attention for block in self.model.blocks if isinstance(block, Block)]
        table = on_lines((config.num_layers, config.num_heads, slots // WIDTH, config.d_head, WIDTH))
        for layer, each in enumerate(attentions):
            table[layer] = array(in_panels(position_table(each.w_r, slots, config.max_distance).flip(1), -2).mT)
        return table

    def __enter__(self) -> "Decoder":
        self.counter = np.zeros(2, np.int64)
        with said_when_slow("compiling the step of one token for this processor (once; kept on disk)"):
            follow(0, 1, np.array([0, 1]), self.weights, self.memory)  # in this thread, where an error would be seen
        self.threads = [
            threading.Thread(
                target=follow, args=(each, self.team, self.counter, self.weights, self.memory), daemon=True
            )
            for each in range(1, self.team)
        ]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.threads:
            return
        self.counter[1] = 1
        meet(self.counter, self.team)
        for thread in self.threads:
            thread.join()

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """Read one more token for every row; returns the logits of the next."""
        self.length += 1
        if self.length > self.memory.values.shape[-2]:
            self.grow()
        m = self.memory
        m.length[0] = self.length
        places = torch.from_numpy(self.length - 1 - m.first)
        m.x[:] = array(self.model.embedded(tokens, places))
        lead(self.team, self.counter, self.weights, m)
        return torch.from_numpy(m.logits)

    def grow(self) -> None:
        """Double the slots; the threads, which hold the old ones, exit and new ones start."""
        self.__exit__()
        slots = self.room(self.memory.values.shape[-2])
        m, scores = self.memory, np.empty((self.team, 2, slots), np.float32)
        keys = longer(m.keys, 3, slots // m.keys.shape[-1])
        self.memory = m._replace(keys=keys, values=longer(m.values, 4, slots), table=self.table(slots), scores=scores)
        self.__enter__()


def matrices(block: Block) -> list[nn.Linear]:
    return [block.attention.query_key_value, block.attention.output, block.feedforward.up, block.feedforward.down]


def in_panels(x: Tensor, axis: int) -> Tensor:
    """Split `axis` into (panels, WIDTH), padded with zeros to a multiple of WIDTH."""
    x = x.movedim(axis, -1)
    panels = nn.functional.pad(x, (0, -x.shape[-1] % WIDTH)).unflatten(-1, (-1, WIDTH))
    return panels.movedim((-2, -1), (axis - 1, axis))


def longer(x: Any, axis: int, length: int) -> Any:
    """A copy with more room along an axis; the new part is uninitialised."""
    shape = list(x.shape)
    shape[axis] = length
    larger = on_lines(tuple(shape))
    larger[(slice(None),) * axis + (slice(x.shape[axis]),)] = x
    return larger


def bias(attention: Attention, name: str) -> Tensor:
    return getattr(attention, name) if attention.relative else torch.zeros(attention.num_heads, attention.d_head)


def array(tensor: Tensor) -> Any:
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def together(tensors: list[Tensor]) -> Any:
    return torch.stack([tensor.detach() for tensor in tensors]).numpy()
