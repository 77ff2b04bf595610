"""Template of contractions: matmul, convolution and its gradients, from their index maps.

    for each unit (batch element, block of N, block of M):
      for each block of K:
        pack the panels of B [k][NR]              (unless B can be read, or came packed)
        pack the panels of A [k][MR]              (unless one stride walks through its k)
        for each panel, for each MR rows:
          an MR x NR tile of accumulators, K innermost, one fused multiply-add per element
          the epilogue on the accumulators, after the last block of K; store

N is the part of the result that is contiguous in memory; the operand that knows those loops
is B. Loops that would break that (the image of a batch in front of the channels) become
batch loops that only one operand knows. Every element of the result is summed over k in
order, so that results do not depend on how units are divided among threads.

Few rows are not worth packing B for: up to `direct_rows` it is read in place if its columns
are neighbours, and up to `dot_rows` if its k are, as dot products (whose sums are in another
order). Where the rows are counted at run time, the kernel has both forms.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from mgec.compiler.kernels.emitter import Buffer, Dim, KernelEmitter, Size, Value, VectorLanes
from mgec.compiler.kernels.epilogue import Epilogue, Finisher, extra_strides, out_strides
from mgec.compiler.kernels.multiply import Multiply, in_groups
from mgec.compiler.kernels.operand import (
    ONE,
    ZERO,
    NotApplicable,
    Operand,
    Product,
    Walk,
    merge,
    operand,
    product,
    unit_stride,
)
from mgec.compiler.kernels.pack import Packer, Panels, Place, transpose
from mgec.compiler.kernels.packing import Packing
from mgec.compiler.kernels.source import KernelSource, Units, named
from mgec.compiler.targets import Target
from mgec.dialects.mge.contraction import AxisMap, ContractionMaps, Loop
from mgec.dialects.mge.lane import Lane, lane_type
from mgec.dialects.mge.spec import FLOAT32, DType, is_float


@dataclass(frozen=True)
class ContractionTiles:
    """Block sizes of a contraction.

    Attributes:
        mr: rows of the register tile.
        nv: vectors per row of the register tile.
        kc: most k per block; the panels of one block stay in the second-level cache.
        nc: most panels per block of N.
        mc: most rows per block of M.
        pack_a: width of A's panels.
        direct_rows: up to how many rows B is read in place rather than packed.
        dot_rows: up to how many rows are dot products with the rows of a transposed B.
        block_bytes: about how much of A and of the result a block of rows touches, where each
            unit takes all panels; 100 KB leave most of the second-level cache to B.
        ahead: whether to prefetch the next panel while one is used.
        fitted: whether they are for one problem already, and taken as they are.
    """

    mr: int
    nv: int
    kc: int = 1024
    nc: int = 4
    mc: int = 256
    pack_a: int = 8
    direct_rows: int = 31
    dot_rows: int = 3
    block_bytes: int = 100 * 1024
    ahead: bool = False
    fitted: bool = False

    @property
    def label(self) -> str:
        """See `Tiles`."""
        t = self
        return named(mr=t.mr, nv=t.nv, mc=t.mc, nc=t.nc, kc=t.kc, ahead=t.ahead)

    def alternatives(self, target: Target) -> list[ContractionTiles]:
        """Other register tiles that the target holds, then other blocks."""
        usual = ContractionTiles.for_target(target).nv
        widest = _MOST_VECTORS if self.nv >= usual else self.nv  # the result may be narrow
        found: list[ContractionTiles] = []
        for nv in range(widest, 0, -1):
            most = min(_MOST_ROWS, (target.vector_registers - 1 - nv) // nv)
            for mr in (most, most // 2, most // 2 + 1):
                nc = max(1, self.nc * self.nv // nv)
                mc = -(-self.mc // mr) * mr
                if mr * nv >= _LEAST_SUMS:
                    found.append(replace(self, mr=mr, nv=nv, mc=mc, nc=nc))
        found += [replace(self, mc=self.mc * 2), replace(self, nc=self.nc * 2)]
        if self.mc >= 2 * self.mr:
            found.append(replace(self, mc=self.mc // 2 // self.mr * self.mr))
        if self.nc > 1:
            found.append(replace(self, nc=self.nc // 2))
        found.append(replace(self, ahead=not self.ahead))
        if self.kc > _SHORT_DEPTH:
            found.append(replace(self, kc=-(-self.kc // 2)))
        return [replace(tiles, fitted=True) for tiles in found]

    @staticmethod
    def for_target(target: Target) -> ContractionTiles:
        """Tiles that fill the target's registers.

        8 x 2 reaches 99% of peak with 32 registers (Zen 4, AVX-512) and 4 x 3 90% with 16
        (AVX2); wider tiles gained nothing and cost compile time (benchmarks/kernels.py).
        With 32 registers of 16 bytes 8 x 3 has the fewer loads per multiply-add, and does not
        spill (seen in the assembly for NEON, not timed).
        """
        if target.vector_registers >= 32 and target.vector_bytes < 32:
            return ContractionTiles(mr=8, nv=3, nc=10)
        if target.vector_registers >= 32:
            return ContractionTiles(mr=8, nv=2)
        if target.has_fma:
            return ContractionTiles(mr=4, nv=3, nc=6, pack_a=4)
        return ContractionTiles(mr=4, nv=2, nc=16, pack_a=4)

    def fit(
        self, m: Product, n: Product, batch: Product, lanes: int, packs_a: bool = False
    ) -> ContractionTiles:
        """These tiles, adapted to known sizes; wide blocks of N where each packs A anew."""
        tiles = self
        if m.is_static and m.known:
            rows = m.known
            mr = -(-rows // -(-rows // self.mr))  # 49 rows are 7 x 7, not 6 x 8 + 1
            nv = self.nv
            if mr <= 2 and self.mr >= 8:
                nv = 4 * self.nv // mr  # enough independent sums to hide the latency
            if n.is_static:
                nv = max(1, min(nv, -(-n.known // lanes)))
            blocks = -(-rows // self.mc)
            mc = -(-rows // blocks)
            tiles = replace(tiles, mr=mr, nv=nv, mc=-(-mc // mr) * mr)
            if n.is_static and batch.is_static:
                # Few big units leave threads idle: aim for eight.
                panels = -(-n.known // (nv * lanes))
                others = max(1, blocks * batch.known)
                wanted, most = (2, 2 * self.nc) if packs_a else (8, self.nc)
                nc = max(1, min(most, panels * others // wanted))
                tiles = replace(tiles, nc=nc)
        return tiles

    def fit_packed(
        self, m: int, n: int, depth: int, batch: int, lanes: int, itemsize: int, target: Target
    ) -> ContractionTiles:
        """These tiles for a B that came packed: nothing is packed twice if a unit is small.

        Many rows are cut into blocks that run through all panels, so that a row of the result
        is finished while it is in the cache. Few rows are one block, and the panels are shared
        out, so that each thread reads its own part of B.
        """
        tiles = self.fit(Product(m), Product(n), Product(batch), lanes)
        even = [r for r in (self.mr, self.mr - 1, self.mr - 2) if r > 0 and m % r == 0]
        mr = even[0] if even and m >= self.mr else tiles.mr
        panels = max(1, -(-n // (tiles.nv * lanes)))
        row_bytes = itemsize * (depth + 2 * n)
        mc = max(4 * mr, min(self.mc, self.block_bytes // row_bytes) // mr * mr)
        if m * batch >= _MANY_BLOCKS * mc:
            nc = panels
        else:
            nc = max(1, panels * batch // _PANEL_UNITS)
            mc = _even_rows(m, mr, -(-panels // nc) * batch)
        ahead = itemsize * depth * n * batch > target.l2_bytes // 2
        return replace(tiles, mr=mr, mc=mc, nc=nc, kc=max(1, depth), ahead=ahead)


_MOST_VECTORS, _MOST_ROWS, _LEAST_SUMS = 4, 14, 7
"""Register tiles to try: larger ones make much code, fewer sums wait for each other."""

_SHORT_DEPTH = 512
"""So few k are never worth several blocks."""

_MANY_BLOCKS = 8
"""From this many blocks of rows on they are units enough for several threads."""

_PANEL_UNITS = 16
"""Into about how many units the panels are shared out."""

_FEW_UNITS = 8
"""With fewer panels than this many units, the rows are cut too."""


def _even_rows(m: int, mr: int, others: int) -> int:
    """Rows per block such that there are units enough, and as many for each of two threads.

    Args:
        m: rows.
        mr: rows of the register tile.
        others: units that each block of rows makes.
    """
    fewest = -(-_FEW_UNITS // max(1, others))
    blocks = {max(1, -(-m // (mr * parts))) * mr: None for parts in range(fewest, fewest + 3)}

    def unevenness(mc: int) -> float:
        units = max(1, -(-m // mc) * others)
        return 2 * -(-units // 2) / units

    return min(blocks, key=unevenness)


@dataclass(frozen=True)
class _Plan:
    """A contraction in the template's terms."""

    a: str
    batch: tuple[Loop, ...]
    m: tuple[Loop, ...]
    n: tuple[Loop, ...]
    k: tuple[Loop, ...]


