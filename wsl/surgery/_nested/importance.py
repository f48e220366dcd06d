r"""Importance of units: of their weights, of the loss, of their activations.

Each is a table ``[*outer sizes, size]`` for every group, the form of a
permutation: a unit within a head has an importance of its own in each head.
"""

import jax
import jax.numpy as jnp

from wsl import align, tree, types


def weight_importance(
  params: types.Params,
  *,
  symmetry: align.Symmetry,
  power: int = 1,
  leaves: types.Leaves | None = None,
) -> dict[str, types.Array]:
  r"""Sums the magnitudes of the weights of each unit.

  .. math:: I_i = \sum_{W \ni i} \sum_{e \in W_i} |e|^p

  over the slices of all leaves that belong to unit i.

  Args:
    params: the model, leaves in memory or on demand.
    symmetry: its symmetry.
    power: p, 1 (Once-for-All) or 2.
    leaves: which leaves count, a regular expression or a predicate: only the
      maps that read the units, for example. ``None`` for all but running
      statistics of normalisation.

  Returns:
    For each group a table ``[*outer sizes, size]``, float32 or wider.

  Raises:
    ValueError: if the power is neither, or the model does not fit.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align, surgery
    >>> h = align.Factor('w:1', 2)
    >>> x = align.Factor('w:0', 2, 'an input')
    >>> symmetry = align.Symmetry((x, h), (('w', ((('w:0',),), (('w:1',),))),))
    >>> w = jnp.asarray([[1.0, -3.0], [0.5, 2.0]])
    >>> weight_importance({'w': w}, symmetry=symmetry)['w:1'].tolist()
    [1.5, 5.0]

  Reference:
    Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient
    Deployment", 2019, arXiv:1908.09791. Its code sums over the map that reads
    the channels alone: choose it with ``leaves``.
  """
  if power not in (1, 2):
    raise ValueError(f'weight_importance: power={power}, expected 1 or 2')
  # |e| = conj(e) sign(e), also for complex weights.
  other = params if power == 2 else tree.map(jnp.sign, params)
  return _gains(params, other, symmetry, leaves)


def gradient_importance(
  params: types.Params,
  gradients: types.Params,
  *,
  symmetry: align.Symmetry,
  leaves: types.Leaves | None = None,
) -> dict[str, types.Array]:
  r"""Estimates the change of the loss if a unit's weights are set to zero.

  .. math:: I_i = \Big| \sum_{W \ni i} \sum_{e \in W_i}
    e\,\frac{\partial L}{\partial e} \Big|

  the first order of the Taylor series in the weights of the unit. At a minimum
  the gradient of the mean loss vanishes, and the table is noise: average tables
  of single examples or of small batches.

  Args:
    params: the model.
    gradients: the gradient of the loss on some data, of the model's structure.
    symmetry: the symmetry of the model.
    leaves: as in ``weight_importance``. With the maps that read the units
      alone, the sum is :math:`\mathrm{E}[h_i\,\partial L / \partial h_i]`, the
      derivative of the loss in a gate on the unit.

  Returns:
    For each group a table ``[*outer sizes, size]``, float32 or wider.

  Raises:
    ValueError: if a tree does not fit the symmetry.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from wsl import align, surgery
    >>> h = align.Factor('w:0', 2)
    >>> symmetry = align.Symmetry((h,), (('w', ((('w:0',),),)),))
    >>> params = {'w': jnp.asarray([1.0, -2.0])}
    >>> slopes = jax.grad(lambda p: jnp.sum(p['w'] ** 2))(params)
    >>> gradient_importance(params, slopes, symmetry=symmetry)['w:0'].tolist()
    [2.0, 8.0]

  Reference:
    Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019,
    arXiv:1906.10771.
  """
  # With the weights of a unit scaled by 1 - t, dL/dt at t = 0 is minus the sum
  # of e dL/de: to first order the change of L from t = 0 to t = 1.
  found = _gains(params, gradients, symmetry, leaves)
  return {name: jnp.abs(table) for name, table in found.items()}


def fisher_importance(
  params: types.Params,
  fishers: types.Params,
  *,
  symmetry: align.Symmetry,
  leaves: types.Leaves | None = None,
) -> dict[str, types.Array]:
  r"""Estimates the change of the loss to second order, at a minimum.

  .. math:: I_i = \frac{1}{2} \sum_{W \ni i} \sum_{e \in W_i} F_e\,e^2

  with the Fisher diagonal in place of that of the Hessian.

  Args:
    params: the model.
    fishers: the Fisher diagonal, ``stats.fisher(...)``.
    symmetry: the symmetry of the model.
    leaves: as in ``weight_importance``.

  Returns:
    For each group a table ``[*outer sizes, size]``, float32 or wider.

  Raises:
    ValueError: if a tree does not fit the symmetry.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align, surgery
    >>> h = align.Factor('w:0', 2)
    >>> symmetry = align.Symmetry((h,), (('w', ((('w:0',),),)),))
    >>> params, fishers = {'w': jnp.ones(2)}, {'w': jnp.asarray([4.0, 6.0])}
    >>> fisher_importance(params, fishers, symmetry=symmetry)['w:0'].tolist()
    [2.0, 3.0]

  Reference:
    LeCun et al., "Optimal Brain Damage", 1989, equation 5, summed over units.
  """
  squares = tree.map(_square, params)
  found = _gains(squares, fishers, symmetry, leaves)
  return {name: table / 2 for name, table in found.items()}


def _square(x: types.Array) -> types.Array:
  """Squares a leaf in float32 or wider: float16 holds none above 256^2."""
  return tree.square(tree.wide(x))


def _gains(
  a: types.Params,
  b: types.Params,
  symmetry: align.Symmetry,
  leaves: types.Leaves | None,
) -> dict[str, types.Array]:
  """Sums the products of two trees over the slice of each unit."""
  if not any(map(tree.is_float, jax.tree.leaves(a))):
    raise ValueError(
      'importance: the model has no leaf of floats: quantised? dequantise first'
    )
  chosen = {} if leaves is None else {'leaves': leaves}
  return align.unit_gains(a, b, symmetry=symmetry, **chosen)
