"""Product of small matrices in a processor's registers, with arbitrary strides.

`tile` keeps ROWS x WIDTH sums in vector registers over the whole contraction; `multiply` covers a matrix with tiles. Its
left operand is read number by number at any strides, so that rows, columns and even diagonals are used in place; the right
one is stored in panels of WIDTH columns (`pack_rows`, `pack_columns`), read sequentially. On one Zen 4 core 32
multiply-adds take 0.55 to 0.6 ns: 107 to 115 GFLOP/s of the 118 or so that it has. `tile_of` makes tiles of fewer rows.
"""

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core.cgutils import create_struct_proxy, get_or_insert_function

from earthworks.compilation import compiled, inlined, widened


def float32_in_a_register() -> int:
    try:
        features = binding.get_host_cpu_features()
    except RuntimeError:  # LLVM does not know this processor
        features = {}
    return 16 if features.get("avx512f") else 8 if features.get("avx2") else 4


LANES = float32_in_a_register()
ROWS = 6 if LANES == 8 else 12  # of a tile: with two vectors each they fill 16, or 32, registers
WIDTH = 2 * LANES  # columns of a tile
AHEAD = 64  # steps by which a panel is prefetched


def tile_of(rows: int, prefetched: bool = False) -> Any:
    """A tile of `rows` rows; `prefetched`: its panel comes from memory rather than from a cache."""

    @inlined
    def tile(typing_context, c, c_at, c_row, a, a_at, a_row, a_k, b, b_at, k, add):
        """Inside compiled functions: (rows, WIDTH) numbers of a product, C_ij = [C_ij if add] + sum_k A_ik B_kj.

        A_ik is a[a_at + i a_row + k a_k] and C_ij is c[c_at + i c_row + j], of flat float32 arrays; B_kj is b[b_at + WIDTH k
        + place_in_panel(b, j)] of float32, bfloat16 (uint16) or int8; k >= 1. All of C is held in registers: each step loads
        two vectors, and a number for each row, for two multiply-adds a row. Each C_ij is a sum in the order of k, the same
        whatever the other rows are. Bounds are not checked.
        """
        number, vector, index = ir.FloatType(), ir.VectorType(ir.FloatType(), LANES), ir.IntType(64)

        def generate(context, builder, signature, arguments):
            _, c_at, c_row, _, a_at, a_row, a_k, _, b_at, k, add = arguments
            c, a, b = (create_struct_proxy(signature.args[i])(context, builder, arguments[i]).data for i in (0, 3, 7))

            def vectors(at):
                places = [builder.gep(c, [builder.add(at, index(LANES * j))]) for j in range(2)]
                return [builder.bitcast(place, vector.as_pointer()) for place in places]

            before = builder.block
            load, loop, done = (builder.append_basic_block(name) for name in ("load", "loop", "done"))
            c_rows = [vectors(builder.add(c_at, builder.mul(c_row, index(i)))) for i in range(rows)]
            a_rows = [builder.mul(a_row, index(i)) for i in range(rows)]
            builder.cbranch(builder.icmp_signed("!=", add, index(0)), load, loop)

            builder.position_at_end(load)
            given = [[builder.load(place, align=4) for place in row] for row in c_rows]
            builder.branch(loop)

            builder.position_at_end(loop)
            sums = [[builder.phi(vector) for _ in row] for row in c_rows]
            step, a_now, b_now = (builder.phi(index) for _ in range(3))
            right = two_vectors(builder, b, signature.args[7].dtype, b_now)
            if prefetched:
                prefetch(builder, builder.gep(b, [builder.add(b_now, index(AHEAD * WIDTH))]))
            multiply_add = get_or_insert_function(
                builder.module, ir.FunctionType(vector, 3 * [vector]), f"llvm.fma.v{LANES}f32"
            )
            undefined = ir.Constant(vector, ir.Undefined)
            everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), LANES * [0])
            results = []
            for row, offset in zip(sums, a_rows):
                left = builder.load(builder.gep(a, [builder.add(a_now, offset)]))
                left = builder.insert_element(undefined, left, ir.IntType(32)(0))
                left = builder.shuffle_vector(left, undefined, everywhere)
                results.append([builder.call(multiply_add, [left, x, y]) for x, y in zip(right, row)])
            following = builder.add(step, index(1))
            for phi, start, value in (
                (step, index(0), following),
                (a_now, a_at, builder.add(a_now, a_k)),
                (b_now, b_at, builder.add(b_now, index(WIDTH))),
            ):
                phi.add_incoming(start, before)
                phi.add_incoming(start, load)
                phi.add_incoming(value, loop)
            zero = ir.Constant(vector, LANES * [number(0.0)])
            for phis, starts, values in zip(sums, given, results):
                for phi, start, value in zip(phis, starts, values):
                    phi.add_incoming(zero, before)
                    phi.add_incoming(start, load)
                    phi.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", following, k), loop, done)

            builder.position_at_end(done)
            for row, values in zip(c_rows, results):
                for place, value in zip(row, values):
                    builder.store(value, place, align=4)
            return context.get_dummy_value()

        if b.dtype in (types.float32, types.uint16, types.int8):
            return types.void(c, *2 * [types.int64], a, *3 * [types.int64], b, *3 * [types.int64]), generate

    return tile


