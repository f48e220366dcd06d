"""A score of networks that needs no training."""

from collections.abc import Sequence

import jax.numpy as jnp

from wsl import types


def naswot(values: Sequence[types.ArrayLike]) -> types.Array:
  r"""Tells how differently a network's units see the examples of a batch.

  .. math:: \log |\det K|, \quad K_{ij} = \#\{u : c_u(x_i) = c_u(x_j)\}

  with :math:`c_u(x)` whether unit u is above zero. Examples that no unit tells
  apart make K singular and the score minus infinity.

  Args:
    values: of units before their activation function, one or more arrays
      ``[B, ...]``, such as the values at the positions of a network.

  Returns:
    The score ``[]``, larger is better; compare those of one batch.

  Raises:
    ValueError: if there are no arrays, or they differ in B.

  Example:
    >>> print(f'{naswot([jnp.asarray([[1.0, -1.0], [1.0, 1.0]])]):.4f}')
    1.0986

  Reference:
    Mellor et al., "Neural Architecture Search without Training", 2020,
    arXiv:2006.04647.
  """
  counts = [jnp.shape(x)[0] for x in values]
  if len(set(counts)) != 1:
    raise ValueError(
      f'naswot: arrays of {counts} examples: expected one or more of one batch'
    )
  codes = jnp.concatenate(
    [(jnp.asarray(x) > 0).reshape(counts[0], -1) for x in values], 1
  ).astype(jnp.float32)
  agree = codes @ codes.T + (1 - codes) @ (1 - codes).T
  return jnp.linalg.slogdet(agree)[1]
