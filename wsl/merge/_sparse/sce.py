"""SCE: select entries by variance, weigh models by energy, elect signs."""

from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _per_leaf, _stack


@deltas_lib.on_stacks
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
  selects = _per_leaf.number_at_leaves('sce', 'select', select, deltas, check)
  leaves, treedef = jax.tree.flatten(deltas)
  shares = [_known(select) for select in jax.tree.leaves(selects)]
  least = _least(leaves, shares)
  merged = [
    tree.apply_kernel(_sce, x, *given, select=select)
    for x, select, given in zip(leaves, shares, least)
  ]
  return jax.tree.unflatten(treedef, merged)


def _known(select: Any) -> Any:
  """Returns None for a fraction that is known to keep all entries."""
  every = not isinstance(select, jax.core.Tracer) and select >= 1
  return None if every else select


def _least(leaves: Sequence[Any], selects: Sequence[Any]) -> list[Any]:
  """Returns the variances and the least one kept, of each leaf in a trace.

  They are found by one search for all leaves. Other leaves find them on their
  own, when they are merged, and those that are kept as a whole need none.
  """
  found: list[Any] = [()] * len(leaves)
  searched = [
    i
    for i, (x, select) in enumerate(zip(leaves, selects))
    if tree.is_traced(x) and select is not None and x.size
  ]
  variances, counts = [], []
  for i in searched:
    variance = tree.read(tree.apply_kernel(_variance, leaves[i]))
    variances.append(variance[None])
    counts.append(tree.apply_kernel(_count, variance, select=selects[i]))
  ranks = [jnp.maximum(count, 1)[None, None] for count in counts]
  rows = tree.kth_in_leaves(variances, ranks)
  for i, variance, count, row in zip(searched, variances, counts, rows):
    found[i] = (variance[0], row[0, 0], count)
  return found


def _variance(x: types.Array) -> types.Array:
  """Returns the variance of each entry of a leaf over the models, ``[...]``."""
  tau = tree.wide(x)
  mean = _stack.sum_models(tau) / len(tau)
  squares = _stack.map_models(lambda y: jnp.square(y - mean), tau)
  return _stack.sum_models(squares) / len(tau)


def _count(variance: types.Array, *, select: Any) -> types.Array:
  """Returns the number of entries that are kept."""
  varies = jnp.sum(variance != 0, dtype=np.int32).astype(variance.dtype)
  select = jnp.asarray(select).astype(variance.dtype)
  return jnp.floor(varies * select).astype(np.int32)


def _sce(x: types.Array, *least: types.Array, select: Any) -> types.Array:
  """Merges one leaf ``[T, ...]``, given what ``_least`` returns for it."""
  tau = _selected(tree.wide(x), least, select)
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


def _selected(
  tau: types.Array, least: Sequence[types.Array], select: Any
) -> types.Array:
  """Zeroes all but the entries of largest variance over the models."""
  if select is None or not tau.size:
    return tau
  if not least:
    variance = _variance(tau)
    count = _count(variance, select=select)
    ranks = jnp.maximum(count, 1)
    kth = tree.kth_magnitude({'variance': variance[None]}, ranks)[0]
    least = variance, kth, count
  variance, kth, count = least
  # The programs that search and that compare may round a variance differently,
  # by a fused multiply and add: one that is as near as that equals the k-th.
  size = _stack.max_models(jnp.abs(tau))
  near = 8 * jnp.finfo(tau.dtype).eps * (kth + jnp.sqrt(kth) * size)
  mask = (variance != 0) & (variance >= kth - near) & (count > 0)
  mask = mask | (jnp.asarray(select) >= 1)
  return jnp.where(mask[None], tau, jnp.zeros_like(tau))
