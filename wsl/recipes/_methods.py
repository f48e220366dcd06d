"""mergekit's methods, each at mergekit's definition by functions of ``merge``.

A method merges trees ``{name: tensor}`` of one shape for each name. Every norm,
angle and rank is that of one tensor (``scope='leaf'``).
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any, NamedTuple

import numpy as np

from wsl import deltas, merge, tree, types

NEEDED: Any = ...  # stands for the default of a parameter that has none


class Arguments(NamedTuple):
  """The values of a method's parameters for some tensors.

  Attributes:
    shared: by name.
    each: by name, one value for each input (without the base, if it has a
      role of its own).
    key: for methods that draw random numbers.
  """

  shared: Mapping[str, Any]
  each: Mapping[str, tuple[Any, ...]]
  key: types.PRNGKey | None


class Method(NamedTuple):
  """A method of mergekit.

  Attributes:
    merge: maps (base, the other models, arguments) to the merged model.
    shared: the default of each parameter for all inputs.
    each: the default of each parameter that inputs have of their own.
    base: ``'needed'``, ``'optional'``, or ``'input'``: it is one more input.
    inputs: the least and the greatest number of inputs, the base among them.
  """

  merge: Callable[[types.Params, Sequence[types.Params], Arguments], Any]
  shared: Mapping[str, Any] = {}
  each: Mapping[str, Any] = {}
  base: str = 'needed'
  inputs: tuple[int, int | None] = (1, None)


def _linear(
  base: types.Params, models: Sequence[types.Params], given: Arguments
) -> types.Params:
  """Sums models by weights; the sum is divided by that of the weights."""
  stack, weights = tree.stack(models), given.each['weight']
  if not given.shared['normalize']:
    return merge.sum(stack, weights=weights)
  if not np.sum(weights):
    raise ValueError(f'linear: the weights {weights} sum to 0: change them')
  return merge.weighted_mean(stack, np.asarray(weights))


def _slerp(
  base: types.Params, models: Sequence[types.Params], given: Arguments
) -> types.Params:
  """Interpolates from the base to the other model along a great circle."""
  t = given.shared['t']
  return merge.slerp(base, models[0], t=t, lerp_above=0.9995)


def _passthrough(
  base: types.Params, models: Sequence[types.Params], given: Arguments
) -> types.Params:
  """Copies one model, or multiplies it by a scale."""
  (scale,) = given.each['scale']
  if scale is None:
    return models[0]
  return merge.sum(tree.stack(models), weights=[scale])


Edit = Callable[[types.Deltas, Arguments], types.Deltas]


def _arithmetic(
  base: types.Params,
  models: Sequence[types.Params],
  given: Arguments,
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


def _keep_all(taus: types.Deltas, given: Arguments) -> types.Deltas:
  return taus


def _trim(taus: types.Deltas, given: Arguments) -> types.Deltas:
  """Keeps the largest entries of each tensor."""
  _check_rescale('ties', given)
  density = _density(given)
  kept = merge.trim(taus, density=_positive(density), scope='leaf')
  return _drop_models(kept, density)


def _dare(taus: types.Deltas, given: Arguments) -> types.Deltas:
  """Keeps entries at random; rescaled to the L1 norm of the tensor."""
  rescale = 'l1' if given.shared['rescale'] else 'none'
  rate = 1 - _density(given)
  return merge.dare(taus, rate=rate, rescale=rescale, key=_key(given))


def _breadcrumbs(taus: types.Deltas, given: Arguments) -> types.Deltas:
  """Drops the largest and the smallest entries of each tensor."""
  _check_rescale('breadcrumbs', given)
  density = _density(given)
  # mergekit lowers the share of outliers where too few entries would be left,
  # and drops none at density 1.
  outliers = np.minimum(np.asarray(given.each['gamma']), 1 - density)
  kept = merge.breadcrumbs(
    taus, density=_positive(density), outliers=outliers, scope='leaf'
  )
  return _drop_models(kept, density)


def _key(given: Arguments) -> types.PRNGKey:
  if given.key is None:
    raise ValueError('it draws random numbers: give a key')
  return given.key


def _density(given: Arguments) -> np.ndarray:
  """Returns the fraction of entries kept of each model, 0 .. 1."""
  return np.clip(np.asarray(given.each['density'], np.float64), 0, 1)


def _positive(density: np.ndarray) -> np.ndarray:
  """Replaces 0, which no edit by rank accepts: such a model is dropped."""
  return np.where(density > 0, density, 1.0)


def _drop_models(taus: types.Deltas, density: np.ndarray) -> types.Deltas:
  """Zeroes the task vectors of models of density 0."""
  if np.all(density > 0):
    return taus
  return tree.map(_zero_models, taus, kept=(density > 0).astype(np.float32))


def _zero_models(x: types.Array, *, kept: types.Array) -> types.Array:
  shape = kept.shape + (1,) * (x.ndim - 1)
  return x * kept.astype(x.dtype).reshape(shape)


def _check_rescale(name: str, given: Arguments) -> None:
  if given.shared['rescale']:
    raise ValueError(f'{name}: rescale: true is not supported: take it out')


def _arithmetics() -> dict[str, Method]:
  """Returns task arithmetic by its edit of task vectors, and sign election."""
  family: dict[str, tuple[Edit, bool, bool, bool, dict[str, Any]]] = {
    'task_arithmetic': (_keep_all, False, False, False, {}),
    'ties': (_trim, True, True, False, {}),
    'dare_linear': (_dare, False, False, True, {}),
    'dare_ties': (_dare, True, False, True, {}),
    'breadcrumbs': (_breadcrumbs, False, False, False, {'gamma': 0.01}),
    'breadcrumbs_ties': (_breadcrumbs, True, False, False, {'gamma': 0.01}),
  }
  found = {}
  for name, (edit, elects, normalize, rescale, more) in family.items():
    shared = {
      'normalize': normalize,
      'rescale': rescale,
      'lambda': 1.0,
      'int8_mask': False,  # changes temporary arrays of mergekit only
    }
    found[name] = Method(
      functools.partial(_arithmetic, edit=edit, elects=elects),
      shared,
      {'weight': NEEDED, 'density': 1.0, **more},
    )
  return found


METHODS: dict[str, Method] = {
  'linear': Method(
    _linear, {'normalize': True}, {'weight': NEEDED}, base='input'
  ),
  'slerp': Method(_slerp, {'t': NEEDED}, inputs=(2, 2)),
  'passthrough': Method(_passthrough, {}, {'scale': None}, 'input', (1, 1)),
  **_arithmetics(),
}


def find(name: str) -> Method:
  """Returns a method by mergekit's name.

  Raises:
    ValueError: if it is unknown, with the nearest name.

  Example:
    >>> find('slerp').inputs
    (2, 2)
  """
  if name not in METHODS:
    hint = tree.nearest(name, sorted(METHODS))
    raise ValueError(
      f"merge_method: no '{name}'{hint}: there are {', '.join(METHODS)}"
    )
  return METHODS[name]


def known_parameters() -> set[str]:
  """Returns the names of the parameters of all methods."""
  return {
    name
    for method in METHODS.values()
    for name in (*method.shared, *method.each)
  }
