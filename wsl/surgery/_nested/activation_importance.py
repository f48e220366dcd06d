"""Importance of units, from the second moments of their activations."""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import jax.numpy as jnp

from wsl import align, tree, types


def activation_importance(
  params: types.Params, grams: types.Tree, *, symmetry: align.Symmetry
) -> dict[str, types.Array]:
  r"""Measures how much a unit contributes to the maps that read it.

  .. math:: I_i = \sum_{W\ \text{reads}\ i} \mathrm{E}\,\| h_i W_i \|^2
    = \sum_W \mathrm{E}[h_i^2]\, \| W_i \|^2

  the mean square of the change of the maps' outputs if unit i is removed.

  Args:
    params: the model.
    grams: second moments of the inputs of its maps, ``stats.gram(...)``.
    symmetry: the symmetry of the model.

  Returns:
    For each group a table ``[*outer sizes, size]``, float32 or wider; zeros for
    a group that no map with a Gram matrix reads.

  Raises:
    ValueError: if no leaf has a Gram matrix, or one does not fit its leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align, stats, surgery
    >>> x, h = align.Factor('x', 2), align.Factor('y', 1, 'an output')
    >>> symmetry = align.Symmetry((x, h), (('w', ((('x',),), (('y',),))),))
    >>> params = {'w': jnp.asarray([[1.0], [2.0]])}
    >>> grams = stats.gram(lambda p, x: x @ p['w'], params, [jnp.ones((4, 2))])
    >>> activation_importance(params, grams, symmetry=symmetry)['x'].tolist()
    [1.0, 4.0]

  Reference:
    The criterion of Sun et al., "A Simple and Effective Pruning Approach for
    Large Language Models" (Wanda), 2023, arXiv:2306.11695, squared and summed
    over the weights of a unit.
  """
  is_gram = lambda x: x is None or isinstance(x, types.Gram)
  found = tree.named(grams, is_leaf=is_gram)
  by_name = {name: gram for name, gram in found.items() if gram is not None}
  if not by_name:
    raise ValueError(
      'activation_importance: no leaf has a Gram matrix: give '
      'stats.gram(apply_fn, params, batches)'
    )
  align.check_leaves(
    symmetry, tree.named(params), 'activation_importance: params'
  )
  leaves = tree.named(params)
  for name in by_name:
    if name not in leaves:
      raise ValueError(
        f"activation_importance: grams names '{name}', which params do not "
        f'have{tree.nearest(name, list(leaves))}'
      )
  # With W scaled to diag(sqrt(E h^2)) W, the squared norm of row i is
  # E[h_i^2] |W_i|^2 = E |h_i W_i|^2: the gain of the map with itself.
  scaled = {
    name: tree.apply_kernel(
      _scale_inputs, leaves[name], gram.matrix, axes=tree.Static(gram.axes)
    )
    for name, gram in by_name.items()
  }
  axes = {name: gram.axes for name, gram in by_name.items()}
  readers = _readers(symmetry, axes)
  gains = align.unit_gains(scaled, scaled, symmetry=readers)
  return {
    group.name: gains[group.name]
    if group.name in gains
    else jnp.zeros(symmetry.table_shape(group.name))
    for group in symmetry.groups
  }


def _scale_inputs(
  x: types.Array, matrix: types.Array, *, axes: tuple[int, ...]
) -> types.Array:
  """Multiplies a map by the root mean square of each of its inputs."""
  x = tree.wide(x)
  groups, d, _ = matrix.shape
  front = jnp.moveaxis(x, axes, range(len(axes)))
  if d != math.prod(front.shape[: len(axes)]):
    raise ValueError(
      f'activation_importance: a Gram matrix of {d} inputs, but its leaf has '
      f'shape {x.shape} and input axes {axes}: measure it on this model'
    )
  # The outputs in stored order are `groups` equal blocks, each with inputs of
  # its own (see stats.gram).
  second = jnp.diagonal(tree.wide(matrix), axis1=-2, axis2=-1).astype(x.dtype)
  rms = jnp.sqrt(jnp.maximum(second, 0)).T[:, :, None]
  rows = front.reshape(d, groups, -1) * rms
  return jnp.moveaxis(rows.reshape(front.shape), range(len(axes)), axes)


def _readers(
  symmetry: align.Symmetry, inputs: dict[str, Sequence[int]]
) -> align.Symmetry:
  """Returns the symmetry of maps, with the groups of their inputs alone.

  The axes of outputs are pinned, so that a group does not count the maps that
  compute it; except for outer factors, by which the inputs' tables are indexed.
  """
  factors = dict(symmetry.factor)
  leaves, kept = [], set()
  for name, axes in inputs.items():
    plan = symmetry.plan(name)
    outer = {
      other for i in axes for seg in plan[i] for f in seg for other in f.outer
    }
    named: list[Any] = []
    for i, axis in enumerate(symmetry.leaf[name]):
      names = {f for segment in axis for f in segment}
      if i in axes or names & outer:
        named.append(axis)
        kept.add((name, i))
        continue
      size = sum(math.prod(f.size for f in segment) for segment in plan[i])
      pinned = align.Factor(f'{name}:{i} (output)', size, 'an output')
      factors[pinned.name] = pinned
      named.append(((pinned.name,),))
    leaves.append((name, tuple(named)))
  used = {f for _, leaf in leaves for axis in leaf for seg in axis for f in seg}
  return dataclasses.replace(
    symmetry,
    factors=tuple(f for f in factors.values() if f.name in used),
    axes=tuple(leaves),
    interleaved=tuple(r for r in symmetry.interleaved if r[:2] in kept),
  )
