"""Reduction of the distance between two models by a permutation."""

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
  r"""Returns the relative reduction of the distance to a by permuting b.

  .. math:: \rho = \frac{\|\theta_a - \theta_b\| - \|\theta_a - \pi\theta_b\|}
    {\|\theta_a - \theta_b\|}

  It is 1 if the permutation maps b to a, and small between independently
  trained models, even where the permutation nearly removes the barrier.

  Args:
    a: a model, leaves ``[...]``.
    b: a model of the same names, shapes and dtypes.
    permuted: b after its permutation.
    leaves: which leaves to include: a regular expression or a predicate on
      (name, shape), for example to exclude running moments; all if None.
      Integer leaves are never included.

  Returns:
    A number, at most 1: float64 on the host, or traced. It is 0 if a and b are
    equal.

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
  b = _interpolate.check_alike(a, b, name='l2_reduction')
  permuted = _interpolate.check_alike(a, permuted, name='l2_reduction')
  before, after = (_distance(a, other, leaves) for other in (b, permuted))
  traced = isinstance(before, jax.Array) or isinstance(after, jax.Array)
  where = jnp.where if traced else np.where
  # Not tree.safe_divide: on the host the result stays a float64 of NumPy.
  differ = before > 0
  return where(differ, (before - after) / where(differ, before, 1.0), 0.0)


def _distance(
  a: types.Params, b: types.Params, leaves: types.Leaves | None
) -> Any:
  """Returns the norm of the difference over the chosen leaves."""
  chosen = tree.select(a, leaves or (lambda name, shape: True))
  differences = jax.tree.map(_difference, a, b, chosen)
  return tree.norm(differences)


def _difference(x: Any, y: Any, chosen: bool) -> Any:
  """Returns the difference of two leaves; None for leaves to skip."""
  if not chosen or not jnp.issubdtype(x.dtype, jnp.inexact):
    return None
  return tree.apply_kernel(_subtract, x, y)


def _subtract(x: types.Array, y: types.Array) -> types.Array:
  return tree.wide(x) - tree.wide(y)
