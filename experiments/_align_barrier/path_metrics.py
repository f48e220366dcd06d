"""Measures between two networks: along the line, of weights, of activations."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._align_barrier import settings
from experiments._shared import gauge_frames, on_mesh
from wsl import align, landscape, mesh, stats, tree, types


def along_line(
  setting: settings.Setting, a: types.Params, b: types.Params, *, repaired: bool
) -> dict[str, Any]:
  """Measures loss and error along the line from one network to another.

  Args:
    setting: config, data and model.
    a: a network.
    b: another, permuted or not.
    repaired: whether to measure the line with corrected statistics too.

  Returns:
    ``plain`` and, if ``repaired``, that too: ``t``, ``values`` and their
    heights ``above_mean`` and ``above_chord``, all lists and numbers.
  """
  on_one = setting.mesh is None
  walked = setting.walk(a, b) if on_one else _mapped(setting, a, b)
  found = {'plain': _heights(walked)}
  if repaired:
    fix = _correction(setting, a, b)
    points = setting.config.repair.points
    found['repaired'] = _heights(
      landscape.path(
        setting.measure, a, b, points=points, edit=fix, traced=False
      )
    )
  return found


def _mapped(
  setting: settings.Setting, a: types.Params, b: types.Params
) -> landscape.Path:
  """Measures the points of the line as candidates of the mesh."""
  assert setting.mesh is not None
  t = np.linspace(0, 1, setting.config.points, dtype=np.float32)
  ends = on_mesh.shard((a, b), setting.mesh)
  fn = jax.tree_util.Partial(_at_point(setting.measure), ends)
  values = mesh.map_candidates(fn, t, mesh=setting.mesh)
  return landscape.Path(jnp.asarray(t), values)


# The same function for each pair: its program is compiled once.
@functools.lru_cache(maxsize=1)
def _at_point(
  measure: Callable[[types.Params], types.Tree],
) -> Callable[..., types.Tree]:
  """Returns the measure as a function of both ends and the point."""
  return lambda ends, t: measure(landscape.interpolate(ends[0], ends[1], t))


def _correction(
  setting: settings.Setting, a: types.Params, b: types.Params
) -> Callable[[types.Params, types.Array], types.Params]:
  """Returns the function that corrects the statistics of a point on the line.

  Without batch normalisation it is REPAIR: moments are interpolated between
  those of the end points.
  """
  if setting.net.update_fn is not None:
    return lambda params, t: reset(setting, params)
  ends = [_moments(setting, model) for model in (a, b)]
  measure = functools.partial(_moments, setting)

  def correct(params: types.Params, t: types.Array) -> types.Params:
    # REPAIR interpolates means and standard deviations between both ends.
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


def weights_and_activations(
  setting: settings.Setting,
  a: types.Params,
  b: types.Params,
  moved: types.Params,
) -> dict[str, Any]:
  """Compares the weights of two networks, and the activations of their mean.

  Args:
    setting: config, data and model.
    a: a network.
    b: another.
    moved: the other, permuted.

  Returns:
    ``l2_reduction``; ``apart`` of ``a`` and ``moved``; ``singular``, their
    alignment by matrix; ``variance``, the ratio of variances at each layer of
    the midpoint.
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
    'apart': gauge_frames.apart(a, moved),
    'singular': _numbers(tree.named(singular.leaves)),
    'singular_mean': float(singular.mean),
    'variance': _numbers(tree.named(ratios)),
  }


def _moments(setting: settings.Setting, params: types.Params) -> types.Tree:
  """Returns the moments of all activations on training images."""
  return stats.moments(
    setting.net.apply_fn, params, settings.statistics(setting)
  )


def _variances(setting: settings.Setting, params: types.Params) -> types.Tree:
  """Returns the variance of each channel of all activations."""
  return jax.tree.map(
    lambda m: m.variance,
    _moments(setting, params),
    is_leaf=lambda x: isinstance(x, types.Moments),
  )


def _heights(path: landscape.Path) -> dict[str, Any]:
  """Returns a path and its heights as lists."""
  rise = landscape.heights(path.values, t=path.t)
  return _numbers({**path._asdict(), **rise._asdict()})


def _numbers(found: types.Tree) -> Any:
  """Converts the arrays of a tree to lists and numbers."""
  return jax.tree.map(lambda x: x.tolist(), found)
