"""What an attention kernel is made from: the sizes, where operands lie, block sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mgec.compiler.kernels.source import named
from mgec.compiler.targets import Target
from mgec.dialects.mge.spec import FLOAT32, DType, row_major_strides


@dataclass(frozen=True)
class AttentionShape:
    """The sizes of an attention.

    Attributes:
        batch: examples.
        queries: positions of query.
        keys: positions of key and value.
        heads: heads of query.
        groups: heads of key and value.
        depth: elements of a head of query and key.
        out_depth: elements of a head of value.
    """

    batch: int
    queries: int
    keys: int
    heads: int
    groups: int
    depth: int
    out_depth: int

    @staticmethod
    def of(query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> AttentionShape:
        """From the shapes [N, L, H, D], [N, S, G, D] and [N, S, G, E]."""
        return AttentionShape(
            query[0], query[1], key[1], query[2], key[2], query[3], value[3]
        )  # fmt: skip

    @property
    def share(self) -> int:
        """Heads of query per head of key."""
        return self.heads // self.groups

    @property
    def rows(self) -> int:
        """Rows of query, of all heads, that see one head of key."""
        return self.share * self.queries

    @property
    def flops(self) -> int:
        """Multiplications and additions of the two products."""
        per_score = 2 * (self.depth + self.out_depth)
        return self.batch * self.heads * self.queries * self.keys * per_score


@dataclass(frozen=True)
class HeadStrides:
    """Where the heads of an operand lie; elements of a head are neighbours.

    Attributes:
        example: elements from one example to the next.
        position: elements from one position to the next.
        head: elements from one head to the next.
        offset: elements in front of the first.
    """

    example: int
    position: int
    head: int
    offset: int = 0

    @staticmethod
    def dense(shape: Sequence[int]) -> HeadStrides:
        """Those of a dense tensor [N, positions, heads, depth]."""
        return HeadStrides(*row_major_strides(shape)[:3])


@dataclass(frozen=True)
class AttentionTiles:
    """Block sizes of an attention.

    Attributes:
        mr: rows of the register tiles.
        nv: vectors per row of the tiles of scores.
        value_vectors: vectors per row of the tiles of the result.
        keys: most keys per block.
        rows: most rows of query per unit.
        least_rows: units are not made smaller than this for the sake of their number.
        units: how many units are wanted, so that threads finish together.
        sums: how many independent sums hide the latency of a multiply-add.
        dot_rows: up to how many rows key and value are read as they lie.
    """

    mr: int
    nv: int
    value_vectors: int
    keys: int
    rows: int = 256
    least_rows: int = 32
    units: int = 8
    sums: int = 8
    dot_rows: int = 3

    @property
    def label(self) -> str:
        """See `Tiles`."""
        t = self
        return named(mr=t.mr, nv=t.nv, value_vectors=t.value_vectors, keys=t.keys, rows=t.rows)

    def alternatives(self, target: Target) -> list[AttentionTiles]:
        """Register tiles of other shapes, then smaller blocks; to be fitted again."""
        found: list[AttentionTiles] = []
        for nv in (1, 2, 3, 4):
            mr = min(_MOST_ROWS, (target.vector_registers - 1 - nv) // nv)
            found.append(replace(self, mr=mr, nv=nv, value_vectors=nv))
        for factor in (2, 4):
            found.append(replace(self, rows=-(-self.rows // factor)))
            found.append(replace(self, keys=-(-self.keys // factor)))
        return found

    @staticmethod
    def for_target(target: Target, dtype: DType = FLOAT32) -> AttentionTiles:
        """Tiles that fill the target's registers; the scores of one fill half of the L1 cache.

        12 x 2 and 6 x 4 were 3% slower than 8 x 2, blocks of 128 keys 3% slower than of 512
        and units of 64 rows 5% slower than of 256 (Zen 4, AVX-512, 128 to 2048 positions of 8
        to 12 heads of 64, 2026-11).
        """
        mr, nv = (8, 2) if target.vector_registers >= 32 else (4, 3 if target.has_fma else 2)
        step = nv * target.lanes(dtype.itemsize)
        keys = target.l1_bytes // 2 // (mr * dtype.itemsize)
        return AttentionTiles(mr=mr, nv=nv, value_vectors=nv, keys=keys // step * step)

    def fit(self, shape: AttentionShape, lanes: int) -> AttentionTiles:
        """These tiles, adapted to the sizes."""
        tiles = -(-shape.rows // self.mr)
        mr = -(-shape.rows // tiles)  # 12 rows are 2 x 6, not 8 + 4
        per_unit = max(1, self.rows // mr)
        others = shape.batch * shape.groups
        while others * -(-tiles // per_unit) < self.units and per_unit * mr >= 2 * self.least_rows:
            per_unit = -(-per_unit // 2)
        per_unit = min(per_unit, tiles)
        nv = 1 if shape.rows <= self.dot_rows else self.nv
        blocks = -(-shape.keys // self.keys)
        keys = -(-shape.keys // (blocks * nv * lanes)) * nv * lanes
        wide = max(self.value_vectors, -(-self.sums // mr))
        return replace(
            self, mr=mr, nv=nv, value_vectors=wide, keys=keys, rows=per_unit * mr
        )  # fmt: skip


_MOST_ROWS = 14
"""Rows of the register tiles to try: more make long code."""
