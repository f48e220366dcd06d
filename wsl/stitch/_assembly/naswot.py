"""NASWOT: a score of networks that needs no training."""

from collections.abc import Sequence

import jax.numpy as jnp

from wsl import tree, types


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
    The score ``[]``, larger is better, comparable within one batch; float32, or
    float64 if a value is.

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
  wide = tree.widen(*values)
  codes = jnp.concatenate(
    [(x > 0).astype(x.dtype).reshape(counts[0], -1) for x in wide], 1
  )
  # Bits agree where both are 1 or both are 0.
  agree = tree.matmul(codes, codes.T) + tree.matmul(1 - codes, (1 - codes).T)
  return jnp.linalg.slogdet(agree)[1]
