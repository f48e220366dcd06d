"""RAM: entries that one model changed are kept whole, shared ones averaged."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _per_leaf, _stack

# Zeros are below every threshold.
_ENTRIES = tree.Entries(lead=1, neutral=0.0)


@deltas_lib.on_stacks
def ram(deltas: types.Deltas, *, threshold: Any = 1e-5) -> types.Delta:
  r"""Averages each entry over the models that changed it.

  .. math:: \tau_p = \frac{1}{\max(1, n_p)} \sum_{t: |\tau_{t,p}| > \epsilon}
    \tau_{t,p}, \qquad n_p = |\{t : |\tau_{t,p}| > \epsilon\}|

  So an entry that one model alone changed is not divided by T.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    threshold: epsilon ``>= 0``: a number, or one for each leaf, as in
      ``tree.scalars``; may be traced.

  Returns:
    The merged task vector, every leaf ``[...]``.

  Raises:
    ValueError: if ``threshold`` is an array or negative, or does not fit the
      leaves.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0, 0.0, 4.0], [0.0, 0.0, 2.0]])}
    >>> ram(deltas)['w'].tolist()
    [1.0, 0.0, 3.0]

  Reference:
    "Reinforced Agent Merging", 2026, arXiv:2601.13572; mergekit 0.1.5, method
    ``ram``.

  Equals mergekit 0.1.5.
  """
  _stack.count('ram', deltas)
  bounds = _per_leaf.number_at_leaves(
    'ram', 'threshold', threshold, deltas, _checks.at_least_zero
  )
  merge = lambda x, bound: tree.apply_kernel(_ram, x, threshold=bound)
  return _stack.fuse(deltas, lambda x: jax.tree.map(merge, x, bounds))


@deltas_lib.on_stacks
def ram_plus(
  deltas: types.Deltas,
  *,
  rate: Any = 0.1,
  limit: Any = 0.2,
  threshold: Any = 1e-5,
  scope: str = 'leaf',
) -> types.Delta:
  r"""Averages shared entries as ``ram``, and amplifies those of one model.

  The entries that model t alone changed are multiplied by

  .. math:: 1 + r \min(\rho_t, \alpha), \qquad
    \rho_t = \frac{|\{p : t \text{ and others changed } p\}|}
      {\max(|\{p : t \text{ alone changed } p\}|, \epsilon)}

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    rate: r, a number, or in scope ``'leaf'`` one for each leaf, as in
      ``tree.scalars``; may be traced.
    limit: alpha ``>= 0``, in the forms of ``rate``.
    threshold: epsilon ``>= 0``, in the forms of ``rate``.
    scope: ``'leaf'`` counts entries in each leaf (mergekit's ``ramplus_tl``),
      ``'global'`` over the whole model (the paper).

  Returns:
    The merged task vector, every leaf ``[...]``.

  Raises:
    ValueError: if a number is an array or negative, or ``scope`` is unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0, 0.0, 4.0], [0.0, 0.0, 2.0]])}
    >>> [round(x, 2) for x in ram_plus(deltas, limit=1.0)['w'].tolist()]
    [1.1, 0.0, 3.0]

  Reference:
    As ``ram``.

  Differs from mergekit, which computes rho in float32.
  """
  models = _stack.count('ram_plus', deltas)
  hyper = {'rate': rate, 'limit': limit, 'threshold': threshold}
  _per_leaf.one_scope('ram_plus', scope, **hyper)
  at_leaf = {
    name: _per_leaf.number_at_leaves('ram_plus', name, value, deltas)
    for name, value in hyper.items()
  }
  for name in ('limit', 'threshold'):
    check = functools.partial(_checks.at_least_zero, 'ram_plus', name)
    _per_leaf.check_each(at_leaf[name], check)

  def leaf() -> types.Delta:
    merge = lambda x, *values: tree.apply_kernel(
      _ram_plus_leaf, x, **dict(zip(at_leaf, values))
    )
    each = at_leaf.values()
    return _stack.fuse(deltas, lambda x: jax.tree.map(merge, x, *each))

  def everywhere() -> types.Delta:
    counts = tree.statistic(
      lambda: tree.total(
        _counts, deltas, entries=_ENTRIES, threshold=threshold
      ),
      deltas,
      shape=(2, models),
      dtype=np.float64,
    )
    return tree.map(_ram_plus, deltas, counts=counts, **hyper)

  scopes = {'leaf': leaf, 'global': everywhere}
  return _checks.choose('ram_plus: scope', scope, scopes)()


def _changed(
  x: types.Array, threshold: Any
) -> tuple[types.Array, types.Array, types.Array]:
  """Returns ``[T, ...]`` with small entries zero, what is left, and n_p."""
  wide = tree.wide(x)
  bound = jnp.asarray(threshold).astype(wide.real.dtype)
  active = _stack.map_models(lambda y: jnp.abs(y) > bound, wide)
  kept = _stack.map_models(
    lambda y, on: jnp.where(on, y, jnp.zeros_like(y)), wide, active
  )
  number = _stack.map_models(lambda on: on.astype(bound.dtype), active)
  return kept, active, _stack.sum_models(number)


def _ram(x: types.Array, *, threshold: Any) -> types.Array:
  """Averages one leaf over the models that changed an entry."""
  kept, _, number = _changed(x, threshold)
  total = _stack.sum_models(kept)
  return (total / jnp.maximum(number, 1).astype(total.dtype)).astype(x.dtype)


def _counts(x: types.Array, *, threshold: Any) -> types.Array:
  """Counts the shared entries and those of one model, ``[2, T]``."""
  _, active, number = _changed(x, threshold)
  # Counts in the wide dtype: int32 overflows for models above 2^31 entries.
  some = lambda mask: tree.sum_entries(
    (active & mask[None]).astype(number.dtype)
  )
  return jnp.stack([some(number > 1), some(number == 1)])


def _ram_plus_leaf(x: types.Array, *, threshold: Any, **hyper: Any) -> Any:
  """Merges one leaf by its own counts."""
  counts = _counts(x, threshold=threshold)
  return _ram_plus(x, counts=counts, threshold=threshold, **hyper)


def _ram_plus(
  x: types.Array, *, counts: types.Array, rate: Any, limit: Any, threshold: Any
) -> types.Array:
  """Averages shared entries of one leaf and amplifies those of one model."""
  kept, _, number = _changed(x, threshold)
  rate, limit, bound = (
    jnp.asarray(v).astype(number.dtype) for v in (rate, limit, threshold)
  )
  shared, unique = counts.astype(number.dtype)
  factor = 1 + rate * jnp.minimum(shared / jnp.maximum(unique, bound), limit)
  alone = number == 1
  weigh = lambda k, f: jnp.where(alone, f, 1).astype(k.dtype) * k
  total = _stack.sum_models(_stack.map_models(weigh, kept, factor))
  return (total / jnp.maximum(number, 1).astype(total.dtype)).astype(x.dtype)
