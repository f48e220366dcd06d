"""mergekit's methods, each at mergekit's definition by functions of ``merge``.

A method merges trees ``{name: tensor}`` of one shape for each name. Every norm,
angle and rank is that of one tensor (``scope='leaf'``).
"""

from collections.abc import Callable, Sequence
import functools

import numpy as np

from wsl import deltas, merge, tree, types
from wsl.recipes._method import arguments, arithmetic


def _linear(
  base: types.Params,
  models: Sequence[types.Params],
  given: arguments.Arguments,
) -> types.Params:
  """Sums models by weights; the sum is divided by that of the weights."""
  stack, weights = tree.stack(models), given.each['weight']
  if not given.shared['normalize']:
    return merge.sum(stack, weights=weights)
  if not np.sum(weights):
    raise ValueError(f'linear: the weights {weights} sum to 0: change them')
  return merge.weighted_mean(stack, np.asarray(weights))


def _slerp(
  base: types.Params,
  models: Sequence[types.Params],
  given: arguments.Arguments,
) -> types.Params:
  """Interpolates from the base to the other model along a great circle."""
  t = given.shared['t']
  return merge.slerp(base, models[0], t=t, lerp_above=0.9995)


def _passthrough(
  base: types.Params,
  models: Sequence[types.Params],
  given: arguments.Arguments,
) -> types.Params:
  """Copies one model, or multiplies it by a scale."""
  (scale,) = given.each['scale']
  if scale is None:
    return models[0]
  return merge.passthrough(models[0], scale=scale)


def _nuslerp(
  base: types.Params,
  models: Sequence[types.Params],
  given: arguments.Arguments,
) -> types.Params:
  """Interpolates two models, or their task vectors, along great circles."""
  first, second = given.each['weight']
  total = first + second
  t = 0.5 if abs(total) < 1e-6 else second / total
  along = 0 if given.shared['nuslerp_row_wise'] else -1
  axis = None if given.shared['nuslerp_flatten'] else along
  return merge.nuslerp(models[0], models[1], t=t, base=base, axis=axis)


def _multislerp(
  base: types.Params,
  models: Sequence[types.Params],
  given: arguments.Arguments,
) -> types.Params:
  """Averages models, or their task vectors, in one tangent space."""
  return merge.multislerp(
    models,
    weights=given.each['weight'],
    base=base,
    normalize=given.shared['normalize_weights'],
    eps=given.shared['eps'],
  )


def _karcher(
  base: types.Params,
  models: Sequence[types.Params],
  given: arguments.Arguments,
) -> types.Params:
  """Averages models on the sphere."""
  return merge.karcher(
    models,
    steps=int(given.shared['max_iter']),
    tolerance=given.shared['tol'],
  )


def _nearswap(
  base: types.Params,
  models: Sequence[types.Params],
  given: arguments.Arguments,
) -> types.Params:
  """Moves the base towards the other model where they are near."""
  return merge.nearswap(base, models[0], t=given.shared['t'])


def _arcee_fusion(
  base: types.Params,
  models: Sequence[types.Params],
  given: arguments.Arguments,
) -> types.Params:
  """Takes the important entries of the other model."""
  return merge.arcee_fusion(base, models[0])


def _add(
  base: types.Params,
  models: Sequence[types.Params],
  given: arguments.Arguments,
  *,
  merged: Callable[[types.Deltas, arguments.Arguments], types.Delta],
) -> types.Params:
  """Adds merged task vectors to the base, if there are any."""
  if not models:
    return base
  return deltas.apply(base, merged(deltas.stack(base, models), given))


def _model_stock(taus: types.Deltas, given: arguments.Arguments) -> types.Delta:
  """Averages task vectors and scales the mean by their angle."""
  axis = -1 if given.shared['filter_wise'] else None
  return merge.model_stock(taus, axis=axis, dialect='mergekit')


def _sce(taus: types.Deltas, given: arguments.Arguments) -> types.Delta:
  """Merges the entries of largest variance by the models' energies."""
  return merge.sce(taus, select=min(max(given.shared['select_topk'], 0.0), 1.0))


def _ram(taus: types.Deltas, given: arguments.Arguments) -> types.Delta:
  """Averages entries over the models that changed them."""
  return merge.ram(taus, threshold=given.shared['epsilon'])


def _ram_plus(taus: types.Deltas, given: arguments.Arguments) -> types.Delta:
  """Averages shared entries and amplifies those of one model."""
  return merge.ram_plus(
    taus,
    rate=given.shared['r'],
    limit=given.shared['alpha'],
    threshold=given.shared['epsilon'],
  )


METHODS: dict[str, arguments.Method] = {
  'linear': arguments.Method(
    _linear, {'normalize': True}, {'weight': arguments.NEEDED}, base='input'
  ),
  'slerp': arguments.Method(_slerp, {'t': arguments.NEEDED}, inputs=(2, 2)),
  'passthrough': arguments.Method(
    _passthrough, {}, {'scale': None}, 'input', (1, 1)
  ),
  'nuslerp': arguments.Method(
    _nuslerp,
    {'nuslerp_flatten': True, 'nuslerp_row_wise': False},
    {'weight': arguments.NEEDED},
    'optional',
    (2, 3),
  ),
  'multislerp': arguments.Method(
    _multislerp,
    {'normalize_weights': True, 'eps': 1e-8},
    {'weight': arguments.NEEDED},
    'optional',
  ),
  'karcher': arguments.Method(
    _karcher, {'max_iter': 10, 'tol': 1e-5}, {}, 'input'
  ),
  'nearswap': arguments.Method(
    _nearswap, {'t': arguments.NEEDED}, inputs=(2, 2)
  ),
  'arcee_fusion': arguments.Method(_arcee_fusion, inputs=(2, 2)),
  'model_stock': arguments.Method(
    functools.partial(_add, merged=_model_stock),
    {'filter_wise': False},
    inputs=(3, None),
  ),
  'sce': arguments.Method(
    functools.partial(_add, merged=_sce),
    {'select_topk': 1.0, 'int8_mask': False},
  ),
  'ram': arguments.Method(
    functools.partial(_add, merged=_ram), {'epsilon': 1e-5}
  ),
  'ramplus_tl': arguments.Method(
    functools.partial(_add, merged=_ram_plus),
    {'r': 0.1, 'alpha': 0.2, 'epsilon': 1e-5},
  ),
  **arithmetic.arithmetics(),
}


def find(name: str) -> arguments.Method:
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
