"""Lost pipeline stages, rebuilt from the stages beside them."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl import deltas, tree, types


def recover_stages(
  stages: types.Params | Sequence[types.Params],
  lost: int | Sequence[int],
  *,
  weights: Sequence[float] | None = None,
) -> Any:
  r"""Replaces lost stages by weighted means of their neighbours (CheckFree).

  .. math:: W_i = \frac{\omega_{i-1} W_{i-1} + \omega_{i+1} W_{i+1}}
    {\omega_{i-1} + \omega_{i+1}}

  where i - 1 and i + 1 stand for the nearest stages that survive. A lost stage
  at an end has one neighbour and becomes its copy. That fits if the two were
  trained in both orders (``swapped_order``), as CheckFree+ does.

  Args:
    stages: S trees alike, in order, in memory or on demand; or one tree of
      leaves ``[S, ...]``, as ``models.segments`` stacks blocks.
    lost: the position of the lost stage, or several, 0 to S - 1.
    weights: S numbers >= 0, in the paper from the norms of the last gradients;
      equal by default. Those of lost stages have no effect.

  Returns:
    The stages, in the form given. Integer leaves are those of the nearest stage
    before, or after at the start.

  Raises:
    ValueError: if a position is out of range, no stage survives, a weight is
      negative or there are not S, or the stages differ in shapes.

  Example:
    >>> import jax.numpy as jnp
    >>> stages = [{'w': jnp.asarray(x)} for x in (1.0, 9.0, 4.0)]
    >>> found = recover_stages(stages, 1, weights=[1.0, 0.0, 3.0])
    >>> [float(s['w']) for s in found]
    [1.0, 3.25, 4.0]

  Reference:
    Blagoev et al., "All is Not Lost: LLM Recovery without Checkpoints", 2025,
    arXiv:2506.15461.

  Differs from the official code in the weights: there they are the norms of
  gradients after clipping at 1, plus 1e-4. Give those for the same result.
  """
  listed = isinstance(stages, (list, tuple))
  number = len(stages) if listed else count('recover_stages', stages)
  failed = _failed(lost, number)
  strength = np.ones(number) if weights is None else np.asarray(weights, float)
  fine = np.isfinite(strength) & (strength >= 0)
  if strength.shape != (number,) or not fine.all():
    raise ValueError(
      f'recover_stages: weights={str(weights)[:60]}: expected {number} '
      'numbers, one for each stage, finite and at least 0'
    )
  below, above, share = neighbours(np, failed, strength)
  if not listed:
    hyper = {'failed': failed, 'below': below, 'above': above, 'share': share}
    return tree.map(mix_stacked, stages, **hyper)
  named = {f'stage {i}': s for i, s in enumerate(stages) if not failed[i]}
  alive = dict(zip(named, deltas.check('recover_stages', named)))
  one = lambda i: alive[f'stage {i}']
  return [
    tree.map(_mix, one(below[i]), one(above[i]), share=share[i])
    if failed[i]
    else one(i)
    for i in range(number)
  ]


def swapped_order(stages: int) -> list[int]:
  """Returns the order in which the first two and the last two stages swap.

  CheckFree+ runs half of the micro-batches in this order, so that each of a
  pair learns the place of the other, and either can be recovered by a copy.

  Args:
    stages: S, their number; the middle one of three stays.

  Returns:
    The positions of the S stages in the order of execution.

  Raises:
    ValueError: if there are fewer than two.

  Example:
    >>> swapped_order(6)
    [1, 0, 2, 3, 5, 4]

  Reference:
    Blagoev et al., "All is Not Lost: LLM Recovery without Checkpoints", 2025,
    arXiv:2506.15461.
  """
  if stages < 2:
    raise ValueError(f'swapped_order: {stages} stages have none to swap')
  order = list(range(stages))
  order[:2] = order[1::-1]
  if stages > 3:
    order[-2:] = order[:-3:-1]
  return order


def neighbours(xp: Any, failed: Any, weights: Any) -> tuple[Any, Any, Any]:
  """Finds the stages from which each one is rebuilt.

  Args:
    xp: numpy, or ``jax.numpy`` in a trace.
    failed: bools ``[S]``.
    weights: ``[S]``, at least 0.

  Returns:
    For each stage the nearest survivors before and after it, ``[S]`` (the same
    one at an end), and the share of the latter in the mean.
  """
  count = len(failed)
  i, j = xp.arange(count)[:, None], xp.arange(count)[None]
  alive = ~failed[None]
  before = xp.max(xp.where(alive & (j < i), j, -1), 1)
  after = xp.min(xp.where(alive & (j > i), j, count), 1)
  below = xp.where(before < 0, after, before)
  above = xp.where(after == count, before, after)
  # (w_b W_b + w_a W_a) / (w_b + w_a) = W_b + s (W_a - W_b) with the share
  # s = w_a / (w_b + w_a); without any weight the mean is plain, s = 1/2.
  total = weights[below] + weights[above]
  known = total > 0
  share = xp.where(known, weights[above] / xp.where(known, total, 1), 0.5)
  return below, above, share


def mix_stacked(
  x: types.Array,
  *,
  failed: types.Array,
  below: types.Array,
  above: types.Array,
  share: types.Array,
) -> types.Array:
  """Replaces the failed stages of a leaf ``[S, ...]``."""
  wide = share.reshape(-1, *(1,) * (x.ndim - 1))
  mixed = _mix(x[below], x[above], share=wide)
  return jnp.where(failed.reshape(wide.shape), mixed, x)


def _mix(x: types.Array, y: types.Array, *, share: types.Array) -> types.Array:
  """Returns x + share (y - x): exactly x where the two are equal."""
  if not tree.is_float(x):
    return x
  a, b = tree.wide(x), tree.wide(y)
  return (a + jnp.asarray(share).astype(a.real.dtype) * (b - a)).astype(x.dtype)


def count(function: str, stages: types.Params) -> int:
  """Returns S, the first dimension of every leaf."""
  first: int | None = None
  for name, leaf in tree.named(stages).items():
    shape = tuple(leaf.shape)
    first = shape[0] if first is None and shape else first
    if not shape or shape[0] != first:
      raise ValueError(
        f"{function}: leaf '{name}' of shape {shape} does not stack the "
        f'{first} stages: give leaves [S, ...], or a list of stages'
      )
  if first is None:
    raise ValueError(f'{function}: no stages given')
  return first


def _failed(lost: int | Sequence[int], count: int) -> np.ndarray:
  """Returns a bool for each stage."""
  positions = [lost] if np.ndim(lost) == 0 else list(lost)  # type: ignore[arg-type]
  for i in positions:
    if not isinstance(i, (int, np.integer)) or not 0 <= i < count:
      raise ValueError(
        f'recover_stages: lost={i}: expected a position from 0 to {count - 1}'
      )
  failed = np.isin(np.arange(count), positions)
  if failed.all():
    raise ValueError('recover_stages: no stage survives')
  return failed