def _plan(
    maps: ContractionMaps, out: Mapping[str, Product], extras: Sequence[Mapping[str, Product]] = ()
) -> _Plan:
    """Chooses the roles of the operands and which loops are contiguous in the result.

    Args:
        maps: the contraction.
        out: stride of each loop in the result.
        extras: stride of each loop in the operands of the epilogue.

    Raises:
        NotApplicable: if no operand knows the result's contiguous loops.
    """

    def extent(loop: Loop) -> Product:
        return Product.of(loop.extent)

    sides = {"m": list(maps.of_kind("m")), "n": list(maps.of_kind("n"))}
    n_kind = "n"
    inner = {kind: _contiguous(loops, out, extras) for kind, loops in sides.items()}
    if not inner["n"] and inner["m"]:
        n_kind = "m"
    if not inner[n_kind]:
        small = [loop for loop in maps.loops if loop.kind == "batch" and out[loop.name] == ONE]
        if small or any(extent(loop) != ONE for loop in (*sides["m"], *sides["n"])):
            raise NotApplicable("the result's fastest loop is a batch loop")
    m_kind = "m" if n_kind == "n" else "n"
    n = inner[n_kind]
    batch = [*maps.of_kind("batch"), *(loop for loop in sides[n_kind] if loop not in n)]
    return _Plan("lhs" if m_kind == "m" else "rhs", tuple(batch), tuple(sides[m_kind]),
                 tuple(n), maps.of_kind("k"))  # fmt: skip


