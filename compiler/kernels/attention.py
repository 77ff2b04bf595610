"""Template of attention: softmax(scale * query key^T + bias) value without the matrix of scores.

    for each unit (example, head of key, block of query rows):
      for each block of keys:
        pack key^T into panels [D][NR], value into panels [keys][NR]
        for each MR rows:
          scores [MR][keys]: an MR x NR tile of sums per panel, plus bias, hidden keys -inf
          softmax, the scores becoming weights where they lie, in the first-level cache
          MR x NR tiles of weights times values

The heads of query that share keys are rows of one block. Where the keys need several blocks,
each row keeps the largest score and the sum of weights so far, and what a block adds is
rescaled to the largest score of all (the online softmax); nothing is as large as rows x keys.
Few rows are not worth packing for: their scores are dot products with key as it lies.

Every row is computed in the same order whatever its unit, so that results do not depend on
how units are divided among threads.

Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al.,
"FlashAttention", 2022, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mgec.compiler.kernels.attention_plan import AttentionShape, AttentionTiles, HeadStrides
from mgec.compiler.kernels.attention_tile import Frame, Head, Tile
from mgec.compiler.kernels.emitter import Dim, Value
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.pack import transpose
from mgec.compiler.kernels.source import KernelSource, Units
from mgec.compiler.targets import Target
from mgec.dialects.mge.spec import FLOAT32, FLOAT64, DType


def attention_kernel(
    name: str,
    target: Target,
    query: Sequence[int],
    key: Sequence[int],
    value: Sequence[int],
    dtype: DType = FLOAT32,
    *,
    scale: float,
    causal: bool = False,
    bias: Sequence[int] | None = None,
    strides: Sequence[HeadStrides] | None = None,
    tiles: AttentionTiles | None = None,
) -> KernelSource:
    """Attention of every head; see `mgec.dialects.mge.attention.AttentionOp`.

    Args:
        name: symbol of the kernel.
        target: what to compile for.
        query: [N, L, H, D]
        key: [N, S, G, D]
        value: [N, S, G, E]
        dtype: float32 or float64.
        scale: factor of the products of queries and keys.
        causal: whether later keys are hidden.
        bias: shape of what is added to the scores, up to rank 4; None for nothing.
        strides: where query, key and value lie; by default dense. The result is dense.
        tiles: block sizes; by default from the target.

    Returns:
        A kernel whose buffers are query, key, value, bias if there is one, the result
        [N, L, H, E], and scratch.

    Raises:
        NotApplicable: for another dtype, and if there is nothing to compute.
    """
    if dtype not in (FLOAT32, FLOAT64):
        raise NotApplicable(f"attention of {dtype.name}")
    shape = AttentionShape.of(query, key, value)
    if 0 in (*query, *key, *value):
        raise NotApplicable("a size is 0")
    places = strides or [HeadStrides.dense(s) for s in (query, key, value)]
    fitted = (tiles or AttentionTiles.for_target(target, dtype)).fit(
        shape, target.lanes(dtype.itemsize)
    )
    frame = Frame(name, target, shape, places, scale, causal, bias, dtype, fitted)
    _units(frame)
    units = Units((((shape.batch, shape.groups), 1), ((shape.rows,), fitted.rows)))
    source = frame.k.finish(
        units, scratch_bytes=frame.scratch_bytes, template="attention", flops=shape.flops
    )
    return replace(source, tiles=fitted)


def _units(o: Frame) -> None:
    k, s = o.k, o.shape
    blocks = -(-s.rows // o.tiles.rows)

    def unit(index: Dim, packed: list[Value]) -> list[Value]:
        example, group, block = k.delinearize(index, [s.batch, s.groups, blocks])
        low = k.mul(block, o.tiles.rows)
        high = k.min(k.add(low, o.tiles.rows), s.rows)
        head = Head(o, example, group)
        if not o.one_block:
            _blocks_of_keys(head, low, high)
            return packed
        owner = k.div(index, blocks)
        if not o.dots:  # what an earlier unit of this call packed serves this one too
            with k.when(k.compare("ne", owner, packed[0].ref)):
                _pack(head, 0, s.keys)
        _tiles(head, low, high, 0)
        return [Value(k.index(owner), "index")]

    k.fold("%begin", "%end", 1, [Value(k.constant("-1", "index"), "index")], unit)


def _blocks_of_keys(head: Head, low: Dim, high: Dim) -> None:
    """All keys for the rows low..high, a block at a time."""
    o, k, b = head.o, head.o.k, head.o.b
    rows, keys, width = o.tiles.rows, o.tiles.keys, o.out_vectors * b.width
    for value, at, count in (
        (-float("inf"), o.top_at, rows), (0, o.sum_at, rows), (0, o.acc_at, rows * width),
    ):  # fmt: skip
        with k.loop(0, count, b.width) as i:
            o.store(o.constant(value), k.add(i, at))
    seen = o.limit(low, k.sub(high, 1))
    with k.loop(0, seen, keys) as start:
        if not o.dots:
            _pack(head, start, k.min(k.sub(seen, start), keys))
        _tiles(head, low, high, start)
    with k.loop(low, high) as row:
        kept = k.sub(row, low)
        factor = b.div(o.constant(1), o.load_splat(k.add(kept, o.sum_at)))
        source, out = k.add(k.mul(kept, width), o.acc_at), head.out_at(row)
        for v in range(o.out_vectors):
            value = b.mul(o.load(k.add(source, v * b.width)), factor)
            b.store(value, o.result, k.add(out, v * b.width), o.out_mask(v))


def _tiles(head: Head, low: Dim, high: Dim, start: Dim) -> None:
    """The rows low..high against the keys from `start` on."""
    o, k = head.o, head.o.k
    with k.loop(low, high, o.tiles.mr) as row:
        tile = Tile(head, row, k.sub(row, low), start)
        if o.causal and not o.one_block:
            with k.when(k.compare("slt", 0, tile.count)):
                tile.emit()
        else:
            tile.emit()


def _pack(head: Head, start: Dim, count: Dim) -> None:
    """Packs `count` keys and values from `start` on."""
    _pack_keys(head, start, count)
    _pack_values(head, start, count)


def _pack_keys(head: Head, start: Dim, count: Dim) -> None:
    """Panels [D][NR]; columns beyond the last key are copies of it."""
    o, k, b = head.o, head.o.k, head.o.b
    depth = o.shape.depth
    full = depth // b.width * b.width

    def block(columns: Sequence[Dim], at: Dim, d: Dim, rows: int) -> None:
        mask = b.mask(rows) if rows < b.width else None
        vectors = [b.load(o.key, k.add(column, d), mask) for column in columns]
        for i, vector in enumerate(transpose(b, vectors)[:rows]):
            o.store(vector, k.add(at, k.mul(k.add(d, i), o.nr)))

    with k.loop(0, k.mul(k.ceildiv(count, o.nr), o.nr), b.width) as j:
        columns = head.columns(k.add(start, j))
        at = k.add(k.mul(k.div(j, o.nr), o.nr * depth), k.rem(j, o.nr), o.k_at)
        if full:
            with k.loop(0, full, b.width) as d:
                block(columns, at, d, b.width)
        if full < depth:
            block(columns, at, full, depth - full)


def _pack_values(head: Head, start: Dim, count: Dim) -> None:
    """Panels [keys][NR], zeros in the columns beyond E; the last panel may be narrower."""
    o, k, b = head.o, head.o.k, head.o.b
    with k.loop(0, count) as t:
        source = k.add(head.value_at, k.mul(k.add(start, t), o.v_place.position))
        for v in range(o.out_vectors):
            at, step = o.panel_of(v)
            vector = b.load(o.value, k.add(source, v * b.width), o.out_mask(v))
            o.store(vector, k.add(k.mul(t, step), at))
