"""Compression levels of layers, found by switching levels between layers."""

from collections.abc import Sequence
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.search import _points, _switches


def level_switch(
  losses: Sequence[_points.Loss],
  costs: Any,
  *,
  budget: float,
  start: Any = None,
  generations: int,
  offspring: int = 32,
  survivors: Sequence[int] = (),
  key: types.PRNGKey,
) -> _points.Search:
  r"""Distributes a budget over layers by evolution (EvoPress).

  .. math:: k^* = \operatorname{argmin}_k L(k) \quad \text{subject to} \quad
    \textstyle\sum_l \mathrm{cost}_{l, k_l} \le \mathrm{budget}

  In each generation, the offspring of one parent switch levels: 1 to 3 random
  layers rise by one level, and others fall by one until the budget holds.
  Selection has several stages: the first loss, on little data, keeps the best
  of all offspring, the next one the best of these; the last one, with the
  parent among them, selects the next parent.

  Args:
    losses: of each stage, from the cheapest to the best, ``>= 1``; each maps
      levels ``[B, L]`` to losses ``[B]``, lower is better. NaN ranks last.
      Wrap each in a ``journal`` of its own to resume.
    costs: of layer l at level k, such as its bytes, ``[L, K]``; they do not
      fall with k, and are infinite where a layer has no such level.
    budget: for the sum of costs, ``>=`` that of all lowest levels.
    start: the first parent, ``[L]``; the highest level at which all layers fit
      in the budget by default.
    generations: ``>= 1``.
    offspring: of each generation, ``>= 1``, all different.
    survivors: offspring that each stage but the last keeps, ``>= 1`` and not
      rising.
    key: of the switches.

  Returns:
    A ``Search`` over the levels that the last loss evaluated; its points are
    integers. Select the leaves by ``at_levels``.

  Raises:
    ValueError: if an argument is out of range, ``start`` is over the budget, or
      a loss does not return one number for each point.
    FloatingPointError: if no loss is finite.

  Example:
    >>> import jax
    >>> errors = np.array([[9.0, 1.0, 0.0], [9.0, 4.0, 0.0], [1.0, 0.5, 0.0]])
    >>> loss = lambda k: errors[range(3), k.astype(int)].sum(1)
    >>> found = level_switch([loss], np.ones((3, 1)) * [1, 2, 3], budget=6,
    ...                      generations=5, key=jax.random.key(0))
    >>> found.point.tolist(), found.loss
    ([1, 2, 0], 2.0)

  Reference:
    Sieberling et al., "EvoPress: Towards Optimal Dynamic Model Compression via
    Evolutionary Search", 2024, arXiv:2410.14649.

  Differs from the official code, which switches between layers of one size
  unless asked otherwise; here a switch between any layers keeps the budget, and
  a budget that is not spent lets layers rise alone. A layer that rises does not
  fall in the same offspring.
  """
  name = 'level_switch'
  costs = _costs(costs)
  generations = _points.check_count(name, 'generations', generations, 1)
  offspring = _points.check_count(name, 'offspring', offspring, 1)
  if callable(losses) or len(losses) != len(survivors) + 1:
    raise ValueError(
      f'{name}: survivors={tuple(survivors)}: losses is a list of functions; '
      'give a number of survivors for each but the last'
    )
  kept = [offspring, *survivors]
  if any(b > a or b < 1 for a, b in itertools.pairwise(kept)):
    raise ValueError(
      f'{name}: survivors={tuple(survivors)} are not in {offspring} .. 1, each '
      'at most the one before'
    )
  parent = _start(costs, budget, start)
  generator = _points.generator(key)
  points, values = [], []
  for _ in range(generations):
    group = _switches.offspring(parent, costs, budget, offspring, generator)
    for loss, count in zip(losses, survivors):
      if len(group) > count:
        found = _ranked(_points.evaluated(name, loss, group))
        group = group[np.argsort(found, kind='stable')[:count]]
    group = np.concatenate([parent[None], group])
    found = _points.evaluated(name, losses[-1], group)
    points.append(group)
    values.append(found)
    # The parent is first: it stays unless an offspring is better.
    parent = group[np.argmin(_ranked(found))]
  return _points.best(name, np.concatenate(points), np.concatenate(values))