def _contiguous(
    loops: Sequence[Loop],
    strides: Mapping[str, Product],
    extras: Sequence[Mapping[str, Product]],
) -> list[Loop]:
    """The longest run of fastest loops that is contiguous in the result.

    Along it, each operand of the epilogue is contiguous too, or stands still.
    """
    expected = ONE
    along: list[bool] | None = None
    chosen: list[Loop] = []
    for loop in reversed(loops):
        if Product.of(loop.extent) != ONE:
            moves = [x[loop.name] == expected for x in extras]
            fit = all(m or x[loop.name] == ZERO for m, x in zip(moves, extras, strict=True))
            if strides[loop.name] != expected or not fit or along not in (None, moves):
                break
            along = moves
            expected = expected.times(Product.of(loop.extent))
        chosen.insert(0, loop)
    return chosen if expected != ONE else []


def contraction_kernel(
    name: str,
    target: Target,
    maps: ContractionMaps,
    lhs: Sequence[Size],
    rhs: Sequence[Size],
    out: Sequence[Size],
    dtype: DType = FLOAT32,
    *,
    num_dims: int = 0,
    epilogue: Epilogue | None = None,
    packable: Collection[str] = (),
    tiles: ContractionTiles | None = None,
) -> KernelSource:
    """A contraction by register tiles over packed panels.

    Args:
        name: symbol of the kernel.
        target: what to compile for.
        maps: loops and index maps; sizes are ints, `DimRef`s or products of these.
        lhs: shape of the first operand.
        rhs: shape of the second operand.
        out: shape of the result.
        dtype: a float, of both operands; 16-bit floats are summed in float32, which is what
            the epilogue is given.
        num_dims: how many entries the dims table has.
        epilogue: what happens to a sum before it is stored.
        packable: which operands ("lhs", "rhs") are constants that the compiler can pack; the
            result's `packing` says whether it shall (static shapes only).
        tiles: block sizes; by default from the target and the sizes.

    Returns:
        A kernel whose buffers are lhs, rhs, the extras, the outputs, and scratch if any.

    Raises:
        NotApplicable: if this template cannot serve the contraction.
    """
    return _Contraction(
        name, target, maps, lhs, rhs, out, dtype, num_dims, epilogue or Epilogue(), packable, tiles
    ).emit()


