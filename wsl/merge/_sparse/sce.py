"""SCE: select entries by variance, weigh models by energy, elect signs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.merge import _checks, _stack


def sce(deltas: types.Deltas, *, select: float = 1.0) -> types.Delta:
  r"""Merges the entries of largest variance by weights of the models' energy.

  Select keeps the fraction ``select`` of the entries with nonzero variance over
  the models that have the largest variance. Calculate weighs each model by its
  mean square, and Erase drops the entries that oppose the elected sign:

  .. math:: \tau_p = \frac{\sum_{t \in A_p} w_t \tau_{t,p}}
    {\max(\sum_{t \in A_p} w_t, 10^{-6})}, \qquad
    w_t = \frac{\operatorname{mean}_p \tau_{t,p}^2}
      {\sum_s \operatorname{mean}_p \tau_{s,p}^2}, \qquad
    A_p = \{t : \operatorname{sgn} \tau_{t,p} = \gamma_p\},

  with :math:`\gamma_p = 1` if :math:`\sum_t \tau_{t,p} \ge 0`, else -1; in each
  leaf.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    select: the fraction of entries that are kept, 0 .. 1: a number, or one for
      each leaf, as in ``tree.scalars``; may be traced.

  Returns:
    The merged task vector, every leaf ``[...]``. Weights are equal where the
    mean squares sum to less than 1e-6, which is the case for most fine-tuned
    models: an entry of 5e-4 has a square of 2.5e-7.

  Raises:
    ValueError: if ``select`` is out of range or an array, or a leaf is
      complex.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0, -3.0, 0.5], [1.0, 1.0, 0.2]])}
    >>> sce(deltas, select=0.5)['w'].tolist()
    [0.0, -3.0, 0.0]

  Reference:
    Wan et al., "FuseChat: Knowledge Fusion of Chat Models", 2024,
    arXiv:2408.07990; the definition is that of mergekit 0.1.5, method ``sce``.

  Differs from mergekit in keeping all entries equal to the smallest variance
  that is kept.
  """
  _stack.count('sce', deltas)
  tree.check_real('sce', deltas, 'complex numbers have no sign')
  check = functools.partial(
    _checks.fraction, meaning='select is the fraction kept'
  )
  selects = _checks.number_at_leaves('sce', 'select', select, deltas, check)
  merge = lambda x, select: tree.apply_kernel(_sce, x, select=select)
  return jax.tree.map(merge, deltas, selects)


def _sce(x: types.Array, *, select: Any) -> types.Array:
  """Merges one leaf ``[T, ...]``."""
  tau = _selected(tree.wide(x), select)
  energy = tree.sum_entries(jnp.square(tau)) / max(x[0].size, 1)
  total = jnp.sum(energy)
  tiny = total < 1e-6
  weights = jnp.where(tiny, 1 / len(x), energy / jnp.where(tiny, 1, total))
  sign = jnp.where(_stack.sum_models(tau) >= 0, 1, -1).astype(tau.dtype)
  agrees = _stack.map_models(lambda y: (y * sign > 0).astype(tau.dtype), tau)
  share = _stack.weigh(agrees, weights)
  merged = _stack.sum_models(_stack.map_models(jnp.multiply, share, tau))
  merged = merged / jnp.maximum(_stack.sum_models(share), 1e-6)
  return merged.astype(x.dtype)


def _selected(tau: types.Array, select: Any) -> types.Array:
  """Zeroes all but the entries of largest variance over the models."""
  mean = _stack.sum_models(tau) / len(tau)
  squares = _stack.map_models(lambda y: jnp.square(y - mean), tau)
  variance = _stack.sum_models(squares) / len(tau)
  varies = jnp.sum(variance != 0, dtype=np.int32)
  kept = jnp.floor(
    varies.astype(tau.dtype) * jnp.asarray(select).astype(tau.dtype)
  )
  kept = kept.astype(np.int32)
  if not tau.size:
    return tau
  least = tree.kth_magnitude(
    {'variance': variance[None]}, jnp.maximum(kept, 1)
  )[0]
  mask = tree.reaches(variance, least) & (kept > 0)
  mask = mask | (jnp.asarray(select) >= 1)
  return jnp.where(mask[None], tau, jnp.zeros_like(tau))
