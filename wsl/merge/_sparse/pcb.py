"""PCB-Merging: entries weighed by competition within and between tasks."""

from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _stack
from wsl.merge._sparse import elect, rank, trim


@deltas_lib.on_stacks
def pcb(
  deltas: types.Deltas,
  *,
  density: Any,
  clip: Any = 0.01,
  coefs: Any = 1.0,
  dialect: str = 'es',
) -> types.Delta:
  r"""Weighs each entry by its size in its task and its agreement with others.

  With :math:`\tau^c` the task vectors whose magnitudes are clipped to their
  quantiles q and 1 - q, and :math:`n_{t,p} \in [0, 1]` these magnitudes
  normalised by their least and greatest,

  .. math:: \tau_p = \frac{\sum_t \lambda_t s_{t,p} \tau^c_{t,p}}
    {\max(\sum_t s_{t,p}, 10^{-12})}, \qquad
    s_t = \operatorname{minmax} \max(\beta_t, \beta_t^{(k)}), \qquad
    \beta_{t,p} = e^{T n_{t,p}^2} c_{t,p},

  where :math:`\beta_t^{(k)}` is the k-th largest score of task t over the whole
  model. Entries at or below it have the weight 0. With
  :math:`u = \operatorname{sgn}(\tau)\, n`, the competition between tasks is

  .. math:: c_t = \sum_j \tanh(u_t u_j), \quad
    \tanh(\tau_t \textstyle\sum_j u_j) \quad\text{or}\quad
    \tanh(\tau_t \textstyle\sum_j \tau_j).

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    density: r, the fraction of entries with a weight, ``0 < r <= 1``, a number
      or ``[T]``; the authors take 0.05 for vision and 0.1 for language models.
    clip: q, the fraction of entries clipped at either end, ``0 <= q < 0.5``, a
      number that may be traced; the authors take 0.01 and 0.0001.
    coefs: lambda, a number or ``[T]``; the authors take 1.2, or search 0.8 ..
      1.3 for each task on validation data.
    dialect: the competition of one of the three official programs, in the order
      above: ``'es'`` (``pcb_ES.py``), ``'vision'`` (``pcb.py``) or
      ``'merging'`` (``pcb-merging.py``).

  Returns:
    The merged task vector, every leaf ``[...]``. A task vector whose magnitudes
    are all equal has no score and the weight 0. In gradients the quantiles are
    constants.

  Raises:
    ValueError: if a number is out of range, the dialect is unknown, or a leaf
      is complex.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[4.0, -1.0, 0.2], [2.0, 3.0, 0.1]])}
    >>> pcb(deltas, density=0.4, clip=0.0)['w'].tolist()
    [4.0, 3.0, 0.0]

  Reference:
    Du et al., "Parameter Competition Balancing for Model Merging", 2024,
    arXiv:2410.02396.

  Differs from the official code in three cases. Task vectors of equal
  magnitudes, zeros for example, are NaN there. Scores within 8 eps of the k-th
  count as equal to it, so that rounding decides no entry. The exponent is
  :math:`T (n^2 - 1)`, which does not overflow; the factor cancels.
  """
  models = _stack.count('pcb', deltas)
  elect.check_signs('pcb', deltas)
  _checks.choose('pcb: dialect', dialect, _COMPETITION)
  densities = trim.densities('pcb', deltas, density, 'global')
  tree.check_scalars('pcb', clip=clip)
  if not isinstance(clip, jax.core.Tracer) and not 0 <= clip < 0.5:
    raise ValueError(
      f'pcb(clip={clip}): clip is the fraction clipped at either end, expected '
      '0 <= clip < 0.5'
    )
  coefs = _checks.per_model('pcb: coefs', coefs, models)
  find = functools.partial(rank.magnitudes, 'pcb', scope='global')

  def quantiles(size: int) -> Sequence[Any]:
    low, high = rank.floors(size, clip, 1 - clip)
    xp = rank.array_module(low)
    return [size - low, size - xp.clip(high - 1, 0, size - 1)]

  def limits(size: int, kept: Any) -> Sequence[Any]:
    # The k-th largest score is the k-th largest of the positive parts if it is
    # positive, and minus the (d - k + 1)-th largest of the negative parts if it
    # is negative; the other of both is 0. So it is their difference.
    (below,) = rank.floors(size, 1 - kept)
    xp = rank.array_module(below)
    last = xp.clip(size - below, 1, size)
    ones = xp.ones_like(last)
    ranks = [ones, size * ones], [last, size + 1 - last]
    return [xp.concatenate(pair) for pair in ranks]

  def steps(tau: types.Deltas) -> types.Delta:
    bounds = find(tau, quantiles, finish=_with_width)
    # Each pass of the search would compute the scores again, and the mean once
    # more. Leaves that are not in memory are read in chunks.
    whole = tree.is_traced(tau) or not tree.on_demand(deltas)
    parts = tree.map(_parts, tau, bounds, dialect=dialect, whole=whole)
    if whole:
      parts = tree.read(parts)
    eps = max(jnp.finfo(tree.wide_dtype(x)).eps for x in jax.tree.leaves(tau))
    of_scores = functools.partial(_of_scores, eps=float(eps))
    cuts = find(parts, limits, densities, finish=of_scores)
    given = [parts] if whole else []
    hyper = {'coefs': coefs, 'dialect': dialect}
    return tree.map(_merge, tau, bounds, cuts, *given, **hyper)

  return _stack.fuse(deltas, steps)


