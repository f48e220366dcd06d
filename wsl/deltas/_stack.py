"""From models to task vectors."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.deltas import _check, _unmatched

_RULES = ('error', 'base', 'zero')


def stack(
  base: types.Params,
  models: Sequence[types.Params],
  *,
  dtype: Any = None,
  unmatched: str = 'error',
) -> types.Deltas:
  r"""Subtracts the base from T models and stacks the differences.

  .. math:: \tau_t = \theta_t - \theta_0

  Models without a common base are merged with any of them in its place: a merge
  whose weights sum to one (``mean``, ``weighted_mean``, ``fisher``,
  ``regmean``, ``metric_weighted``) does not depend on the base.

  Args:
    base: the model that the others were trained from, leaves ``[...]``.
    models: T >= 1 models of the base's structure, shapes and dtypes.
    dtype: the dtype of the task vectors; float32, or the base's dtype if that
      is wider, by default. If it is given, the models' floats may be of other
      dtypes than the base's.
    unmatched: what becomes of a leaf that a model lacks or has in another shape
      (a head, a larger vocabulary): ``'error'``; ``'base'``, no task vector for
      any model, so that ``apply`` keeps the base's leaf; ``'zero'``, zeros for
      that model. With the last two, leaves that the base lacks are dropped, and
      names may be dotted or nested; ``deltas.unmatched`` lists all of them.

  Returns:
    Task vectors, leaves ``[T, ...]``; ``None`` at integer leaves. The stack of
    a leaf on demand is on demand.

  Raises:
    ValueError: if there is no model, or a model differs from the base in
      structure, shape, dtype or integers, or contains NaN or inf, or the
      factors of a LoRA; the message names the leaf. (Values are not checked in
      a trace, nor on demand: ``checkpoint.load`` checks those when it reads
      them.)

  Example:
    >>> import jax.numpy as jnp
    >>> base = {'w': jnp.ones(2)}
    >>> stack(base, [{'w': jnp.asarray([1.0, 3.0])}])['w'].tolist()
    [[0.0, 2.0]]
  """
  if isinstance(models, Mapping):
    raise ValueError(
      f'stack: the models are a {type(models).__name__}, expected a list: give '
      '[model] for one, list(models.values()) for many'
    )
  models = list(models)
  if not models:
    raise ValueError('stack: no models given, at least one is needed')
  if unmatched not in _RULES:
    raise ValueError(
      f'stack(unmatched={unmatched!r}): expected one of {_RULES}'
    )
  kept: set[str] = set()
  if unmatched != 'error':
    models, some, every = _unmatched.fill(base, models)
    kept = some if unmatched == 'base' else every
  base, *models = _check.check(
    'stack',
    {'base': base} | {f'model {t}': m for t, m in enumerate(models)},
    mixed_dtypes=dtype is not None,
  )
  hyper = tree.output_dtype('stack', base, dtype)

  def difference(name: str, x: Any, *rest: Any) -> Any:
    if name in kept or not tree.is_float(x):
      return None
    return tree.apply_kernel(_differences, x, *rest, **hyper)

  return tree.map_named(difference, base, *models)


def _differences(
  base: types.Array, *models: types.Array, dtype: np.dtype | None = None
) -> types.Array:
  """Stacks the differences of one leaf, in float32 or wider."""
  wide = tree.wide_dtype(base, *models)
  start = base.astype(wide)
  stack = jnp.stack([m.astype(wide) - start for m in models])
  return stack if dtype is None else stack.astype(dtype)
