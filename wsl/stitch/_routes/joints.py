"""Joints, where a route changes networks, and the feature moments there."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax

from wsl import batches as batches_lib
from wsl import stats, tree, types
from wsl.stitch import _resize, _segmented
from wsl.stitch._routes import routing


class Joint(NamedTuple):
  """A change of networks in a route.

  Attributes:
    source: the network before it.
    stop: the position in ``source`` at which the route leaves it.
    target: the network after it.
    start: the position in ``target`` at which the route enters it.
  """

  source: str
  stop: int
  target: str
  start: int


def joints(route: routing.Route) -> tuple[Joint, ...]:
  """Returns the joints of a route, one for each adapter."""
  return tuple(
    Joint(a.model, a.stop, b.model, b.start)
    for a, b in itertools.pairwise(route.pieces)
  )


def joint_moments(
  models: Mapping[str, _segmented.Segmented],
  routes: Sequence[routing.Route],
  batches: Iterable[Any],
) -> dict[Joint, types.CrossMoments]:
  """Computes the cross moments of the features on both sides of each joint.

  One pass: each batch runs once through each network, whatever the number of
  routes, and its features are then discarded.

  Args:
    models: networks by name.
    routes: routes over them.
    batches: inputs, or tuples ``(inputs, ...)``; labels are not used.

  Returns:
    Moments for each joint. x are the source's features, resized if their middle
    axes differ from the target's; y are the target's.

  Raises:
    ValueError: if no route has a stitch, a network or position is unknown, or
      there are no batches.
  """
  found = list(dict.fromkeys(j for route in routes for j in joints(route)))
  _check(models, found)
  used = {name for joint in found for name in (joint.source, joint.target)}
  mine = {name: model for name, model in models.items() if name in used}
  stream = batches_lib.stream(batches, name='joint_moments')
  first = next(stream)
  grids = _grids(mine, batches_lib.inputs_of(first), found)
  sites = _Sites(
    tuple(dict.fromkeys((j.source, j.stop, g) for j, g in zip(found, grids))),
    tuple(dict.fromkeys((j.target, j.start) for j in found)),
  )
  # Many joints share a side; the moments of a pair are those of its two sites.
  pairs = [
    (
      sites.sources.index((joint.source, joint.stop, grid)),
      sites.targets.index((joint.target, joint.start)),
    )
    for joint, grid in zip(found, grids)
  ]
  features = (
    _features(mine, batches_lib.inputs_of(batch), sites)
    for batch in itertools.chain([first], stream)
  )
  moments = stats.cross_moments(_sources, _targets, features, pairs=pairs)
  return {
    joint: dataclasses.replace(moments[pair], grid=grid)
    for joint, pair, grid in zip(found, pairs, grids)
  }


class _Sites(NamedTuple):
  """The distinct features that all joints read.

  Attributes:
    sources: (network, position, grid to resize to or ``None``).
    targets: (network, position).
  """

  sources: tuple[tuple[str, int, tuple[int, ...] | None], ...]
  targets: tuple[tuple[str, int], ...]


def _check(
  models: Mapping[str, _segmented.Segmented], found: Sequence[Joint]
) -> None:
  """Checks that there are joints, at positions that their networks have."""
  if not found:
    raise ValueError('joint_moments: no route has a stitch, give one that has')
  for joint in found:
    for name, position in (joint[:2], joint[2:]):
      if name not in models:
        hint = tree.nearest(name, list(models))
        raise ValueError(f"joint_moments: no model '{name}'{hint}")
      if not 0 <= position <= models[name].depth:
        raise ValueError(
          f"joint_moments: no position {position} of '{name}', which has 0 .. "
          f'{models[name].depth}'
        )


def _grids(
  models: Mapping[str, _segmented.Segmented],
  inputs: Any,
  found: Sequence[Joint],
) -> list[tuple[int, ...] | None]:
  """Returns the grid to which each joint's source is resized, or None."""
  shapes = {
    name: jax.eval_shape(_segmented.features, model, inputs)
    for name, model in models.items()
  }
  have = [shapes[j.source][j.stop].shape[1:-1] for j in found]
  want = [shapes[j.target][j.start].shape[1:-1] for j in found]
  return [None if a == b else b for a, b in zip(have, want)]


@functools.partial(jax.jit, static_argnums=2)
def _features(
  models: Mapping[str, _segmented.Segmented], inputs: Any, sites: _Sites
) -> list[tuple[types.Array, ...]]:
  """Runs each network once; returns the features before and after joints."""
  every = {
    name: _segmented.features(model, inputs) for name, model in models.items()
  }
  sources = tuple(
    every[name][p] if grid is None else _resize.resize(every[name][p], grid)
    for name, p, grid in sites.sources
  )
  return [sources, tuple(every[name][p] for name, p in sites.targets)]


def _sources(features: list[tuple[types.Array, ...]]) -> Sequence[types.Array]:
  """Selects the features before joints."""
  return features[0]


def _targets(features: list[tuple[types.Array, ...]]) -> Sequence[types.Array]:
  """Selects the features after joints."""
  return features[1]