def two_vectors(builder, b, dtype, at):
    """WIDTH numbers of `b` as two vectors of float32; of the two bfloat16 in a word, one is shifted up, the other masked."""
    vector, words = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(32), LANES)

    def load(kind, offset, align):
        place = builder.gep(b, [builder.add(at, ir.IntType(64)(offset))])
        return builder.load(builder.bitcast(place, kind.as_pointer()), align=align)

    if dtype == types.float32:
        return [load(vector, LANES * j, 4) for j in range(2)]
    if dtype == types.int8:
        return [builder.sitofp(load(ir.VectorType(ir.IntType(8), LANES), LANES * j, 1), vector) for j in range(2)]
    both = load(words, 0, 2)
    lower = builder.shl(both, ir.Constant(words, LANES * [16]))
    upper = builder.and_(both, ir.Constant(words, LANES * [0xFFFF0000]))
    return [builder.bitcast(half, vector) for half in (lower, upper)]


def prefetch(builder, place):
    """Prefetch the cache line of `place`, which may be anywhere, into the first cache."""
    byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    function = ir.FunctionType(ir.VoidType(), [byte, *3 * [flag]])
    function = get_or_insert_function(builder.module, function, "llvm.prefetch.p0i8")
    builder.call(function, [builder.bitcast(place, byte), flag(0), flag(3), flag(1)])  # to read, keep, data


tile = tile_of(ROWS)


@compiled
def place_in_panel(panels, j):
    """Position of column j among WIDTH numbers: j, but for bfloat16 in words of two, pairs j, LANES + j."""
    if panels.itemsize != 2:
        return j
    return 2 * j if j < LANES else 2 * (j - LANES) + 1


@compiled
def multiply(c, c_at, c_row, a, a_at, a_row, a_k, b, b_at, b_panel, rows, columns, k, add):
    """Product of any size: rows and columns are rounded up to whole tiles. B is stored in panels of WIDTH columns."""
    for j in range(0, columns, WIDTH):
        for i in range(0, rows, ROWS):
            tile(
                c, c_at + i * c_row + j, c_row, a, a_at + i * a_row, a_row, a_k, b, b_at + j // WIDTH * b_panel, k, add
            )


@compiled
def up_to(n, multiple):
    """n rounded up to a multiple."""
    return (n + multiple - 1) // multiple * multiple


@compiled
def pack_rows(x, at, step, n, d, panels, count):
    """n rows of d features of x, from `at` every `step` -> panels of WIDTH features, each (count, WIDTH)."""
    for f in range(0, d, WIDTH):
        width = min(WIDTH, d - f)
        for i in range(n):
            row = x[at + i * step + f :][:width]
            to = panels[f * count + i * WIDTH :][:width]
            for j in range(width):
                to[j] = widened(row[j])


@compiled
def pack_columns(x, at, step, n, d, panels, first, direction):
    """The same rows as columns first, first + direction, ... of panels of WIDTH columns, each (d, WIDTH)."""
    for i in range(n):
        row = x[at + i * step :][:d]
        column = first + direction * i
        to = column // WIDTH * WIDTH * d + column % WIDTH
        for f in range(d):
            panels[to + f * WIDTH] = widened(row[f])


@inlined
def maximum(typing_context, x, y):
    """Inside compiled functions: the greater of two float32 numbers, NaN if one is; loops over it vectorise."""

    def generate(context, builder, signature, arguments):
        number = ir.FloatType()
        function = get_or_insert_function(builder.module, ir.FunctionType(number, 2 * [number]), "llvm.maximum.f32")
        return builder.call(function, arguments)

    return types.float32(types.float32, types.float32), generate


@inlined
def narrowed(typing_context, number, like):
    """Inside compiled functions: a number as the array `like` holds it: float32, int8, or the nearest bfloat16 (uint16)."""
    if like.dtype != types.uint16:
        same = like.dtype
        return same(same, like), lambda context, builder, signature, arguments: arguments[0]

    def generate(context, builder, signature, arguments):
        word, half = ir.IntType(32), ir.IntType(16)
        bits = builder.bitcast(arguments[0], word)
        even = builder.and_(builder.lshr(bits, word(16)), word(1))  # halfway goes to the even one
        rounded = builder.lshr(builder.add(bits, builder.add(word(0x7FFF), even)), word(16))
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        return builder.trunc(builder.select(is_nan, word(0x7FC0), rounded), half)

    return types.uint16(types.float32, like), generate