def _with_width(bounds: Any) -> Any:
  """Returns quantiles ``[2, T]`` and their distance, inf for 0, ``[3, T]``."""
  xp = rank.array_module(bounds)
  low, high = bounds.astype(tree.wide_dtype(bounds))
  return xp.stack([low, high, xp.where(high > low, high - low, xp.inf)])


def _of_scores(found: Any, eps: float) -> Any:
  """Returns the k-th score, its rounding error and distance to the first.

  Given the magnitudes ``[2, 2 T]`` of the positive and of the negative parts:
  ``[3, T]``. The distance is inf where it is within the error.
  """
  xp = rank.array_module(found)
  models = found.shape[1] // 2
  top, cut = found[:, :models] - found[:, models:]
  near = 8 * eps * xp.maximum(abs(top), abs(cut))
  return xp.stack([cut, near, xp.where(top - cut > near, top - cut, xp.inf)])


def _clipped(x: types.Array, bounds: types.Array) -> types.Array:
  """Clips magnitudes to quantiles by ``_with_width`` and keeps the signs."""
  low, high = (_stack.expand_rank(y, x) for y in bounds[:2])
  return jnp.sign(x) * jnp.clip(jnp.abs(x), low, high)


def _normalised(x: types.Array, bounds: types.Array) -> types.Array:
  """Normalises clipped magnitudes to 0 .. 1; 0 where the quantiles agree."""
  low, high, width = (_stack.expand_rank(y, x) for y in bounds)
  return (jnp.clip(jnp.abs(x), low, high) - low) / width


def _pairwise(x: types.Array, u: types.Array, whole: bool) -> types.Array:
  """Sums tanh(u_t u_j) over the tasks j."""
  against = lambda y: _stack.reduce_in_turn(
    jnp.add, u, lambda z: jnp.tanh(y * z)
  )
  if not whole:
    return jax.vmap(against)(u)
  # T^2 terms: of whole leaves on a CPU in a loop over t, for no kernel to
  # compute them again. A chunk of a leaf is computed without loops.
  return jax.lax.platform_dependent(
    u, cpu=lambda u: jax.lax.map(against, u), default=jax.vmap(against)
  )


def _with_sum(x: types.Array, y: types.Array) -> types.Array:
  """Returns tanh of each task times a sum over all."""
  return jnp.tanh(x * _stack.sum_models(y)[None])


_COMPETITION = {
  'es': _pairwise,
  'vision': lambda x, u, _: _with_sum(x, u),
  'merging': lambda x, *_: _with_sum(x, x),
}


def _scores(
  x: types.Array, bounds: types.Array, dialect: str, whole: bool
) -> types.Array:
  """Returns beta of a leaf in a wide dtype, up to a factor, ``[T, ...]``."""
  share = _normalised(x, bounds)
  within = jnp.exp(len(x) * (share * share - 1))
  return within * _COMPETITION[dialect](x, jnp.sign(x) * share, whole)


def _parts(
  x: types.Array, bounds: types.Array, *, dialect: str, whole: bool
) -> types.Array:
  """Returns the positive and the negative parts of beta, ``[2 T, ...]``."""
  x = tree.wide(x)
  scores = _scores(x, bounds.astype(x.dtype), dialect, whole)
  return jnp.maximum(jnp.concatenate([scores, -scores]), 0)


def _merge(
  x: types.Array,
  bounds: types.Array,
  limits: types.Array,
  *parts: types.Array,
  coefs: types.Array,
  dialect: str,
) -> types.Array:
  """Averages the clipped entries of a leaf by their weights s.

  Given the parts of beta, or computing beta.
  """
  wide = tree.wide(x)
  bounds, limits = bounds.astype(wide.dtype), limits.astype(wide.dtype)
  if parts:  # one of both is 0
    scores = parts[0][: len(x)] - parts[0][len(x) :]
  else:
    scores = _scores(wide, bounds, dialect, whole=False)
  cut, near, width = (_stack.expand_rank(y, x) for y in limits)
  above = scores - cut
  weights = jnp.where(above > near, above, 0) / width
  clipped = _stack.weigh(_clipped(wide, bounds), coefs)
  total = _stack.sum_models(weights * clipped)
  share = jnp.maximum(_stack.sum_models(weights), 1e-12)
  return (total / share).astype(x.dtype)
