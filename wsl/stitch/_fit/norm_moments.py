"""Moments of the normalisations inside an adapter."""

import dataclasses

import jax
import jax.numpy as jnp

from wsl import deprecation, tree, types
from wsl.stitch import _adapter


def set_norm_moments(
  adapter: _adapter.Adapter, moments: types.CrossMoments | None
) -> _adapter.Adapter:
  r"""Sets the mean and variance that an adapter's normalisations use.

  Training uses the moments of each batch (``None``). Inference needs fixed
  moments, those of the data, so that the output of an example does not depend
  on its batch. No further pass over the data is needed: with h the input of
  the weight W,

  .. math:: \mathrm{E}[h W + b] = \mathrm{E}[h] W + b, \qquad
    \mathrm{Var}[h W + b] = \mathrm{diag}(W^\top \mathrm{Cov}(h) W)

  are the moments of the second normalisation's input.

  Args:
    adapter: of kind ``norm_conv``; other kinds are returned unchanged.
    moments: of its input, x; ``None`` for the moments of each batch.

  Returns:
    The adapter with the moments set, or removed.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl.stitch import Adapter, Norm
    >>> adapter = Adapter(before=Norm(jnp.ones(1), jnp.zeros(1)))
    >>> both = types.CrossMoments(
    ...   5, jnp.ones(1), jnp.ones(1), jnp.full((1, 1), 4.0), jnp.ones((1, 1)))
    >>> set_norm_moments(adapter, both).before.variance.tolist()
    [4.0]
  """
  before, after = adapter.before, adapter.after
  if moments is None:
    remove = lambda norm: (
      norm and dataclasses.replace(norm, mean=None, variance=None)
    )
    return dataclasses.replace(
      adapter, before=remove(before), after=remove(after)
    )
  mean, covariance = moments.mean_x, moments.xx
  if before is not None:
    variance = jnp.diagonal(covariance)
    before = dataclasses.replace(before, mean=mean, variance=variance)
    # The normalisation maps to mean beta; its factors scale the covariance.
    rate = before.scale * jax.lax.rsqrt(variance + before.epsilon)
    mean, covariance = before.offset, rate[:, None] * covariance * rate[None]
  if after is not None:
    variance = jnp.diagonal(covariance)
    if adapter.weight is not None:
      weight = _adapter.effective_weight(adapter.weight, adapter)
      mean = tree.matmul(mean, weight)
      variance = variances(covariance, weight)
    if adapter.bias is not None:
      mean = mean + adapter.bias
    after = dataclasses.replace(after, mean=mean, variance=variance)
  return dataclasses.replace(adapter, before=before, after=after)


def variances(covariance: types.Array, weight: types.Array) -> types.Array:
  """Returns the variances of x W, ``[m]``: the diagonal of W^T Cov(x) W."""
  found = jnp.sum(weight * tree.matmul(covariance, weight), 0)
  return jnp.maximum(found, 0)  # rounding can make a zero negative


settle = deprecation.renamed('settle', set_norm_moments)
