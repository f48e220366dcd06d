"""Masks: a slice at the shapes of the whole model, for traced sizes."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from wsl import align, tree, types
from wsl.surgery._nested import size as size_lib


def mask_units(
  params: types.Params, size: size_lib.Size, *, symmetry: align.Symmetry
) -> types.Params:
  r"""Sets all entries outside of a slice to zero, at the shapes of the whole.

  .. math:: \theta \odot m_w, \qquad
    m_w[i, j, \dots] = [i < w_1]\,[j < w_2] \cdots

  The size may be traced, so that one compiled program serves all sizes: a
  training step of a random size, or ``vmap`` over sizes. A slice computes the
  same where ``slice`` says so. Blocks that are not kept are all zero; that is
  the identity where a block is added to its input and ends in a linear map.

  Args:
    params: the model, leaves in memory or on demand.
    size: the size of the slice, numbers or traced arrays ``[]``.
    symmetry: the symmetry of the model.

  Returns:
    The masked model, of the same shapes and dtypes.

  Raises:
    ValueError: if the model or the size belongs to another symmetry.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align, surgery
    >>> h = align.Factor('w:0', 3)
    >>> symmetry = align.Symmetry((h,), (('w', ((('w:0',),),)),))
    >>> size = surgery.slice_size(symmetry, widths={'w:0': 2})
    >>> mask_units({'w': jnp.ones(3)}, size, symmetry=symmetry)['w'].tolist()
    [1.0, 1.0, 0.0]

  Reference:
    Devvrit et al., "MatFormer: Nested Transformer for Elastic Inference", 2023,
    arXiv:2310.07707.
  """
  size_lib.check(params, size, symmetry, 'mask_units', traced=True)

  def one(name: str, x: Any) -> Any:
    plan = symmetry.plan(name)
    factors = {f.name for axis in plan for segment in axis for f in segment}
    widths = {g: n for g, n in size.widths.items() if g in factors}
    blocks = {
      i: (number, depth)
      for i, (pattern, depth) in enumerate(size.depths.items())
      if (number := tree.layer('depths', pattern, name)) >= 0
    }
    if not widths and not blocks:
      return x
    axes = tree.Static(symmetry.layout(name))
    return tree.apply_kernel(_mask, x, widths, [*blocks.values()], axes=axes)

  return tree.map_named(one, params)


def _mask(
  x: types.Array,
  widths: Mapping[str, Any],
  blocks: list[tuple[Any, Any]],
  *,
  axes: Any,
) -> types.Array:
  """Sets the entries of a leaf outside of a slice to zero."""
  # A product of masks of axes: a factor is cut alike in every axis it is in. A
  # unit outside has zero weights where it is computed and where it is read. The
  # second makes its value irrelevant, also where the activation of 0 is not 0.
  kept = [
    jnp.expand_dims(mask, [i for i in range(x.ndim) if i != axis])
    for axis, mask in enumerate(_axis_mask(a, widths) for a in axes)
    if mask is not None
  ]
  for number, depth in blocks:
    kept.append(jnp.full((1,) * x.ndim, number < depth))
  for mask in kept:
    x = jnp.where(mask, x, jnp.zeros((), x.dtype))
  return x


def _axis_mask(
  parts: tuple[Any, ...], widths: Mapping[str, Any]
) -> types.Array | None:
  """Returns the mask of an axis ``[size]``; ``None`` if no group is cut."""
  masks = [_part_mask(part, widths) for part in parts]
  if all(mask is None for mask in masks):
    return None
  return jnp.concatenate(
    [
      jnp.ones(part.size, bool) if mask is None else mask
      for part, mask in zip(parts, masks)
    ]
  )


def _part_mask(part: Any, widths: Mapping[str, Any]) -> types.Array | None:
  """Returns the mask of a part of an axis; ``None`` if no group is cut."""
  inner = _axis_mask(part.parts, widths)
  if inner is None and not any(f.name in widths for f in part.factors):
    return None
  # An entry of a product of factors is kept if each of its indices is.
  kept = jnp.ones(1, bool)
  for f in part.factors:
    limit = jnp.asarray(widths.get(f.name, f.size), jnp.int32)
    one = jnp.arange(f.size, dtype=jnp.int32) < limit
    kept = (kept[:, None] & one[None, :]).reshape(-1)
  if part.parts:
    size = sum(p.size for p in part.parts)
    one = jnp.ones(size, bool) if inner is None else inner
    kept = (kept[:, None] & one[None, :]).reshape(-1)
  return kept
