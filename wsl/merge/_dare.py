"""DARE: drop entries at random and rescale the rest."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.merge import _stack

_RESCALES = ('inverse', 'l1', 'none')


def dare(
  deltas: types.Deltas,
  *,
  rate: types.Scalar,
  key: types.PRNGKey,
  rescale: str = 'inverse',
) -> types.Deltas:
  r"""Drops each entry with probability ``rate`` and rescales the others.

  .. math:: \tilde\tau_{t,p} = \frac{m_{t,p} \tau_{t,p}}{1 - r}, \qquad
    m_{t,p} \sim \mathrm{Bernoulli}(1 - r)

  It edits task vectors: follow it by any merge. Its expectation is the task
  vector itself, so it leaves a linear merge unbiased, and no other.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    rate: fraction of entries dropped, ``0 <= rate <= 1``; may be traced. At 1
      nothing is left.
    key: a key; the mask depends on it, the number of the model and the name of
      the leaf alone, so it is the same sharded, streamed or on one device.
    rescale: ``'inverse'`` divides by ``1 - rate`` (the paper), ``'l1'``
      restores the L1 norm of each leaf of each model (mergekit; a noisy factor
      on small leaves), ``'none'`` leaves the kept entries as they are.

  Returns:
    The sparse task vectors, every leaf ``[T, ...]``.

  Raises:
    ValueError: if ``rate`` is out of range, or ``rescale`` is unknown.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> sparse = dare({'w': jnp.ones((1, 8))}, rate=0.5, key=jax.random.key(0))
    >>> sorted(set(sparse['w'].ravel().tolist()))
    [0.0, 2.0]

  Reference:
    Yu et al., "Language Models are Super Mario: Absorbing Abilities from
    Homologous Models as a Free Lunch", 2023, arXiv:2311.03099.

  Differs from the official code in its random numbers, and at rate 1, where
  that returns unscaled zeros as well.
  """
  _stack.count(deltas)
  if not isinstance(rate, jax.core.Tracer) and not 0 <= rate <= 1:
    raise ValueError(
      f'dare(rate={rate}): rate is the fraction dropped, expected '
      '0 <= rate <= 1'
    )
  _stack.one_of('dare: rescale', rescale, dict.fromkeys(_RESCALES))
  keys = tree.map_named(
    lambda name, _: jax.random.fold_in(
      key, np.uint32(zlib.crc32(name.encode()))
    ),
    deltas,
  )
  return tree.map(_drop, deltas, keys, rate=rate, rescale=rescale)


def _drop(
  x: types.Array, key: types.PRNGKey, *, rate: types.Scalar, rescale: str
) -> types.Array:
  wide = tree.wide(x)
  keep = 1 - jnp.asarray(rate).astype(wide.dtype)
  # Drawn in float32 whatever the dtype, so that the mask is the same.
  share = keep.astype(np.float32)
  mask = jax.vmap(
    lambda t: jax.random.bernoulli(
      jax.random.fold_in(key, t), share, x.shape[1:]
    )
  )(jnp.arange(len(x)))
  kept = jnp.where(mask, wide, jnp.zeros_like(wide))
  if rescale == 'inverse':
    kept = _stack.divide(kept, keep.reshape((1,) * x.ndim))
  if rescale == 'l1':
    size = lambda y: jnp.abs(y).reshape(len(y), -1).sum(1)
    factor = _stack.divide(size(wide), size(kept))
    kept = kept * _stack.align(factor, x)
  return kept.astype(x.dtype)
