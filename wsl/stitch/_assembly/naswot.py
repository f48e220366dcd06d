"""NASWOT: a score of networks that needs no training."""

from collections.abc import Sequence

import jax.numpy as jnp

from wsl import types


def naswot(values: Sequence[types.ArrayLike]) -> types.Array:
  r"""Returns the log-determinant of the kernel of binary activation patterns.

  .. math:: \log |\det K|, \quad K_{ij} = \#\{u : c_u(x_i) = c_u(x_j)\}

  where the code :math:`c_u(x)` is 1 if unit u is above zero, and K counts equal
  bits, the number of units minus the Hamming distance. Similar examples have
  nearly parallel rows, so the score is large if the network separates the
  batch, and minus infinity if two examples have equal codes.

  Args:
    values: values of units before their activation function, one or more arrays
      ``[B, ...]``, such as the features at the positions of a network.

  Returns:
    The score ``[]``, float32, larger is better; comparable within one batch.

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
  # Bits agree where both are 1 or both are 0. The counts are exact, for 0 and 1
  # are exact operands at any precision of the product.
  agree = codes @ codes.T + (1 - codes) @ (1 - codes).T
  return jnp.linalg.slogdet(agree)[1]
