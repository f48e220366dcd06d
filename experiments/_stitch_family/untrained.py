"""Measurements of a family before joint training.

``Seeds`` is a list over seeds of ``{'held_out': [R], 'test': [R]}``.
"""

from collections.abc import Mapping
import functools
from typing import Any, NamedTuple

import jax

from experiments._run import console
from experiments._stitch_family import settings
from wsl import stitch, types

Anchors = Mapping[str, types.Params]


class Fitted(NamedTuple):
  """Anchors, and the costs from ``least_squares``.

  Attributes:
    anchors: parameters by name, ``[S, ...]``; the last one is the teacher.
    flops: for one image, of all routes and students.
  """

  anchors: Anchors
  flops: dict[str, Any]


def least_squares(
  setting: settings.Setting, anchors: Anchors
) -> dict[str, Any]:
  """Measures stitches fitted by least squares, and counts the FLOPs of all.

  Args:
    setting: config, data and model.
    anchors: parameters by name, ``[S, ...]``.

  Returns:
    ``v1`` (the mean of the solutions as shared adapter), ``pooled``, ``v2`` and
    ``candidates``: Seeds; ``scores``: by measure, ``[S, R]`` of the candidates
    with a stitch; ``flops`` for one image: of the routes of each, and of the
    students.
  """
  v1, v2 = settings.routes(setting), settings.routes_v2(setting)
  every = settings.candidates(setting)
  found: dict[str, Any] = {'v1': [], 'pooled': [], 'v2': [], 'candidates': []}
  scores: dict[str, Any] = {name: [] for name in settings.MEASURES}
  flops = {'students': _student_flops(setting)}
  with console.progress('stitches', setting.config.seeds) as tick:
    for seed in range(setting.config.seeds):
      models = settings.views(setting, anchors, seed)
      fitted = moments(setting, models)
      for name, routes, shared in (
        ('v1', v1, 'mean'),
        ('pooled', v1, 'pooled'),
        ('v2', v2, 'mean'),
        ('candidates', every, 'mean'),
      ):
        adapters = stitch.fit_joints(fitted, routes, shared=shared)
        family = stitch.Family(models, adapters)
        apply_fn, rows = stitch.program(family, routes)
        measured = settings.accuracies(setting, apply_fn, family, rows)
        found[name].append(measured)
        flops.setdefault(name, settings.flops(setting, family, routes))
      stitched = every[len(setting.depths) :]
      for name, measure in settings.MEASURES.items():
        score = stitch.route_similarity(fitted, stitched, measure=measure)
        scores[name].append(score.tolist())
      tick('')
  return {**found, 'scores': scores, 'flops': flops}


def moments(
  setting: settings.Setting, models: Mapping[str, stitch.Segmented]
) -> dict[stitch.Joint, types.CrossMoments]:
  """Returns the moments of all joints of all routes, in one pass."""
  every = [*settings.candidates(setting), *settings.routes_v2(setting)]
  images = setting.images.train[0][: setting.config.calibration]
  return stitch.joint_moments(models, every, [images])


def _student_flops(setting: settings.Setting) -> list[float]:
  """Returns the FLOPs of each student for one image."""
  depth = max(setting.depths.values())
  found = []
  for width in setting.config.students.widths:
    one = functools.partial(settings.draw, setting, width, depth)
    model = jax.eval_shape(one, jax.random.key(0))
    route = stitch.Route((stitch.Piece('student', 0, depth),))
    family = stitch.Family({'student': model}, {})
    found += settings.flops(setting, family, [route])
  return found


def teacher(
  setting: settings.Setting, anchors: Anchors, seed: int
) -> stitch.Segmented:
  """Returns the largest anchor of one seed."""
  return list(settings.views(setting, anchors, seed).values())[-1]
