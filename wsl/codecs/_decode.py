"""From a pack to the task vector or family."""

from typing import Any

import jax

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.codecs import _masks, _packed
from wsl.codecs._blocks import leaf as blocks_lib
from wsl.codecs._low_rank import codes as codes_lib
from wsl.codecs._ternary import leaf as ternary

PACKED = (
  ternary.Ternary,
  _masks.Bits,
  blocks_lib.SignBlocks,
  codes_lib.Codes,
)


def decode(packed: _packed.Packed, *, dense: bool = True) -> types.Tree:
  """Returns the task vector of a pack, with leaves on demand.

  Args:
    packed: of any codec, in memory or from ``codecs.load``.
    dense: whether factors of low rank are multiplied; otherwise they are
      returned as ``deltas.Factors``.

  Returns:
    The task vector in the structure that was compressed; or the family, a
    ``merge.TallMasks``. A leaf is decoded when it is read; in a trace at once.
    ``tree.stack`` makes a stack for ``merge`` of several task vectors.

  Raises:
    ValueError: if leaves that the host decodes are traced; when a leaf is read,
      if its codes are damaged, naming it.

  Example:
    >>> import numpy as np
    >>> from wsl import codecs, merge, tree
    >>> deltas = [{'w': np.asarray(x, np.float32)} for x in ([1, -4], [3, 2])]
    >>> packs = [codecs.compeft(d, density=0.5, scale='mean') for d in deltas]
    >>> stack = tree.stack([codecs.decode(packed) for packed in packs])
    >>> tree.read(merge.sum(stack))['w'].tolist()
    [3.0, -4.0]
  """
  _packed.check('decode', packed)
  is_packed = lambda x: isinstance(x, PACKED)
  named = tree.named(packed.leaves, is_leaf=is_packed)
  found = [_leaf(name, leaf) for name, leaf in named.items()]
  structure = jax.tree.structure(packed.leaves, is_leaf=is_packed)
  decoded = jax.tree.unflatten(structure, found)
  return deltas_lib.dense(decoded) if dense else decoded


def _leaf(name: str, leaf: Any) -> Any:
  """Returns a leaf on demand; an array that is stored as it is stays."""
  if isinstance(leaf, ternary.Ternary):
    return ternary.decode(name, leaf)
  if isinstance(leaf, PACKED) and not tree.is_traced(leaf):
    leaf = tree.defer(leaf)
  if isinstance(leaf, _masks.Bits):
    return _masks.decode(leaf)
  if isinstance(leaf, blocks_lib.SignBlocks):
    return blocks_lib.decode(leaf)
  if isinstance(leaf, codes_lib.Codes):
    return codes_lib.decode(leaf)
  return leaf
