"""Evolution of the parameters of a layer-wise merge."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from wsl import types
from wsl.search import _cmaes, _points

# A density of 0 keeps nothing, which no merge that trims accepts.
_LEAST_DENSITY = 1e-3


class Layered(NamedTuple):
  """The result of ``layerwise``.

  Attributes:
    weights: of each group of layers and expert, ``[G, T]``.
    density: the share of entries kept, ``[G, T]``; ones if not searched.
    loss: of the merge with them.
    search: all evaluations.
  """

  weights: np.ndarray
  density: np.ndarray
  loss: float
  search: _points.Search


def layerwise(
  loss: Callable[[np.ndarray, np.ndarray], Any],
  groups: int,
  experts: int,
  *,
  evaluations: int,
  density: bool = True,
  signed: bool = False,
  sigma: float = 1 / 6,
  population: int | None = None,
  key: types.PRNGKey,
) -> Layered:
  r"""Searches weights and densities of T experts in G groups of layers.

  .. math:: \min_x L(w(x), d(x)), \qquad w = |x_w|, \quad
    d = \operatorname{clip}(x_d, 0.001, 1)

  by ``cmaes`` from :math:`w = 1 / T` and :math:`d = 1`, at which layer-wise
  task arithmetic is the mean. The merge is a function of yours, such as
  ``merge.layerwise`` of ``merge.ties``::

    def one(c):
      tau = merge.layerwise(deltas, method=method, parameters=c, depth=depth)
      return loss_fn(deltas_lib.apply(base, tau))

    loss = lambda w, d: mesh.map_candidates(
      one, {'weights': w, 'density': d}, mesh=candidates
    )

  Args:
    loss: maps (weights ``[B, G, T]``, density ``[B, G, T]``) to losses ``[B]``,
      lower is better; a generation is one call.
    groups: G, ``>= 1``.
    experts: T, ``>= 1``.
    evaluations: a bound for the number of points, ``>= population``.
    density: whether densities are searched; otherwise they are 1.
    signed: whether weights may be negative: w = x instead of its magnitude.
    sigma: the first standard deviation, ``> 0``.
    population: of a generation, ``>= 2``; 4 + 3 log n by default.
    key: of the samples.

  Returns:
    A ``Layered``.

  Raises:
    ImportError: if the package ``cma`` is not installed.
    ValueError: if an argument is out of range, or ``loss`` does not return one
      number for each point.
    FloatingPointError: if no loss is finite.

  Example:
    >>> import jax
    >>> wanted = np.asarray([[0.2, 0.8], [0.9, 0.1]])
    >>> loss = lambda w, d: ((w - wanted) ** 2).sum((1, 2))
    >>> found = layerwise(loss, 2, 2, evaluations=600, density=False,
    ...                   key=jax.random.key(0))
    >>> found.weights.round(1).tolist()
    [[0.2, 0.8], [0.9, 0.1]]

  Reference:
    Zhang et al., "Unconstrained Model Merging for Enhanced LLM Reasoning",
    2024, arXiv:2410.13699; Akiba et al., "Evolutionary Optimization of Model
    Merging Recipes", 2024, arXiv:2403.13187.

  No official code was found. The genome, its start and sigma are those of
  mergekit-evolve, which divides weights by their sum in some methods.
  """
  name = 'layerwise'
  groups = _points.check_count(name, 'groups', groups, 1)
  experts = _points.check_count(name, 'experts', experts, 1)
  shape = (groups, experts)
  size = groups * experts

  def decode(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    weights = x[:, :size].reshape(-1, *shape)
    weights = weights if signed else np.abs(weights)
    kept = np.ones_like(weights)
    if density:
      kept = np.clip(x[:, size:].reshape(-1, *shape), _LEAST_DENSITY, 1)
    return weights, kept

  start = np.full(size, 1 / experts)
  if density:
    start = np.concatenate([start, np.ones(size)])
  found = _cmaes.cmaes(
    lambda x: loss(*decode(x)),
    start,
    sigma=sigma,
    evaluations=evaluations,
    population=population,
    key=key,
  )
  (weights,), (kept,) = decode(found.point[None])
  return Layered(weights, kept, found.loss, found)
