"""Slices: the leading units of each group, the leading blocks."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from wsl import align, tree, types
from wsl.surgery._nested import size as size_lib

# For each part of an axis its factors, (their number, how many are kept), and
# its inner parts.
Cut: TypeAlias = tuple[tuple[tuple[int, int], ...], tuple[Any, ...]]
Cuts: TypeAlias = tuple[tuple[Cut, ...], ...]
_DROPPED = object()


def slice(
  params: types.Params, size: size_lib.Size, *, symmetry: align.Symmetry
) -> types.Params:
  r"""Cuts a smaller network from the leading units and blocks of a model.

  .. math:: \theta_w = \theta[: w_1, : w_2, \dots], \qquad
    (\theta_v)_w = \theta_w \quad (w \leq v)

  A group is cut alike in all leaves in which it occurs: in the maps that
  compute its units, in normalisations and their running statistics, and in the
  maps that read them. So the slice is a valid network of the smaller sizes. Of
  a product of groups, such as heads times units of a head, the leading units of
  the leading heads are kept. Sort the units first (``importance_order`` and
  ``align.permute``).

  The slice computes what the masked whole (``mask_units``) computes, unless the
  function counts the units of a group: a normalisation over them, a mean or a
  softmax over them, or the scale of attention if units of a head are cut.
  Hidden units between two linear maps, channels between convolutions, whole
  heads, and whole groups of a group normalisation are not counted.

  Args:
    params: the model, leaves in memory or on demand.
    size: the size of the slice, from ``slice_size``.
    symmetry: the symmetry of the model.

  Returns:
    The slice, of the same dtypes; leaves on demand give leaves on demand. Its
    function is the model's with smaller sizes: for a Flax model a module with
    the attributes of the slice. Dropped blocks are removed from their dict or
    list. Its symmetry is ``slice_symmetry(symmetry, size)``. Running statistics
    of units that read cut ones are those of the whole: see
    ``align.reset_batch_stats``.

  Raises:
    ValueError: if the model or the size belongs to another symmetry, the size
      is traced (use ``mask_units``), or blocks are not in a dict or list.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align, surgery
    >>> h, x = align.Factor('h', 4), align.Factor('x', 2, 'an input')
    >>> symmetry = align.Symmetry((h, x), (('w', ((('x',),), (('h',),))),))
    >>> size = surgery.slice_size(symmetry, widths=0.5)
    >>> slice({'w': jnp.arange(8.0).reshape(2, 4)}, size,
    ...       symmetry=symmetry)['w'].tolist()
    [[0.0, 1.0], [4.0, 5.0]]

  Reference:
    Valipour et al., "SortedNet: A Scalable and Generalized Framework for
    Training Modular Deep Neural Networks", 2023, arXiv:2309.00255; Yu et al.,
    "Slimmable Neural Networks", 2018, arXiv:1812.08928.
  """
  size_lib.check(params, size, symmetry, 'slice')

  def one(name: str, x: Any) -> Any:
    if not _is_kept(name, size):
      return _DROPPED
    axes = symmetry.layout(name)
    cuts = tuple(_cuts(parts, size.widths) for parts in axes)
    whole = cuts == tuple(_cuts(parts, {}) for parts in axes)
    return x if whole else tree.apply_kernel(_cut, x, cuts=tree.Static(cuts))

  return _without_dropped(tree.map_named(one, params), '')


def slice_symmetry(
  symmetry: align.Symmetry, size: size_lib.Size
) -> align.Symmetry:
  """Returns the symmetry of a slice.

  Args:
    symmetry: the symmetry of the whole model.
    size: the size of the slice.

  Returns:
    The symmetry with smaller groups, under the names of the whole, and without
    the leaves of dropped blocks.

  Raises:
    ValueError: if the size belongs to another symmetry, or is traced.

  Example:
    >>> from wsl import align, surgery
    >>> h = align.Factor('w:0', 4)
    >>> symmetry = align.Symmetry((h,), (('w', ((('w:0',),),)),))
    >>> half = surgery.slice_size(symmetry, widths=0.5)
    >>> slice_symmetry(symmetry, half).groups[0].size
    2
  """
  size_lib.check(None, size, symmetry, 'slice_symmetry')
  axes = tuple(
    (name, axis) for name, axis in symmetry.axes if _is_kept(name, size)
  )
  used = {
    f for _, leaf in axes for axis in leaf for segment in axis for f in segment
  }
  factors = tuple(
    f._replace(size=int(size.widths.get(f.name, f.size)))
    for f in symmetry.factors
    if f.name in used
  )
  runs = tuple(r for r in symmetry.interleaved if _is_kept(r.leaf, size))
  return dataclasses.replace(
    symmetry, factors=factors, axes=axes, interleaved=runs
  )


def _is_kept(name: str, size: size_lib.Size) -> bool:
  """Returns True unless a leaf is of a block beyond the depth."""
  return all(
    tree.layer('depths', pattern, name) < depth
    for pattern, depth in size.depths.items()
  )


def _cuts(parts: tuple[Any, ...], widths: Mapping[str, Any]) -> tuple[Cut, ...]:
  """Returns how the parts of an axis are cut."""
  return tuple(
    (
      tuple((f.size, int(widths.get(f.name, f.size))) for f in part.factors),
      _cuts(part.parts, widths),
    )
    for part in parts
  )


def _cut(x: types.Array, *, cuts: Cuts) -> types.Array:
  """Cuts a leaf, axis by axis."""
  for axis, parts in enumerate(cuts):
    x = _cut_axis(x, axis, parts)
  return x


def _cut_axis(x: types.Array, axis: int, cuts: tuple[Cut, ...]) -> types.Array:
  """Cuts one axis: each part has one dimension for each factor."""
  before, after = x.shape[:axis], x.shape[axis + 1 :]
  kept, start = [], 0
  for factors, inner in cuts:
    sizes = [n for n, _ in factors] + ([_size(inner)] if inner else [])
    stop = start + math.prod(sizes)
    part = jax.lax.slice_in_dim(x, start, stop, axis=axis)
    # The kept entries of a product of factors are a box of its indices.
    part = part.reshape((*before, *sizes, *after))
    for i, (_, count) in enumerate(factors):
      part = jax.lax.slice_in_dim(part, 0, count, axis=axis + i)
    if inner:
      part = _cut_axis(part, axis + len(factors), inner)
    kept.append(part.reshape((*before, -1, *after)))
    start = stop
  return kept[0] if len(kept) == 1 else jnp.concatenate(kept, axis)


def _size(cuts: tuple[Cut, ...]) -> int:
  """Returns the number of entries of a sum of parts."""
  return sum(
    math.prod(n for n, _ in factors) * (_size(inner) if inner else 1)
    for factors, inner in cuts
  )


def _without_dropped(node: Any, path: str) -> Any:
  """Removes dropped leaves, and containers that held only such."""
  if node is _DROPPED or not any(
    leaf is _DROPPED for leaf in jax.tree.leaves(node)
  ):
    return node
  if isinstance(node, Mapping):
    pairs = {k: _without_dropped(v, f'{path}/{k}') for k, v in node.items()}
    rest = {k: v for k, v in pairs.items() if v is not _DROPPED}
    return type(node)(rest) if rest else _DROPPED  # type: ignore[call-arg]
  if type(node) in (list, tuple):
    parts = [_without_dropped(v, f'{path}/{i}') for i, v in enumerate(node)]
    left = [v for v in parts if v is not _DROPPED]
    return type(node)(left) if left else _DROPPED
  raise ValueError(
    f"slice: blocks are dropped from a {type(node).__name__} at '{path[1:]}': "
    'give dicts or lists of blocks, such as tree.nest(tree.flatten(params))'
  )
