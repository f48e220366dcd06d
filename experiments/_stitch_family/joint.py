"""Joint training of families, and of others at the same cost.

``Seeds`` is a list over seeds of ``{'held_out': [R], 'test': [R]}``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments._stitch_family import settings, training, untrained
from wsl import stitch

SELECTIONS = ('selected', 'random')


def budget(setting: settings.Setting, flops: dict[str, Any]) -> float:
  """Returns the FLOPs of each compared training: those of SN-Net."""
  steps = training.steps_of(setting, setting.config.joint.epochs)
  return steps * training.step_cost(setting, np.mean(flops['v1']))


def sn_net(
  setting: settings.Setting,
  fitted: untrained.Fitted,
  name: str,
) -> dict[str, Any]:
  """Trains a family jointly and measures its routes.

  Args:
    setting: config, data and model.
    fitted: anchors and costs.
    name: ``'v1'``: one stitch, routes drawn uniformly; ``'v2'``: up to two,
      drawn by buckets of cost, adapters frozen up to low-rank updates.

  Returns:
    ``seeds``: Seeds; ``steps`` and ``flops``: of one seed's training.
  """
  config, flops = setting.config, fitted.flops
  first = name == 'v1'
  routes = settings.routes(setting) if first else settings.routes_v2(setting)
  gap = None if first else np.ptp(flops[name]) / config.joint.buckets
  probabilities = stitch.route_probabilities(
    flops[name], gap=gap, rising=config.joint.rising
  )
  # v2 draws a bucket of cost first, so that few cheap routes are not rare. The
  # cost of a step is the mean over the distribution of routes.
  everything = [np.arange(len(routes))] * config.seeds
  forward = float(np.dot(flops[name], probabilities))
  return _train(
    setting,
    name,
    _families(setting, fitted.anchors, routes, low_rank=not first),
    routes,
    everything,
    probabilities,
    forward=forward,
    stage=10 if first else 11,
    cost=budget(setting, flops),
  )


def selections(
  setting: settings.Setting,
  fitted: untrained.Fitted,
) -> dict[str, Any]:
  """Trains a subset of all stitches, selected by similarity or at random.

  Both selections take one stitch from each group of cost, and are trained for
  the same number of steps.

  Args:
    setting: config, data and model.
    fitted: anchors and costs.

  Returns:
    ``selected`` and ``random``, each as from ``sn_net``, with ``routes``: by
    seed, indices of the trained candidates.
  """
  config = setting.config
  routes = settings.candidates(setting)
  of, first = fitted.flops['candidates'], len(setting.depths)
  count = config.selection.count
  # One stitch from each of ``count`` groups of equal size: its expected cost is
  # the mean over all stitches. The anchors are always trained.
  mean = (sum(of[:first]) + count * np.mean(of[first:])) / (first + count)
  families = _families(setting, fitted.anchors, routes)
  found = {}
  for name in SELECTIONS:
    chosen = [
      _choose(setting, family, routes, of, name, seed)
      for seed, family in enumerate(families)
    ]
    trained = _train(
      setting,
      name,
      families,
      routes,
      chosen,
      np.full(first + count, 1 / (first + count)),
      forward=float(mean),
      stage=12,
      cost=budget(setting, fitted.flops),
    )
    found[name] = {**trained, 'routes': [own.tolist() for own in chosen]}
  return found


def _families(
  setting: settings.Setting,
  anchors: untrained.Anchors,
  routes: settings.Routes,
  *,
  low_rank: bool = False,
) -> list[stitch.Family]:
  """Returns the initial family of each seed, fitted by least squares."""
  found = []
  for seed, key in enumerate(settings.keys(setting, 20)):
    models = settings.views(setting, anchors, seed)
    adapters = stitch.fit_joints(
      untrained.moments(setting, models),
      routes,
      kind='low_rank' if low_rank else 'affine',
      rank=setting.config.joint.rank,
      key=key if low_rank else None,
    )
    found.append(stitch.Family(models, adapters))
  return found


def _choose(
  setting: settings.Setting,
  family: stitch.Family,
  routes: settings.Routes,
  flops: Sequence[float],
  name: str,
  seed: int,
) -> np.ndarray:
  """Returns the indices of the routes that one seed trains."""
  scores = np.random.default_rng(seed).random(len(routes))
  if name == 'selected':
    scores = stitch.route_similarity(
      untrained.moments(setting, family.models),
      routes,
      measure=settings.MEASURES[setting.config.selection.measure],
    )
  kept = stitch.select_routes(
    routes,
    scores,
    count=setting.config.selection.count,
    flops=np.asarray(flops),
  )
  return np.asarray([routes.index(route) for route in kept])


def _train(
  setting: settings.Setting,
  label: str,
  families: Sequence[stitch.Family],
  routes: settings.Routes,
  chosen: Sequence[np.ndarray],
  probabilities: np.ndarray,
  *,
  forward: float,
  stage: int,
  cost: float,
) -> dict[str, Any]:
  """Trains and measures the selected routes of each seed, at a given cost."""
  one = training.step_cost(setting, forward)
  steps = max(1, round(cost / one))
  apply_fn, rows = stitch.program(families[0], routes)
  trained = training.fit(
    setting,
    label,
    [
      stitch.random_route(apply_fn, rows[own], probabilities=probabilities)
      for own in chosen
    ],
    families,
    training.examples(
      setting, [list(family.models.values())[-1] for family in families]
    ),
    stage=stage,
    steps=steps,
    config=setting.config.joint,
  )
  seeds = [
    settings.accuracies(setting, apply_fn, family, rows[own])
    for family, own in zip(trained, chosen, strict=True)
  ]
  return {'seeds': seeds, 'steps': steps, 'flops': steps * one}
