"""A penalty on coefficients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types


def shrinkage(coefs: Any, *, p: int, weight: types.Scalar = 0.5) -> types.Array:
  r"""Measures coefficients, block by block, over the vectors.

  .. math:: \gamma \frac{1}{m} \sum_{j=1}^{m} \lVert \lambda_{\cdot j} \rVert_p

  Give it to ``fit`` as ``penalty``, bound by ``functools.partial``. With p = 1
  single coefficients go to zero, with p = 2 those of a whole block, for all
  vectors. Where a norm has no gradient, at zero, this one has gradient zero:
  learning may start there.

  Args:
    coefs: any tree, leaves ``[T]`` or ``[T, cells...]``, where each cell is a
      block; or ``[]``, a number that all vectors share, which counts once.
    p: 1 or 2.
    weight: gamma, 0 or more; 0.5 in the paper.

  Returns:
    A number, ``[]``.

  Raises:
    ValueError: if p is neither 1 nor 2, or there are no coefficients.

  Example:
    >>> import jax.numpy as jnp
    >>> coefs = {'w': jnp.asarray([3.0, -4.0]), 'b': jnp.asarray([0.0, 0.0])}
    >>> [shrinkage(coefs, p=p, weight=1.0).item() for p in (1, 2)]
    [3.5, 2.5]

  Reference:
    Zhang et al., "Knowledge Composition using Task Vectors with Learned
    Anisotropic Scaling", 2024, arXiv:2407.02880, on task addition.
  """
  if p not in (1, 2):
    raise ValueError(f'shrinkage(p={p}): expected 1 or 2')
  norms = [_norms(jnp.asarray(x), p) for x in jax.tree.leaves(coefs)]
  if not norms:
    raise ValueError('shrinkage: there are no coefficients')
  dtype = jnp.result_type(*norms)
  total = sum(jnp.sum(x.astype(dtype)) for x in norms)
  blocks = sum(x.size for x in norms)
  return jnp.asarray(weight, dtype) * total / np.asarray(blocks, dtype)


def _norms(x: types.Array, p: int) -> types.Array:
  """Returns the norm of each block, ``[cells...]``."""
  x = tree.wide(jnp.atleast_1d(x))
  if p == 1:
    return jnp.sum(x * jnp.sign(x), axis=0)  # abs has gradient 1 at 0
  squares = jnp.sum(x * x, axis=0)
  is_zero = squares == 0
  root = jnp.sqrt(jnp.where(is_zero, jnp.ones_like(squares), squares))
  return jnp.where(is_zero, jnp.zeros_like(root), root)