class _Contraction:
    """The state of one emission."""

    def __init__(
        self,
        name: str,
        target: Target,
        maps: ContractionMaps,
        lhs: Sequence[Size],
        rhs: Sequence[Size],
        out: Sequence[Size],
        dtype: DType,
        num_dims: int,
        epilogue: Epilogue,
        packable: Collection[str],
        tiles: ContractionTiles | None,
    ) -> None:
        if not is_float(dtype):
            raise NotApplicable(f"sums of {dtype.name}")
        if any(axis.is_masked for axis in maps.out):
            raise NotApplicable("a masked result")
        self.whole_maps = maps
        self.multiply = Multiply(dtype)
        group = Multiply.group_for(dtype, target)
        grouped = None
        if group != 1 and "rhs" in packable:
            grouped = in_groups(maps, cast("Sequence[int]", lhs), group)
        if grouped is not None:
            (maps, lhs), self.multiply = grouped, Multiply(dtype, group)
        self.maps, self.sums, self.epilogue = maps, self.multiply.sums, epilogue
        self.ty = lane_type(self.sums)
        self.k = k = KernelEmitter(name, target, num_dims)
        self.b = VectorLanes(k, target.lanes(self.sums.itemsize))
        extents = {loop.name: Product.of(loop.extent) for loop in maps.loops}
        self.out_strides = out_strides(maps, out)
        beside = [extra_strides(maps, out, extra) for extra in epilogue.extras]
        plan = self.plan = _plan(maps, self.out_strides, beside)

        if self.multiply.group != 1 and plan.a != "lhs":
            raise NotApplicable("groups along the rows of the result")
        element = self.multiply.element
        buffers = {"lhs": k.buffer(element), "rhs": k.buffer(element)}
        shapes = {"lhs": lhs, "rhs": rhs}
        axes = {"lhs": maps.lhs, "rhs": maps.rhs}
        b_side = "rhs" if plan.a == "lhs" else "lhs"
        self.b_entry = 1 if b_side == "rhs" else 0
        self.b_axes = axes[b_side]
        b_packed = self.b_packed = b_side in packable
        self.a = operand(buffers[plan.a], shapes[plan.a], axes[plan.a], extents)
        self.bop = operand(buffers[b_side], shapes[b_side], axes[b_side], extents)
        self.output_dtypes = epilogue.outputs or (self.sums,)
        self.finisher = Finisher(self.b, epilogue, maps, out, plan.n, self.sums)

        def size(loops: Sequence[Loop]) -> Product:
            return product([extents[loop.name] for loop in loops])

        self.m_size, self.n_size, self.k_size = size(plan.m), size(plan.n), size(plan.k)
        self.batch_extents = [extents[loop.name] for loop in plan.batch]

        def walks(of: Operand, loops: Sequence[Loop]) -> list[Walk]:
            return [of.walk(loop.name, extents[loop.name]) for loop in loops]

        self.a_batch, self.b_batch = walks(self.a, plan.batch), walks(self.bop, plan.batch)
        a_columns, a_depth = merge(walks(self.a, plan.m)), merge(walks(self.a, plan.k))
        b_columns, b_depth = merge(walks(self.bop, plan.n)), merge(walks(self.bop, plan.k))
        # Packing A for rows 4 KiB apart as well cost 5-10% (1024^3 to 2048^3, Zen 4, 2026-11).
        self.a_packed = not all(len(w) == 1 and not w[0].masked for w in (a_depth, a_columns))
        base = tiles or ContractionTiles.for_target(target)
        batch = product(self.batch_extents)
        rows = self.m_size
        if base.fitted:
            self.tiles = base
        elif b_packed and not self.a_packed:
            sizes = (rows.known, self.n_size.known, self.k_size.known, batch.known)
            self.tiles = base.fit_packed(*sizes, self.b.width, self.multiply.element_bytes, target)
        else:
            self.tiles = base.fit(rows, self.n_size, batch, self.b.width, self.a_packed)
        plain = (
            not b_packed
            and len(b_depth) == 1 and not b_depth[0].masked
            and len(b_columns) == 1 and not b_columns[0].masked
        )  # fmt: skip
        self.few: int | None = None
        """Up to how many rows, counted at run time, B is read in place."""
        self.dots = (
            plain and not self.a_packed and dtype == self.sums
            and unit_stride(b_depth[0], self.bop.masked)
            and unit_stride(a_depth[0], self.a.masked)
            and (not rows.is_static or rows.known <= self.tiles.dot_rows)
        )  # fmt: skip
        self.direct = (
            plain and not self.dots
            and unit_stride(b_columns[0], self.bop.masked)
            and (not rows.is_static or rows.known <= self.tiles.direct_rows)
        )  # fmt: skip
        if not rows.is_static and (self.dots or self.direct):
            self.few = self.tiles.dot_rows if self.dots else self.tiles.direct_rows
        narrow = VectorLanes(k, self.tiles.pack_a)
        self.a_pack = Packer(k, narrow, self.a, a_columns, a_depth)
        self.b_pack = Packer(k, self.b, self.bop, b_columns, b_depth)
        if self.a_packed and self.tiles.mr > self.tiles.pack_a:
            raise NotApplicable("rows of the register tile exceed a packed panel")

        self.kc = self.tiles.kc
        if self.k_size.is_static:
            blocks = max(1, -(-self.k_size.known // self.kc))
            self.kc = max(1, -(-self.k_size.known // blocks))
        self.one_k_block = self.k_size.is_static and self.k_size.known <= self.kc
        if not self.one_k_block and self.output_dtypes[0] != self.sums:
            raise NotApplicable("partial sums need a result of their dtype")
        nr = self.tiles.nv * self.b.width
        self.b_panels = Panels(Buffer("", element), 0, nr, self.kc + self.b.width)
        in_place = self.few is None and (self.direct or self.dots)
        b_elements = 0 if in_place or b_packed else self.b_panels.size * self.tiles.nc
        self.a_panels = Panels(
            Buffer("", element), b_elements, self.tiles.pack_a, self.kc + self.tiles.pack_a
        )
        a_elements = 0
        if self.a_packed:
            a_elements = self.a_panels.size * -(-self.tiles.mc // self.tiles.mr)
        self.scratch = (b_elements + a_elements) * self.multiply.element_bytes
        if self.scratch:
            buffer = k.buffer(element)
            self.b_panels = replace(self.b_panels, buffer=buffer)
            self.a_panels = replace(self.a_panels, buffer=buffer)

    # -- loops over blocks -----------------------------------------------------------------

    def emit(self) -> KernelSource:
        """The kernel."""
        k, t = self.k, self.tiles
        m, n, depth = self.m_size.dim(k), self.n_size.dim(k), self.k_size.dim(k)
        nr = self.b_panels.width
        n_block = t.nc * nr
        n_blocks, m_blocks = k.ceildiv(n, n_block), k.ceildiv(m, t.mc)
        k_blocks = k.max(k.ceildiv(depth, self.kc), 1)
        batch = [e.dim(k) for e in self.batch_extents]

        def block_of(index: Dim) -> tuple[Dim, Dim, Dim, Dim, list[Dim], Place, Place]:
            rest, m_block = k.div(index, m_blocks), k.rem(index, m_blocks)
            batch_index, n_index = k.div(rest, n_blocks), k.rem(rest, n_blocks)
            at = k.delinearize(batch_index, batch)
            a_base = self.a_pack.join(
                Place(self.a.base.dim(k), (0,) * len(self.a.masked)),
                self.a_pack.place(self.a_batch, at),
            )
            b_base = self.b_pack.join(
                Place(self.bop.base.dim(k), (0,) * len(self.bop.masked)),
                self.b_pack.place(self.b_batch, at),
            )
            return rest, m_block, k.mul(m_block, t.mc), k.mul(n_index, n_block), at, a_base, b_base

        nothing = Value(k.constant("-1", "index"), "index")

        def unit(index: Dim, packed: list[Value]) -> list[Value]:
            rest, m_block, m_low, n_low, at, a_base, b_base = block_of(index)
            m_high = k.min(k.add(m_low, t.mc), m)
            n_high = k.min(k.add(n_low, n_block), n)
            if k_blocks == 1:
                # What an earlier unit of this call packed serves this one too.
                fresh_b = k.compare("ne", rest, packed[0].ref)
                a_key = k.add(k.mul(self._a_batch_key(at), m_blocks), m_block)
                fresh_a = k.compare("ne", a_key, packed[1].ref)
                self._pack(b_base, n_low, n_high, 0, depth, "b", fresh_b)
                self._pack(a_base, m_low, m_high, 0, depth, "a", fresh_a)
                self._block(at, a_base, b_base, m_low, m_high, n_low, n_high, 0, depth)
                return [Value(k.index(rest), "index"), Value(k.index(a_key), "index")]
            with k.loop(0, k_blocks) as k_block:
                k_low = k.mul(k_block, self.kc)
                k_high = k.min(k.add(k_low, self.kc), depth)
                self._pack(b_base, n_low, n_high, k_low, k_high, "b", None)
                self._pack(a_base, m_low, m_high, k_low, k_high, "a", None)
                self._block(at, a_base, b_base, m_low, m_high, n_low, n_high, k_low, k_high)
            return packed

        def packed() -> None:
            carried = [nothing, nothing]
            if k_blocks == 1:
                k.fold("%begin", "%end", 1, carried, unit)
                return
            with k.loop("%begin", "%end") as index:
                unit(index, carried)

        def dots() -> None:
            with k.loop("%begin", "%end") as index:
                _, _, m_low, n_low, at, a_base, b_base = block_of(index)
                m_high = k.min(k.add(m_low, t.mc), m)
                n_high = k.min(k.add(n_low, n_block), n)
                self._dots(at, a_base, b_base, m_low, m_high, n_low, n_high)

        if self.few is not None:
            direct = self.direct
            with k.when(k.compare("sle", m, self.few)):
                dots() if self.dots else packed()
            self.direct = False
            with k.otherwise():
                packed()
            self.direct = direct
        elif self.dots:
            dots()
        else:
            packed()
        flat = [f for e in self.batch_extents for f in e.factors]
        units = Units((
            (tuple(flat), 1),
            (self.n_size.factors, n_block),
            (self.m_size.factors, t.mc),
        ))  # fmt: skip
        whole = self.whole_maps
        flops = whole.flops if all(isinstance(x.extent, int) for x in whole.loops) else 0
        source = k.finish(units, scratch_bytes=self.scratch, template="contraction", flops=flops)
        packing = ((self.b_entry, self._packing()),) if self.b_packed else ()
        return replace(source, packing=packing, tiles=self.tiles)

    def _packing(self) -> Packing:
        """How B has to lie in memory: panels of each batch element, k in the order of A's."""
        plan = self.plan
        names: list[str] = []
        for axis in self.b_axes:
            assert not axis.is_masked and not axis.offset, "B is addressed by its loops alone"
            names += [loop for loop, _ in axis.terms]
        extents = {loop.name: int(loop.extent) for loop in self.whole_maps.loops}
        wanted = [loop.name for loop in (*plan.batch, *plan.k, *plan.n) if loop.name in names]
        assert sorted(wanted) == sorted(names), "every loop of B is of the batch, of K or of N"
        return Packing(
            "panels",
            (
                tuple(extents[name] for name in names),
                tuple(names.index(name) for name in wanted),
                len(plan.n),
                len(plan.k),
                self.b_panels.width,
                self.multiply.group,
            ),
        )

    def _a_batch_key(self, at: Sequence[Dim]) -> Dim:
        """A number that tells batch elements apart as far as A can."""
        known = [
            (i, e) for i, e, w in zip(at, self.batch_extents, self.a_batch, strict=True)
            if w.flat.known or w.masked
        ]  # fmt: skip
        return self._linear(known)

    def _linear(self, indices: Sequence[tuple[Dim, Product]]) -> Dim:
        """The row-major number of some indices, each with its extent."""
        number: Dim = 0
        for i, extent in indices:
            number = self.k.add(self.k.mul(number, extent.dim(self.k)), i)
        return number

    def b_element(self, at: Sequence[Dim]) -> Dim:
        """Which batch element of a packed B belongs to these batch indices."""
        known = [
            (i, e) for i, e, w in zip(at, self.batch_extents, self.b_batch, strict=True)
            if w.flat.known
        ]  # fmt: skip
        return self._linear(known)

    def _pack(
        self, base: Place, low: Dim, high: Dim, k_low: Dim, k_high: Dim, side: str,
        fresh: str | None,
    ) -> None:  # fmt: skip
        """Packs the panels of columns low..high, if this side is packed at all."""
        k = self.k
        if side == "b":
            if self.direct or self.b_packed:
                return
            packer, panels, step = self.b_pack, self.b_panels, self.b_panels.width
        else:
            if not self.a_packed:
                return
            packer, panels, step = self.a_pack, self.a_panels, self.tiles.mr

        def fill() -> None:
            with k.loop(0, k.ceildiv(k.sub(high, low), step)) as i:
                at = k.add(panels.base, k.mul(i, panels.size))
                packer.panel(base, k.add(low, k.mul(i, step)), k_low, k_high, panels, at)

        if fresh is None:
            fill()
            return
        with k.when(fresh):
            fill()

    # -- tiles --------------------------------------------------------------------------------

    def _block(
        self, at: Sequence[Dim], a_base: Place, b_base: Place, m_low: Dim, m_high: Dim,
        n_low: Dim, n_high: Dim, k_low: Dim, k_high: Dim,
    ) -> None:  # fmt: skip
        """All tiles of one block of M, N and K."""
        k, nr = self.k, self.b_panels.width
        full = k.add(n_low, k.round_down(k.sub(n_high, n_low), nr))

        def panel(start: Dim, count: Dim | None) -> None:
            tile = _Tile(self, at, a_base, b_base, start, count, n_low, m_low, k_low, k_high)
            self._rows(tile, m_low, m_high)

        static_n = self.n_size.is_static
        if not static_n or self.n_size.known >= nr:
            with k.loop(n_low, full, nr) as start:
                panel(start, None)
        if static_n:
            rest = self.n_size.known % nr
            if rest:
                if self.n_size.known < nr:
                    panel(n_low, rest)
                    return
                with k.when(k.compare("slt", full, n_high)):
                    panel(full, rest)
            return
        with k.when(k.compare("slt", full, n_high)):
            panel(full, k.sub(n_high, full))

    def _dots(
        self, at: Sequence[Dim], a_base: Place, b_base: Place, m_low: Dim, m_high: Dim,
        n_low: Dim, n_high: Dim,
    ) -> None:  # fmt: skip
        """Rows of A times rows of a transposed B, as many at once as a vector has elements."""
        k, b = self.k, self.b
        width, depth = b.width, self.k_size.dim(k)
        full = k.round_down(depth, width)
        per_column = self.b_pack.columns[0].flat.dim(k)
        per_row = self.a_pack.columns[0].flat.dim(k)
        last = k.sub(self.n_size.dim(k), 1)
        with k.loop(n_low, n_high, width) as start, k.loop(m_low, m_high) as row:
            tile = _Tile(self, at, a_base, b_base, start, None, n_low, m_low, 0, depth)
            tile.masks = [b.mask(k.sub(n_high, start))]
            x_at = k.add(a_base.flat, k.mul(row, per_row))
            columns = [
                k.add(b_base.flat, k.mul(k.min(k.add(start, i), last), per_column))
                for i in range(width)
            ]

            def step(
                i: Dim, acc: list[Value], mask: str | None = None,
                x_at: Dim = x_at, columns: list[Dim] = columns,
            ) -> list[Value]:  # fmt: skip
                x = b.load(self.a.buffer, k.add(x_at, i), mask)
                return [
                    b.value(
                        b.fma(
                            b.load(self.bop.buffer, k.add(column, i), mask),
                            x,
                            Lane(old.ref, self.ty),
                        )
                    )
                    for column, old in zip(columns, acc, strict=True)
                ]

            acc = k.fold(0, full, width, [b.value(b.constant(0, self.ty))] * width, step)
            if isinstance(depth, int):
                if depth % width:
                    acc = step(full, acc, b.mask(depth % width))
            else:
                before = acc
                acc = k.choose(
                    k.compare("slt", full, depth),
                    lambda: step(full, before, b.mask(k.sub(depth, full))),
                    lambda: before,
                )
            sums = transpose(b, [Lane(value.ref, self.ty) for value in acc])
            while len(sums) > 1:
                sums = [b.add(x, y) for x, y in zip(sums[::2], sums[1::2], strict=True)]
            tile.finish_row(row, sums[0])

    def _rows(self, tile: _Tile, low: Dim, high: Dim) -> None:
        """All rows of one panel."""
        k, mr = self.k, self.tiles.mr
        m = self.m_size
        full = k.add(low, k.round_down(k.sub(high, low), mr))
        if not m.is_static or m.known >= mr:
            with k.loop(low, full, mr) as row:
                tile.emit(row, mr)
        if m.is_static:
            rest = m.known % mr
            if rest:
                if isinstance(full, int):
                    tile.emit(full, rest)
                else:
                    with k.when(k.compare("slt", full, high)):
                        tile.emit(full, rest)
            return
        size = mr // 2 if mr & (mr - 1) == 0 else 1
        while size:  # fewer than mr rows: a tile of 4, of 2, of 1
            if size == 1 and mr & (mr - 1):
                with k.loop(full, high) as row:
                    tile.emit(row, 1)
                return
            following = k.add(full, k.round_down(k.sub(high, full), size))
            with k.when(k.compare("slt", full, following)):
                tile.emit(full, size)
            full, size = following, size // 2


class _Tile:
    """The register tiles of one panel of B."""

    def __init__(
        self, owner: _Contraction, at: Sequence[Dim], a_base: Place, b_base: Place, start: Dim,
        count: Dim | None, n_low: Dim, m_low: Dim, k_low: Dim, k_high: Dim,
    ) -> None:  # fmt: skip
        self.o, self.at, self.a_base, self.start, self.count = owner, at, a_base, start, count
        self.m_low, self.k_low, self.k_high = m_low, k_low, k_high
        k, b = owner.k, owner.b
        self.vectors = owner.tiles.nv
        if isinstance(count, int):
            self.vectors = -(-count // b.width)
        self.masks: list[str | None] = [None] * self.vectors
        if count is not None:
            for v in range(self.vectors):
                whole = isinstance(count, int) and count >= (v + 1) * b.width
                self.masks[v] = None if whole else b.mask(k.sub(count, v * b.width))
        panels = owner.b_panels
        if owner.direct:
            self.b_step: Dim = owner.b_pack.depth[0].flat.dim(k)
            self.b_at = k.add(b_base.flat, start, k.mul(k_low, self.b_step))
            self.b_buffer = owner.bop.buffer
        elif owner.b_packed:
            self.b_step = panels.width
            depth = owner.k_size.dim(k)
            index = k.div(start, panels.width)
            count = k.ceildiv(owner.n_size.dim(k), panels.width)
            index = k.add(k.mul(owner.b_element(at), count), index)
            self.b_at = k.mul(k.add(k.mul(index, depth), k_low), panels.width)
            self.b_buffer = owner.bop.buffer
        else:
            self.b_step = panels.width
            index = k.div(k.sub(start, n_low), panels.width)
            self.b_at = k.mul(index, panels.size)
            self.b_buffer = panels.buffer

    def emit(self, row: Dim, rows: int) -> None:
        """One tile of `rows` rows from `row` on."""
        o, k, b = self.o, self.o.k, self.o.b
        places = [self._element(k.add(row, i)) for i in range(rows)]
        outputs = [o.finisher.offset(place, self.start) for place in places]
        zero = b.value(b.constant(0, o.ty))
        tile = [(r, v) for r in range(rows) for v in range(self.vectors)]
        acc = [zero] * len(tile)
        first_block = k.compare("eq", self.k_low, 0) if not o.one_k_block else None
        if first_block is not None:

            def previous() -> list[Value]:
                return [
                    b.value(
                        b.load(o.finisher.outputs[0], k.add(outputs[r], v * b.width), self.masks[v])
                    )
                    for r, v in tile
                ]

            acc = k.choose(first_block, lambda: acc, previous)
        a_at, a_buffer, a_step = self._a(row, rows)

        ahead = self._ahead(row) if o.tiles.ahead and o.b_packed else None
        if ahead is not None:
            o.finisher.prefetch(
                places, [k.add(self.start, v * b.width) for _, v in tile[: self.vectors]]
            )

        def step(at_k: Dim, acc: list[Value]) -> list[Value]:
            b_at = k.add(self.b_at, k.mul(at_k, self.b_step))
            if ahead is not None:
                start, moved = ahead
                k.prefetch(self.b_buffer, k.add(start, k.mul(at_k, moved)))
            masks = self.masks if o.direct else [None] * self.vectors
            columns = [
                o.multiply.columns(b, self.b_buffer, k.add(b_at, v * b.width), masks[v])
                for v in range(self.vectors)
            ]
            moved = k.mul(at_k, a_step)
            result: list[Value] = []
            for r in range(rows):
                scalar = o.multiply.splat(b, a_buffer, k.add(a_at[r], moved))
                for v in range(self.vectors):
                    old = Lane(acc[r * self.vectors + v].ref, o.ty)
                    result.append(b.value(o.multiply.add(b, scalar, columns[v], old)))
            return result

        acc = k.fold(0, k.sub(self.k_high, self.k_low), 1, acc, step)
        sums = [Lane(value.ref, o.ty) for value in acc]

        def store_sums() -> None:
            for (r, v), lane in zip(tile, sums, strict=True):
                b.store(lane, o.finisher.outputs[0], k.add(outputs[r], v * b.width), self.masks[v])

        def finish() -> None:
            self._finish(tile, places, sums)

        if not o.epilogue.outputs or o.one_k_block:
            finish()
            return
        last = k.compare("eq", self.k_high, o.k_size.dim(k))
        with k.when(last):
            finish()
        with k.otherwise():
            store_sums()

    def _ahead(self, row: Dim) -> tuple[Dim, int]:
        """Where in the next panel the tile at `row` begins to prefetch, and its step per k.

        Every tile of a panel fetches its share, evenly over its k.
        """
        o, k = self.o, self.o.k
        width, depth = o.b_panels.width, o.k_size.known
        tiles = max(1, min(o.m_size.known, o.tiles.mc) // o.tiles.mr)
        step = -(-width // tiles)
        number = k.div(k.sub(row, self.m_low), o.tiles.mr)
        return k.add(self.b_at, depth * width, k.mul(number, depth * step)), step

    def finish_row(self, row: Dim, total: Lane) -> None:
        """The epilogue on the first vector of one row, given its sums."""
        self._finish([(0, 0)], [self._element(row)], [total])

    def _a(self, row: Dim, rows: int) -> tuple[list[Dim], Buffer, Dim]:
        """Where each row of A begins, and how far one k moves."""
        o, k = self.o, self.o.k
        if o.a_packed:
            panels = o.a_panels
            index = k.div(k.sub(row, self.m_low), o.tiles.mr)
            at = k.add(panels.base, k.mul(index, panels.size))
            inside = k.sub(k.sub(row, self.m_low), k.mul(index, o.tiles.mr))
            # A tile of a tail (4, 2, 1 rows) begins inside a panel.
            return [k.add(at, inside, r) for r in range(rows)], panels.buffer, panels.width
        step = o.a_pack.depth[0].flat.dim(k)
        stride = o.a_pack.columns[0].flat.dim(k)
        start = k.add(self.a_base.flat, k.mul(self.k_low, step))
        return [k.add(start, k.mul(k.add(row, r), stride)) for r in range(rows)], o.a.buffer, step

    def _element(self, row: Dim) -> dict[str, Dim]:
        """The loop indices of a row, and of the panel's first column (under the n loops)."""
        k, plan = self.o.k, self.o.plan
        at = {loop.name: i for loop, i in zip(plan.batch, self.at, strict=True)}
        m_sizes = [k.dim(loop.extent) for loop in plan.m]
        at.update(zip((loop.name for loop in plan.m), k.delinearize(row, m_sizes), strict=True))
        return at

    def _finish(
        self,
        tile: Sequence[tuple[int, int]],
        places: Sequence[Mapping[str, Dim]],
        sums: Sequence[Lane],
    ) -> None:
        k, width = self.o.k, self.o.b.width
        pending = self.o.finisher.begin()
        starts = [k.add(self.start, v * width) for v in range(self.vectors)]
        for (r, v), lane in zip(tile, sums, strict=True):
            pending.store(places[r], starts[v], lane, self.masks[v])


def axis_maps(*loops: str) -> tuple[AxisMap, ...]:
    """One axis per loop, in order; what a plain matrix has."""
    return tuple(AxisMap.of(loop) for loop in loops)