def at_levels(database: types.Tree, levels: types.ArrayLike) -> types.Tree:
  r"""Selects one level of each leaf.

  .. math:: x_l = \mathrm{database}_{l, k_l}

  Args:
    database: L leaves at K levels, every leaf ``[K, ...]``: such as task
      vectors at K densities or ranks.
    levels: k, whole numbers ``[L]`` in 0 .. K - 1, in the order of
      ``jax.tree.leaves``; may be traced.

  Returns:
    A tree of the leaves ``[...]``.

  Raises:
    ValueError: if there is not one level for each leaf, or a leaf has no axis
      of levels.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import merge, tree
    >>> tau = {'a': jnp.asarray([[4.0, 3.0, 2.0, 1.0]]), 'b': jnp.ones((1, 1))}
    >>> trimmed = lambda d: merge.sum(merge.trim(tau, density=d, scope='leaf'))
    >>> database = tree.stack([trimmed(d) for d in (0.25, 0.5, 1.0)])
    >>> at_levels(database, [1, 2])['a'].tolist()
    [4.0, 3.0, 0.0, 0.0]
  """
  leaves = jax.tree.leaves(database)
  levels = jnp.asarray(levels)
  if levels.shape != (len(leaves),) or any(not jnp.ndim(x) for x in leaves):
    raise ValueError(
      f'at_levels: levels have shape {levels.shape} for {len(leaves)} leaves '
      '[K, ...]: give one level for each leaf'
    )
  # A journal stores points as floats.
  levels = levels.astype(jnp.int32)
  each = jax.tree.unflatten(jax.tree.structure(database), [*levels])
  return jax.tree.map(lambda x, k: jnp.asarray(x)[k], database, each)


def _costs(costs: Any) -> np.ndarray:
  """Returns checked costs, ``[L, K]``."""
  costs = np.asarray(costs, np.float64)
  if costs.ndim != 2 or not costs.size:
    raise ValueError(
      f'level_switch: costs have shape {costs.shape}: give [L, K], a row for '
      'each layer'
    )
  # Comparisons with NaN are false, and infinity is not below itself.
  falls = ~(costs[:, 1:] >= costs[:, :-1])
  first = costs[:, 0]
  if falls.any() or not ((first >= 0) & (first < np.inf)).all():
    raise ValueError(
      'level_switch: costs must not fall with the level, be finite at level 0 '
      'and >= 0'
    )
  return costs


def _start(costs: np.ndarray, budget: float, given: Any) -> np.ndarray:
  """Returns the first parent, within the budget."""
  if given is None:
    fits = np.flatnonzero(costs.sum(0) <= budget)
    if not fits.size:
      raise ValueError(
        f'level_switch: budget={budget} is below the cost of all lowest levels,'
        f' {costs[:, 0].sum():g}'
      )
    return np.full(len(costs), fits[-1])
  levels = np.asarray(given)
  if (
    levels.shape != (len(costs),)
    or not np.issubdtype(levels.dtype, np.integer)
    or not ((levels >= 0) & (levels < costs.shape[1])).all()
  ):
    raise ValueError(
      f'level_switch: start={given} is not one level in 0 .. '
      f'{costs.shape[1] - 1} for each of {len(costs)} layers'
    )
  if not _switches.total(levels, costs) <= budget:
    raise ValueError(
      f'level_switch: start costs {_switches.total(levels, costs):g}, over '
      f'budget={budget}'
    )
  return levels


def _ranked(losses: np.ndarray) -> np.ndarray:
  """Returns losses in which those that are not finite are infinite."""
  return np.where(np.isfinite(losses), losses, np.inf)
