"""The parts of an adapter as one affine map."""

import jax
import jax.numpy as jnp

from wsl import types
from wsl.stitch import _adapter


def fold(adapter: _adapter.Adapter) -> _adapter.Adapter:
  r"""Folds the parts of a trained adapter into a weight and a bias.

  .. math:: W' = \mathrm{diag}(s) (W + \tfrac{\alpha}{r} A B) \,
    \mathrm{diag}(s'), \quad s = \gamma / \sqrt{\sigma^2 + \epsilon}

  Args:
    adapter: one with a weight, its normalisations settled.

  Returns:
    One that does the same with fewer products. All of it is trainable.

  Raises:
    ValueError: if it has no weight, or takes the moments of each batch.

  Example:
    >>> one = jnp.ones((1, 1))
    >>> low_rank = _adapter.Adapter(one, down=one, up=one, alpha=2.0)
    >>> fold(low_rank).weight.tolist(), fold(low_rank).bias.tolist()
    ([[3.0]], [0.0])
  """
  if adapter.weight is None:
    raise ValueError('fold: an adapter without a weight has nothing to fold')
  weight = _adapter.effective_weight(adapter.weight, adapter)
  bias = jnp.zeros(weight.shape[1:], weight.dtype)
  if adapter.bias is not None:
    bias = adapter.bias
  if adapter.before is not None:
    rate, shift = _affine(adapter.before)
    bias = bias + jnp.matmul(shift, weight, precision='highest')
    weight = rate[:, None] * weight
  if adapter.after is not None:
    rate, shift = _affine(adapter.after)
    weight, bias = weight * rate[None], bias * rate + shift
  return _adapter.Adapter(
    weight,
    bias,
    anchors=adapter.anchors,
    ridge=adapter.ridge,
    grid=adapter.grid,
  )


def _affine(norm: _adapter.Norm) -> tuple[types.Array, types.Array]:
  """Returns factor and shift of a normalisation."""
  if norm.mean is None or norm.variance is None:
    raise ValueError(
      'fold: a normalisation by the moments of each batch is not one map: '
      'settle the adapter first'
    )
  rate = norm.scale * jax.lax.rsqrt(norm.variance + norm.epsilon)
  return rate, norm.offset - norm.mean * rate
