"""Joint training of a family: each step samples one route."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import batches as batches_lib
from wsl import tree, types
from wsl.stitch import _distil


def route_probabilities(
  flops: types.ArrayLike, *, gap: float | None = None, rising: bool = False
) -> np.ndarray:
  r"""Computes the sampling probabilities of routes, for ``random_route``.

  Without ``gap`` all routes have probability 1 / R (SN-Net). With it, routes
  are binned by FLOPs; a bucket b of weight w_b is sampled first, then a route
  of that bucket uniformly. A range of costs with few routes is then trained as
  often as one with many (SN-Netv2):

  .. math:: P(r) = \frac{w_{b(r)}}{\sum_b w_b} \frac{1}{|b(r)|}, \qquad
    b(r) = \left\lfloor \frac{f_r - \min f}{g} \right\rfloor

  Args:
    flops: of each route, ``[R]``.
    gap: g > 0, the width of a bucket in FLOPs; ``None`` for no buckets.
    rising: whether the n-th non-empty bucket, by rising cost, has weight
      w = n; all weights are 1 otherwise.

  Returns:
    Probabilities ``[R]``, float64.

  Raises:
    ValueError: if there are no routes, or ``gap`` is not positive.

  Example:
    >>> route_probabilities([1.0, 8.0, 8.5, 8.9], gap=2.0).round(3).tolist()
    [0.5, 0.167, 0.167, 0.167]

  Reference:
    Pan et al., "Stitched ViTs are Flexible Vision Backbones", 2023,
    arXiv:2307.00154.

  Differs from the official code in the edges of the buckets, which are
  multiples of g above the lowest cost here. In the code a bucket starts at the
  first route that costs over g more than the first route of the bucket before,
  and the first bucket at 0. The default, uniform over routes, is SN-Net's:
  SN-Netv2 needs ``gap``.
  """
  tree.check_scalars('route_probabilities', gap=gap)
  f = np.asarray(flops, np.float64)
  if f.ndim != 1 or not f.size or (gap is not None and gap <= 0):
    raise ValueError(
      f'route_probabilities: flops {list(f.shape)}, gap={gap}: expected the '
      'cost of each of R >= 1 routes, and a positive gap'
    )
  if gap is None:
    return np.full(f.shape, 1 / f.size)
  # Only buckets with members are numbered: unique() drops the empty ones.
  buckets = np.floor((f - f.min()) / gap)
  _, place, count = np.unique(buckets, return_inverse=True, return_counts=True)
  weights = np.arange(1.0, count.size + 1) if rising else np.ones(count.size)
  return (weights / weights.sum() / count)[place]


def random_route(
  apply_fn: Callable[..., types.Array],
  rows: types.ArrayLike,
  *,
  probabilities: types.ArrayLike | None = None,
  share: float = 0.5,
  temperature: float | None = None,
  divide: str = 'entries',
) -> jax.tree_util.Partial:
  r"""Makes the loss of joint training: that of one route, sampled by the key.

  .. math:: L = \mathrm{CE}(f_r(x), y), \quad r \sim P, \qquad \text{or} \quad
    L = (1 - a) \mathrm{CE}(f_r(x), y) + a \, \mathrm{CE}(f_r(x), \hat y)

  where the second form applies to batches with a teacher's targets
  :math:`\hat y` as third part: its classes (the paper) or its probabilities.
  With a temperature T they are its logits t, and the last term is that of soft
  distillation,

  .. math:: a T^2 \frac{1}{n} \sum_b \mathrm{KL}(\mathrm{softmax}(t_b / T)
    \,\|\, \mathrm{softmax}(f_r(x_b) / T))

  Sampling happens inside the compiled step, which serves all routes. Parameters
  off the route have zero gradient, but momentum and weight decay of an
  optimizer still change them.

  Args:
    apply_fn: maps (family, row, inputs) to logits ``[B, ..., C]``, from
      ``program``.
    rows: the routes to sample, ``[R, ...]``, from ``program``.
    probabilities: of each route, ``[R]``; uniform by default.
    share: a, the weight of the teacher's term, in 0 .. 1.
    temperature: T > 0 of soft distillation; ``None`` for cross-entropy.
    divide: the divisor n of soft distillation, as for ``m2m``: ``'entries'``,
      batch size times classes, as in the official code, or ``'batch'``.

  Returns:
    A loss for ``train.advance``: (family, batch, key) -> scalar. Batches are
    (inputs, targets), or (inputs, targets, teacher's targets); targets are
    integer labels ``[B, ...]`` or probabilities ``[B, ..., C]``; the teacher's
    are logits ``[B, ..., C]`` with a temperature.

  Raises:
    ValueError: if probabilities and rows differ in number, or do not sum to 1;
      or if another argument is out of range.

  Example:
    >>> apply_fn = lambda family, row, x: x * family[row[0]]
    >>> loss = random_route(apply_fn, jnp.asarray([[0], [1]]))
    >>> batch = (jnp.eye(3), jnp.arange(3))
    >>> print(f'{loss(jnp.zeros(2), batch, jax.random.key(0)):.4f}')
    1.0986

  Reference:
    Pan et al., "Stitchable Neural Networks", 2023, arXiv:2302.06586.
  """
  rows = jnp.asarray(rows)
  count = len(rows)
  if probabilities is None:
    probabilities = np.full(count, 1 / count)
  p = np.asarray(probabilities, np.float64)
  if p.shape != (count,) or (p < 0).any() or abs(p.sum() - 1) > 1e-6:
    raise ValueError(
      f'random_route: {list(p.shape)} probabilities of sum {p.sum():g} for '
      f'{count} routes: expected one for each, of sum 1'
    )
  if not 0 <= share <= 1 or (temperature is not None and temperature <= 0):
    raise ValueError(
      f'random_route: share={share} and temperature={temperature}: expected '
      '0 .. 1 and more than 0, or no temperature'
    )
  _distil.check_divisor(divide, caller='random_route')
  with np.errstate(divide='ignore'):
    log_p = jnp.asarray(np.log(p), jnp.float32)
  loss = _Loss(share, temperature, divide == 'batch')
  return jax.tree_util.Partial(loss, tree.partial(apply_fn), rows, log_p)


class _Loss(NamedTuple):
  """The loss of ``random_route``, hashable by its hyperparameters."""

  share: float
  temperature: float | None
  by_batch: bool

  def __call__(
    self,
    apply_fn: Callable[..., types.Array],
    rows: types.Array,
    log_p: types.Array,
    family: types.Params,
    batch: tuple[Any, ...],
    key: types.PRNGKey,
  ) -> types.Array:
    """Samples a route; adds its losses for all targets that are given."""
    inputs, labels, *teacher = batch
    row = rows[jax.random.categorical(key, log_p)]
    logits = tree.wide(apply_fn(family, row, inputs))
    supervised = _cross_entropy(logits, labels)
    if not teacher:
      return supervised
    return (1 - self.share) * supervised + self.share * self._taught(
      logits, *teacher
    )

  def _taught(self, logits: types.Array, target: types.Array) -> types.Array:
    """Returns the loss for the teacher's targets."""
    if self.temperature is None:
      return _cross_entropy(logits, target)
    return _distil.soft(
      target.astype(logits.dtype),
      logits,
      temperature=self.temperature,
      by_batch=self.by_batch,
    )


def _cross_entropy(logits: types.Array, target: types.Array) -> types.Array:
  """Returns the mean cross-entropy with labels or with probabilities."""
  import optax

  if jnp.issubdtype(target.dtype, jnp.integer):
    loss = batches_lib.cross_entropy(logits, target, name='family_loss')
  else:
    loss = optax.softmax_cross_entropy(logits, target.astype(logits.dtype))
  return jnp.mean(loss)
