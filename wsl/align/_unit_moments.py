"""The correction of units' moments: a gain and a shift, folded into a map.

The moments of the merged model are measured by ``repair``, and predicted from
those of the merged models by ``repair_in_closed_form``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from wsl import tree, types


class Target(NamedTuple):
  """The target mean and standard deviation of the units of a map."""

  mean: types.Array
  deviation: types.Array


class Correction(NamedTuple):
  """A correction of the outputs of a map, ``y <- gain * y + shift``."""

  gain: types.Array
  shift: types.Array


def correction(
  found: types.Moments, target: Target, shift: bool, epsilon: float
) -> Correction:
  """Returns the correction that turns the moments found into the target's."""
  # y has mean m and variance v, so gain y + shift has mean gain m + shift and
  # variance gain^2 v: solve both for the target (up to epsilon).
  wanted = jnp.square(target.deviation) + epsilon
  # No gain changes a variance of zero, and the ratio can be 0 / 0.
  varies = found.variance > 0
  ratio = wanted / jnp.where(varies, found.variance + epsilon, 1)
  gain = jnp.where(varies, jnp.sqrt(ratio), 1)
  if not shift:
    return Correction(gain, jnp.zeros_like(gain))
  return Correction(gain, target.mean - gain * found.mean)


def fold_in(
  params: types.Params,
  moments: dict[str, types.Moments],
  corrections: dict[str, Correction],
) -> types.Params:
  """Folds corrections into weights and biases: W gain, b gain + shift."""
  biases = {moments[name].bias: c for name, c in corrections.items()}

  def correct_leaf(name: str, x: types.Array) -> types.Array:
    wide = tree.wide(x)
    if name in corrections:
      gain = jnp.expand_dims(corrections[name].gain, moments[name].axes)
      wide = wide * gain.astype(wide.dtype)
    elif name in biases:
      gain, shift = (y.astype(wide.dtype) for y in biases[name])
      wide = wide * gain.reshape(x.shape) + shift.reshape(x.shape)
    else:
      return x
    return wide.astype(x.dtype)

  return tree.map_named(correct_leaf, params)


def target(
  name: str,
  found: types.Moments,
  ends: list[dict[str, types.Moments]],
  shares: list[float],
) -> Target:
  """Returns the interpolated mean and standard deviation of the endpoints."""
  for i, end in enumerate(ends):
    if name not in end or end[name].mean.shape != found.mean.shape:
      shape = end[name].mean.shape if name in end else 'no moments'
      raise ValueError(
        f"repair: endpoint {i} has {shape} at '{name}', the merged model "
        f'{found.mean.shape}: measure models of equal widths by one function'
      )
  pairs = [(c, end[name]) for c, end in zip(shares, ends)]
  mean = sum((c * m.mean for c, m in pairs), jnp.zeros_like(found.mean))
  deviations = [c * jnp.sqrt(m.variance) for c, m in pairs]
  return Target(mean, sum(deviations, jnp.zeros_like(found.mean)))


def chosen_maps(
  moments: dict[str, types.Moments],
  leaves: types.Leaves | None,
  shift: bool,
  *,
  caller: str,
) -> list[str]:
  """Returns the names of the maps to correct; to shift them needs a bias."""
  names = list(moments)
  if leaves is not None:
    means = {name: m.mean for name, m in moments.items()}
    chosen = tree.select(means, leaves)
    names = [name for name in names if chosen[name]]
  if not names:
    raise ValueError(
      f'{caller}: no linear map is chosen, see stats.linear_maps'
    )
  for name in names:
    if shift and not moments[name].bias:
      raise ValueError(
        f"{caller}: the map '{name}' has no bias to shift: leave it out of "
        'leaves, or rescale only (shift=False)'
      )
  return names


def shares(
  weights: Sequence[float] | None, count: int, *, caller: str
) -> list[float]:
  """Returns the weights of the endpoints, equal by default."""
  shares = [1 / max(count, 1)] * count if weights is None else [*weights]
  if len(shares) != count or not np.isclose(sum(shares), 1):
    raise ValueError(
      f'{caller}: weights {shares} for {count} endpoints, expected one for '
      'each, of sum 1'
    )
  return shares
