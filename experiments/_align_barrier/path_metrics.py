"""What is measured between two networks: on the line, and in their weights."""

from collections.abc import Callable
import functools
from typing import Any

import jax

from experiments._align_barrier import settings
from wsl import align, landscape, stats, tree, types


def lines(
  setting: settings.Setting, a: types.Params, b: types.Params, *, repaired: bool
) -> dict[str, Any]:
  """Walks from one network to another.

  Args:
    setting: what every stage needs.
    a: a network.
    b: another, permuted or not.
    repaired: whether to walk again with the statistics of each point corrected.

  Returns:
    ``plain`` and, if asked for, ``repaired``: ``t``, ``values`` and their
    heights ``above_mean`` and ``above_chord``, all lists and numbers.
  """
  found = {'plain': _heights(setting.walk(a, b))}
  if repaired:
    fix = _correction(setting, a, b)
    points = setting.config.repair.points
    found['repaired'] = _heights(
      landscape.path(
        setting.measure, a, b, points=points, edit=fix, traced=False
      )
    )
  return found


def _correction(
  setting: settings.Setting, a: types.Params, b: types.Params
) -> Callable[[types.Params, types.Array], types.Params]:
  """Returns what gives a point on the line the statistics it should have."""
  if setting.net.update_fn is not None:
    return lambda params, t: reset(setting, params)
  ends = [_moments(setting, model) for model in (a, b)]
  measure = functools.partial(_moments, setting)

  def correct(params: types.Params, t: types.Array) -> types.Params:
    weights = (1 - float(t), float(t))
    return align.repair(
      params, measure=measure, endpoints=ends, weights=weights
    )

  return correct


def reset(setting: settings.Setting, params: types.Params) -> types.Params:
  """Resets the running moments of batch normalisation."""
  assert setting.net.update_fn is not None
  moments = align.reset_batch_stats(
    jax.tree_util.Partial(setting.net.update_fn, params),
    params['batch_stats'],
    settings.statistics(setting),
  )
  return {**params, 'batch_stats': moments}


def geometry(
  setting: settings.Setting,
  a: types.Params,
  b: types.Params,
  moved: types.Params,
) -> dict[str, Any]:
  """Compares weights and activity.

  Args:
    setting: what every stage needs.
    a: a network.
    b: another.
    moved: the other, permuted.

  Returns:
    ``l2_reduction``; ``singular``, the alignment of each matrix of ``a`` and
    ``moved``; ``variance``, the ratio at each layer of their midpoint.
  """
  weights = lambda name, shape: name.startswith('params/')
  singular = landscape.singular_alignment(
    a, moved, threshold=setting.config.threshold
  )
  middle = landscape.interpolate(a, moved, 0.5)
  variances = [_variances(setting, p) for p in (middle, a, moved)]
  ratios = landscape.variance_ratio(*variances)
  return {
    'l2_reduction': float(landscape.l2_reduction(a, b, moved, leaves=weights)),
    'singular': _numbers(tree.named(singular.leaves)),
    'singular_mean': float(singular.mean),
    'variance': _numbers(tree.named(ratios)),
  }


def pick(stack: types.Tree, *place: int) -> types.Tree:
  """Returns one tree of a stack of them."""
  return jax.tree.map(lambda x: x[place], stack)


def _moments(setting: settings.Setting, params: types.Params) -> types.Tree:
  return stats.moments(
    setting.net.apply_fn, params, settings.statistics(setting)
  )


def _variances(setting: settings.Setting, params: types.Params) -> types.Tree:
  return jax.tree.map(
    lambda m: m.variance,
    _moments(setting, params),
    is_leaf=lambda x: isinstance(x, types.Moments),
  )


def _heights(path: landscape.Path) -> dict[str, Any]:
  rise = landscape.heights(path.values, t=path.t)
  return _numbers({**path._asdict(), **rise._asdict()})


def _numbers(found: types.Tree) -> Any:
  """Returns a tree of lists and numbers."""
  return jax.tree.map(lambda x: x.tolist(), found)
