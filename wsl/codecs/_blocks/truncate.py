"""Prefixes of a BitStack pack: the order of blocks, and a budget in bytes."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from wsl import tree, types
from wsl.codecs import _packed, _size
from wsl.codecs._blocks import leaf as blocks_lib

_SIZES = ('signs', 'left', 'right')


def block_order(
  packed: _packed.Packed, *, losses: Mapping[str, Any] | None = None
) -> list[tuple[str, int]]:
  r"""Returns the order in which blocks are worth their bytes.

  Without losses, a block i of a leaf is worth

  .. math:: (\|R_i\|^2 - \|R_{i+1}\|^2) / \text{bytes}

  or as much as the least of those before it, since a block is of use after
  those only. With losses the order is the paper's: level by level, in a level
  by the loss of the model in which that leaf alone has one block more.

  Args:
    packed: of ``bitstack``.
    losses: for each compressed leaf the losses ``[n]`` of the model in which it
      has i + 1 blocks and the other leaves i (the paper takes the perplexity on
      calibration data); NaN comes last in its level.

  Returns:
    ``(name, i)`` for all blocks, the most useful first; for each leaf i
    increases.

  Raises:
    ValueError: if the pack has no blocks, or losses do not fit them.

  Example:
    >>> import numpy as np
    >>> from wsl import codecs
    >>> delta = {'a': np.ones((4, 4)), 'b': 3 * np.ones((4, 4))}
    >>> packed = codecs.bitstack(delta, blocks=2, rank=1)
    >>> codecs.block_order(packed)[:2]
    [('b', 0), ('a', 0)]

  Reference:
    Wang et al., "BitStack: Any-Size Compression of Large Language Models in
    Variable Memory Environments", 2024, arXiv:2410.23918.
  """
  leaves = _compressed('block_order', packed)
  rows = []
  for name, leaf in leaves.items():
    if losses is None:
      norms = np.asarray(tree.read(leaf.norms), np.float64)
      gains = (norms[:-1] ** 2 - norms[1:] ** 2) / _block_bytes(leaf)
      # A block is useful after those before it only: the running minimum sorts
      # it behind them.
      keys = [(0, -x) for x in np.minimum.accumulate(gains)]
    else:
      keys = _levels(name, leaf.blocks, losses)
    rows += [(key, i, name) for i, key in enumerate(keys)]
  return [(name, i) for _, i, name in sorted(rows)]


def truncate(
  packed: _packed.Packed,
  *,
  nbytes: int,
  order: Sequence[tuple[str, int]] | None = None,
) -> _packed.Packed:
  """Keeps the first blocks, in an order, that fit into a number of bytes.

  Args:
    packed: of ``bitstack``; of arrays on demand only the kept blocks are read.
    nbytes: the most that the file of the result takes, header included.
    order: of ``block_order``, its default if None. Blocks are added until the
      first that does not fit.

  Returns:
    The smaller pack. A leaf may have no block, which decodes to zero.

  Raises:
    ValueError: if not even the leaves that are stored as they are fit, or the
      order does not name the blocks of the pack.

  Example:
    >>> import numpy as np
    >>> from wsl import codecs
    >>> delta = {'w': np.random.default_rng(0).standard_normal((64, 64))}
    >>> packed = codecs.bitstack(delta, blocks=4, rank=2)
    >>> part = codecs.truncate(packed, nbytes=4000)
    >>> part.leaves['w'].blocks, codecs.size(part).bits <= 8 * 4000
    (3, True)

  Reference:
    Wang et al., "BitStack: Any-Size Compression of Large Language Models in
    Variable Memory Environments", 2024, arXiv:2410.23918.
  """
  leaves = _compressed('truncate', packed)
  order = block_order(packed) if order is None else order
  kept = dict.fromkeys(leaves, 0)
  total = _size.file_bytes(packed) - sum(
    leaf.blocks * _block_bytes(leaf) for leaf in leaves.values()
  )
  tree.check_scalars('truncate', nbytes=nbytes)
  if not total <= nbytes:
    raise ValueError(
      f'truncate(nbytes={nbytes}): {total} bytes are needed without any block'
    )
  for name, i in order:
    if name not in kept or i != kept[name] or i >= leaves[name].blocks:
      raise ValueError(
        f'truncate: the order has block {i} of {name!r} out of turn: take that '
        'of block_order'
      )
    total += _block_bytes(leaves[name])
    if total > nbytes:
      break
    kept[name] += 1
  cut = {name: _first(leaf, kept[name]) for name, leaf in leaves.items()}
  named = tree.named(packed.leaves, is_leaf=_is_blocks)
  structure = jax.tree.structure(packed.leaves, is_leaf=_is_blocks)
  chosen = [cut.get(name, leaf) for name, leaf in named.items()]
  return _packed.Packed(jax.tree.unflatten(structure, chosen), packed.codec)


def _is_blocks(x: Any) -> bool:
  return isinstance(x, blocks_lib.SignBlocks)


def _compressed(function: str, packed: _packed.Packed) -> types.Tree:
  """Returns the leaves that are blocks, by name."""
  _packed.check(function, packed)
  named = tree.named(packed.leaves, is_leaf=_is_blocks)
  found = {name: leaf for name, leaf in named.items() if _is_blocks(leaf)}
  if not found:
    raise ValueError(f'{function}: no leaf has blocks: give a pack of bitstack')
  return found


def _levels(name: str, blocks: int, losses: Mapping[str, Any]) -> list[Any]:
  """Returns the sort keys of the blocks of a leaf: level, then loss."""
  found = np.asarray(losses.get(name, ()), np.float64)
  if found.shape != (blocks,):
    raise ValueError(
      f"block_order: the losses of leaf '{name}' have shape {found.shape}, "
      f'expected ({blocks},)'
    )
  return list(enumerate(np.where(np.isnan(found), np.inf, found)))


def _block_bytes(leaf: blocks_lib.SignBlocks) -> int:
  """Returns the bytes of one block, with its entry of the norms."""
  arrays = [getattr(leaf, name) for name in _SIZES]
  sizes = [int(np.prod(x.shape[1:])) * x.dtype.itemsize for x in arrays]
  return sum(sizes) + leaf.norms.dtype.itemsize


def _first(leaf: blocks_lib.SignBlocks, blocks: int) -> blocks_lib.SignBlocks:
  """Returns the leaf with its first blocks."""
  ends = dict.fromkeys(_SIZES, blocks) | {'norms': blocks + 1}
  parts = {name: _prefix(getattr(leaf, name), n) for name, n in ends.items()}
  return dataclasses.replace(leaf, **parts)


def _prefix(x: Any, length: int) -> Any:
  """Returns the first rows of an array, on demand if it is."""
  if not isinstance(x, tree.Stored) or x.read_into is None:
    return np.asarray(tree.read(x))[:length]
  shape, read_into = (length, *x.shape[1:]), x.read_into

  def fetch() -> np.ndarray:
    out = np.empty(int(np.prod(shape)), x.dtype)
    read_into(0, out)
    return out.reshape(shape)

  return tree.Stored(fetch, shape, x.dtype, read_into)
