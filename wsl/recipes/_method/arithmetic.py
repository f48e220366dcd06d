"""Task arithmetic of mergekit: edit task vectors, elect signs, add up."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import numpy as np

from wsl import deltas, merge, tree, types
from wsl.recipes._method import arguments

Edit = Callable[[types.Deltas, arguments.Arguments], types.Deltas]


def _arithmetic(
  base: types.Params,
  models: Sequence[types.Params],
  given: arguments.Arguments,
  *,
  edit: Edit,
  elects: bool,
) -> types.Params:
  """Adds edited task vectors to the base, with or without sign election."""
  if not models:
    return base
  edited = edit(deltas.stack(base, models), given)
  weights, coef = given.each['weight'], given.shared['lambda']
  normalize = given.shared['normalize']
  if elects:
    edited = merge.elect_sign(edited, dialect='mergekit', weights=weights)
  if elects and normalize:
    merged = merge.mean_nonzero(edited, weights=weights)
  else:
    merged = merge.sum(edited, weights=weights)
    total = float(np.sum(weights))
    coef = coef / total if normalize and abs(total) >= 1e-8 else coef
  return deltas.apply(base, merged, coef=coef)


def _keep_all(taus: types.Deltas, given: arguments.Arguments) -> types.Deltas:
  return taus


def _trim(taus: types.Deltas, given: arguments.Arguments) -> types.Deltas:
  """Keeps the largest entries of each tensor."""
  density = _density(given)
  kept = merge.trim(taus, density=_positive(density), scope='leaf')
  return _rescaled(_drop_models(kept, density), taus, given)


def _dare(taus: types.Deltas, given: arguments.Arguments) -> types.Deltas:
  """Keeps entries at random; rescaled to the L1 norm of the tensor."""
  rescale = 'l1' if given.shared['rescale'] else 'none'
  rate = 1 - _density(given)
  return merge.dare(taus, rate=rate, rescale=rescale, key=_key(given))


def _breadcrumbs(
  taus: types.Deltas, given: arguments.Arguments
) -> types.Deltas:
  """Drops the largest and the smallest entries of each tensor."""
  density = _density(given)
  # mergekit lowers the share of outliers where too few entries would be left,
  # and drops none at density 1.
  outliers = np.minimum(np.asarray(given.each['gamma']), 1 - density)
  outliers = np.where(density > 0, outliers, 0.0)
  kept = merge.breadcrumbs(
    taus, density=_positive(density), outliers=outliers, scope='leaf'
  )
  # Of a tensor of few entries, floor(density * entries) may be none.
  kept = tree.map_named(lambda _, x: _drop_leaf(x, density), kept)
  return _rescaled(kept, taus, given)


def _della(taus: types.Deltas, given: arguments.Arguments) -> types.Deltas:
  """Keeps entries at random, more often the larger ones of a row."""
  rescale = 'l1' if given.shared['rescale'] else 'none'
  density = _density(given)
  # All entries are kept at density 1, none at 0.
  inside = (density > 0) & (density < 1)
  epsilon = np.where(inside, np.asarray(given.each['epsilon']), 0.0)
  kept = merge.della(
    taus,
    density=_positive(density),
    epsilon=epsilon,
    rescale=rescale,
    key=_key(given),
  )
  return _drop_models(kept, density)


def _rescaled(
  edited: types.Deltas, taus: types.Deltas, given: arguments.Arguments
) -> types.Deltas:
  """Restores the L1 norms of tensors, if the recipe says so."""
  return merge.rescale(edited, taus) if given.shared['rescale'] else edited


def _key(given: arguments.Arguments) -> types.PRNGKey:
  if given.key is None:
    raise ValueError('it draws random numbers: give a key')
  return given.key


def _density(given: arguments.Arguments) -> np.ndarray:
  """Returns the fraction of entries kept of each model, 0 .. 1."""
  density = np.asarray(given.each['density'], np.float64)
  if (density < 0).any():
    raise ValueError(f'density={density.min():g}: expected numbers 0 .. 1')
  return np.minimum(density, 1)


def _positive(density: np.ndarray) -> np.ndarray:
  """Replaces 0, which no edit by rank accepts: such a model is dropped."""
  return np.where(density > 0, density, 1.0)


def _drop_models(taus: types.Deltas, density: np.ndarray) -> types.Deltas:
  """Zeroes the task vectors of models of density 0."""
  if np.all(density > 0):
    return taus
  return tree.map(_zero_models, taus, kept=(density > 0).astype(np.float32))


def _drop_leaf(x: types.Array, density: np.ndarray) -> types.Array:
  """Zeroes the models of which ``floor(density * entries)`` is zero."""
  kept = np.floor(density * (x.size // len(density))) > 0
  if np.all(kept):
    return x
  return tree.apply_kernel(_zero_models, x, kept=kept.astype(np.float32))


def _zero_models(x: types.Array, *, kept: types.Array) -> types.Array:
  shape = kept.shape + (1,) * (x.ndim - 1)
  return x * kept.astype(x.dtype).reshape(shape)


def arithmetics() -> dict[str, arguments.Method]:
  """Returns task arithmetic by its edit of task vectors, and sign election."""
  family: dict[str, tuple[Edit, bool, bool, bool, dict[str, Any]]] = {
    'task_arithmetic': (_keep_all, False, False, False, {}),
    'ties': (_trim, True, True, False, {}),
    'dare_linear': (_dare, False, False, True, {}),
    'dare_ties': (_dare, True, False, True, {}),
    'breadcrumbs': (_breadcrumbs, False, False, False, {'gamma': 0.01}),
    'breadcrumbs_ties': (_breadcrumbs, True, False, False, {'gamma': 0.01}),
    'della': (_della, True, True, True, {'epsilon': 0.15}),
    'della_linear': (_della, False, False, True, {'epsilon': 0.15}),
  }
  found = {}
  for name, (edit, elects, normalize, rescale, more) in family.items():
    shared = {
      'normalize': normalize,
      'rescale': rescale,
      'lambda': 1.0,
      'int8_mask': False,  # changes temporary arrays of mergekit only
    }
    found[name] = arguments.Method(
      functools.partial(_arithmetic, edit=edit, elects=elects),
      shared,
      {'weight': arguments.NEEDED, 'density': 1.0, **more},
    )
  return found
