"""How many bits a pack takes, and how many its symbols need."""

from typing import Any, NamedTuple

import jax
import numpy as np

from wsl import checkpoint, merge, tree
from wsl import deltas as deltas_lib
from wsl.codecs import _bits, _decode, _layout, _masks, _packed
from wsl.codecs._blocks import leaf as blocks_lib
from wsl.codecs._low_rank import codes as codes_lib
from wsl.codecs._ternary import leaf as ternary


class LeafSize(NamedTuple):
  """The size of one leaf.

  Attributes:
    entries: its entries, those of all models of a family.
    bits: the stored bits, without the header of the file.
    bound: the order-0 entropy of its symbols, in bits; numbers count in full.
    header: its share of the bits of the header, which is divided equally.
  """

  entries: int
  bits: int
  bound: float
  header: int


class Size(NamedTuple):
  """The size of a pack; ``str(size)`` is one line.

  Attributes:
    leaves: a ``LeafSize`` for each leaf, by name.
    entries: the entries of the task vectors that the pack holds.
    header: the bits of the file's header: names, shapes, structure.
    bits: the bits of the whole file, header included.
    bound: the sum of the bounds of all leaves.
  """

  leaves: dict[str, LeafSize]
  entries: int
  header: int
  bits: int
  bound: float

  def __str__(self) -> str:
    each = max(self.entries, 1)
    payload = self.bits - self.header
    return (
      f'{self.bits} bits, {self.bits / each:.4g} an entry; without the header '
      f'{payload / each:.4g}, {payload / max(self.bound, 1):.4g} x the bound'
    )


def size(packed: _packed.Packed) -> Size:
  r"""Returns the bits of every leaf of a pack, with the bound of its symbols.

  .. math:: B = \sum_s n_s \log_2 \frac{n}{n_s}

  for n symbols, of which n_s are s: the values -c, 0, c of ``compeft``, the
  bits of a mask, the signs of a block, the codes of a quantised vector. Coders
  that adapt within a leaf may be below it. Floats count in full in both.

  Args:
    packed: of any codec; arrays on demand are read, one after the other.

  Returns:
    The size; ``size.bits / 8`` is the size of the file that ``codecs.save``
    writes without checksums.

  Raises:
    ValueError: if codes are damaged, naming the leaf.

  Example:
    >>> import numpy as np
    >>> from wsl import codecs
    >>> delta = {'w': np.asarray([1.0, -4.0, 3.0, 0.0], np.float32)}
    >>> found = codecs.size(codecs.compeft(delta, density=0.5))
    >>> found.leaves['w'].entries, round(found.leaves['w'].bound)
    (4, 38)
  """
  _packed.check('size', packed)
  tensors, metadata = _layout.layout(packed)
  total = checkpoint.file_bytes(tensors, metadata=metadata)
  header = 8 * (total - sum(map(_nbytes, tensors.values())))
  stop = lambda x: _is_packed(x) or deltas_lib.is_factors(x)
  named = tree.named(packed.leaves, is_leaf=stop)
  rows = {}
  for i, (name, leaf) in enumerate(named.items()):
    share = header * (i + 1) // len(named) - header * i // len(named)
    rows[name] = _leaf(name, leaf)._replace(header=share)
  family = isinstance(packed.leaves, merge.TallMasks)
  entries = sum(
    row.entries
    for name, row in rows.items()
    if not family or name.startswith('masks')
  )
  bound = sum(row.bound for row in rows.values())
  return Size(rows, entries, header, 8 * total, bound)


def file_bytes(packed: _packed.Packed) -> int:
  """Returns the size of the file of a pack."""
  tensors, metadata = _layout.layout(packed)
  return checkpoint.file_bytes(tensors, metadata=metadata)


def _is_packed(x: Any) -> bool:
  return isinstance(x, _decode.PACKED)


def _nbytes(x: Any) -> int:
  return int(np.prod(np.shape(x), dtype=np.int64)) * x.dtype.itemsize


def _leaf(name: str, leaf: Any) -> LeafSize:
  """Returns the size of one leaf; that of factors adds up a, b and s."""
  if deltas_lib.is_factors(leaf):
    parts = [_leaf(name, x) for x in (leaf.a, leaf.b, leaf.scale)]
    stored, least = (sum(x) for x in list(zip(*parts))[1:3])
    return LeafSize(int(np.prod(leaf.shape)), stored, least, 0)
  arrays = [
    x if hasattr(x, 'dtype') else np.float32(x) for x in jax.tree.leaves(leaf)
  ]
  bits = 8 * sum(map(_nbytes, arrays))
  if isinstance(leaf, ternary.Ternary):
    found = _bits.entropy(ternary.counts(name, leaf))
    return LeafSize(leaf.size, bits, found + 8 * leaf.value.dtype.itemsize, 0)
  if isinstance(leaf, _masks.Bits):
    entries = int(np.prod(leaf.shape, dtype=np.int64))
    return LeafSize(entries, bits, _masks.bound(leaf), 0)
  if isinstance(leaf, blocks_lib.SignBlocks):
    return LeafSize(leaf.size, bits, blocks_lib.bound(leaf), 0)
  if isinstance(leaf, codes_lib.Codes):
    return LeafSize(leaf.size, bits, codes_lib.bound(leaf), 0)
  return LeafSize(int(np.prod(np.shape(leaf))), bits, float(bits), 0)
