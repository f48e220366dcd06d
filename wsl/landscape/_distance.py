"""How much of the distance between two models a permutation removes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.landscape import _interpolate


def l2_reduction(
  a: types.Params,
  b: types.Params,
  permuted: types.Params,
  *,
  leaves: types.Leaves | None = None,
) -> Any:
  r"""Returns the fraction of the distance to a that permuting b removes.

  .. math:: \rho = \frac{\|\theta_a - \theta_b\| - \|\theta_a - \pi\theta_b\|}
    {\|\theta_a - \theta_b\|}

  It is 1 where the permutation takes b onto a, and modest where the models were
  trained apart, also where the barrier between them all but vanishes.

  Args:
    a: a model, leaves ``[...]``.
    b: a model alike in names, shapes and dtypes.
    permuted: b after its permutation.
    leaves: which leaves count: a regular expression or a predicate on (name,
      shape), to leave out running moments; all if None. Integer leaves never
      do.

  Returns:
    A number, at most 1: float64 on the host, or traced. If a and b are equal,
    and nothing can be removed, 0.

  Raises:
    ValueError: naming the leaf in which the models differ.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'w': jnp.asarray([4.0, 1.0])}, {'w': jnp.asarray([0.0, 4.0])}
    >>> swapped = {'w': b['w'][::-1]}
    >>> float(l2_reduction(a, b, swapped))
    0.8

  Reference:
    Ito, Yamada and Kumagai, "Analysis of Linear Mode Connectivity via
    Permutation-Based Weight Matching", 2024, arXiv:2402.04051.
  """
  _interpolate.check_alike(a, b, name='l2_reduction')
  _interpolate.check_alike(a, permuted, name='l2_reduction')
  before, after = (_distance(a, other, leaves) for other in (b, permuted))
  traced = isinstance(before, jax.Array) or isinstance(after, jax.Array)
  where = jnp.where if traced else np.where
  apart = before > 0
  return where(apart, (before - after) / where(apart, before, 1.0), 0.0)


def _distance(
  a: types.Params, b: types.Params, leaves: types.Leaves | None
) -> Any:
  chosen = tree.select(a, leaves or (lambda name, shape: True))
  differences = jax.tree.map(_difference, a, b, chosen)
  return tree.norm(differences)


def _difference(x: Any, y: Any, chosen: bool) -> Any:
  if not chosen or not jnp.issubdtype(x.dtype, jnp.inexact):
    return None
  return tree.apply_kernel(_subtract, x, y)


def _subtract(x: types.Array, y: types.Array) -> types.Array:
  return tree.wide(x) - tree.wide(y)
