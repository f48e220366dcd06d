"""LiNeS: scale a task vector linearly in the depth of the network."""

from typing import Any

import jax.numpy as jnp

from wsl import deltas, tree, types


def by_depth(
  delta: types.Delta, *, depth: str, start: types.Scalar, end: types.Scalar
) -> types.Delta:
  r"""Scales each block by a factor that is linear in its depth.

  .. math:: \tau_l \mapsto \Big(\alpha + (\omega - \alpha)
    \frac{l}{L - 1}\Big) \tau_l, \qquad l = 0 \dots L - 1

  with alpha = ``start`` and omega = ``end``. Leaves outside the blocks are
  scaled by ``start``. The map is leafwise and linear: it applies to a ``Delta``
  and to ``Deltas``, and commutes with every linear merge.

  Args:
    delta: a task vector, or a stack of them. Of a leaf in factors the scale is
      multiplied.
    depth: a regular expression, searched in each name, with one group that
      captures the number of the block: ``r'block_(\d+)/'``. L is one more than
      the largest number found.
    start: the scale of block 0 and of leaves outside the blocks. The authors
      take the share of L1 norms :math:`\|\sum_t \tau_t\|_1 / (T
      \|\tau\|_1)`, ``tree.norm(total, ord=1) / (T * tree.norm(delta, ord=1))``,
      which is 1 / T if ``delta`` is the sum of T task vectors: shallow layers,
      which are shared by all tasks, are averaged.
    end: the scale of the last block.

  Returns:
    The scaled task vector.

  Raises:
    ValueError: if ``depth`` has no single group, captures no number, or finds
      fewer than two blocks.

  Example:
    >>> import jax.numpy as jnp
    >>> delta = {f'block_{i}': {'w': jnp.ones(1)} for i in range(3)}
    >>> scaled = by_depth(delta, depth=r'block_(\d+)/', start=0.5, end=1.0)
    >>> [float(scaled[f'block_{i}']['w'][0]) for i in range(3)]
    [0.5, 0.75, 1.0]

  Reference:
    Wang et al., "LiNeS: Post-training Layer Scaling Prevents Forgetting and
    Enhances Model Merging", 2024, arXiv:2410.17146.

  Differs from the official code in its arguments: its beta is omega - alpha.
  """
  remedy = 'give the two ends of the line, others by deltas.apply(coef={...})'
  tree.check_scalars('by_depth', remedy=remedy, start=start, end=end)
  label = f"by_depth(depth='{depth}')"
  named = tree.named(delta, is_leaf=deltas.is_factors)
  layers = {name: tree.layer(label, depth, name) for name in named}
  last = max(layers.values(), default=-1)
  if last < 1:
    raise ValueError(
      f'{label}: found {last + 1} block(s) in names such as '
      f'{list(named)[:3]}, at least two are needed'
    )
  places = {name: max(layer, 0) / last for name, layer in layers.items()}
  arrays = {k: x for k, x in named.items() if not deltas.is_factors(x)}
  among = {name: places[name] for name in arrays}
  found = tree.map(_scale, arrays, among, start=start, end=end)
  for name in named.keys() - arrays.keys():
    number = start + (end - start) * places[name]
    found[name] = deltas.times(named[name], number)
  return tree.map_named(
    lambda name, _: found[name], delta, is_leaf=deltas.is_factors
  )


def _scale(x: types.Array, place: Any, *, start: Any, end: Any) -> types.Array:
  """Scales a leaf by the line at ``place``, l / (L - 1)."""
  wide = tree.wide(x)
  start, end, place = (
    jnp.asarray(v).astype(wide.dtype) for v in (start, end, place)
  )
  return ((start + (end - start) * place) * wide).astype(x.dtype)
