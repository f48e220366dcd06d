"""The forward pass of a LoRA, with a weight for each rank."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types


def project(
  x: types.ArrayLike,
  factors: deltas_lib.Factors,
  *,
  gates: types.Array | None = None,
) -> types.Array:
  r"""Applies a LoRA to inputs, without the product of its factors.

  .. math:: y = s B (g \odot A x)

  Args:
    x: inputs, ``[..., in]``.
    factors: of one matrix.
    gates: g, ``[..., r]``: a weight of each rank for each input, of
      ``smora_gates`` or ``mora_gates``. 1 by default.

  Returns:
    ``[..., out]`` in the dtype of x (float32 for integers), computed in float32
    or wider.

  Raises:
    ValueError: if the factors are of several matrices, of other inputs, or of
      another rank than the gates.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import adapters, tree
    >>> view = tree.Matrix(rows=(0,), columns=(1,))
    >>> a, b = jnp.asarray([[1.0, 2.0]]), jnp.asarray([[1.0], [3.0]])
    >>> one = adapters.Factors(a, b, 0.5, (2, 2), view)
    >>> project(jnp.asarray([2.0, 1.0]), one).tolist()
    [2.0, 6.0]

  Reference:
    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021,
    arXiv:2106.09685.
  """
  x = jnp.asarray(x)
  check_inputs('project', x, factors)
  wide = tree.wide_dtype(x, factors.a, factors.b)
  a, b = factors.a.astype(wide), factors.b.astype(wide)
  ranks = tree.matmul(x.astype(wide), a.T)
  if gates is not None:
    gates = jnp.asarray(gates)
    if gates.shape[-1:] != ranks.shape[-1:]:
      raise ValueError(
        f'project: gates have shape {gates.shape}, the rank is {factors.rank}: '
        'give one gate for each rank, last'
      )
    ranks = ranks * gates.astype(wide)
  scale = jnp.asarray(factors.scale).astype(wide)
  y = scale * tree.matmul(ranks, b.T)
  narrow = tree.is_float(x) and tree.is_complex(y) == tree.is_complex(x)
  return y.astype(x.dtype) if narrow else y


def gate(factors: deltas_lib.Factors, gates: types.Array) -> deltas_lib.Factors:
  r"""Returns the plain LoRA that an input with these gates sees.

  .. math:: \tau = s B \operatorname{diag}(g) A

  Args:
    factors: of one matrix, or G of them.
    gates: g, ``[r]``.

  Returns:
    The factors, b in its dtype.

  Raises:
    ValueError: if there is not one gate for each rank.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import adapters, tree
    >>> view = tree.Matrix(rows=(0,), columns=(1,))
    >>> one = adapters.Factors(
    ...   jnp.ones((2, 3)), jnp.ones((1, 2)), 1.0, (3, 1), view)
    >>> gate(one, jnp.asarray([0.0, 2.0])).b.tolist()
    [[0.0, 2.0]]

  Reference:
    as ``smora_gates`` and ``mora_gates``.
  """
  gates = jnp.asarray(gates)
  tree.check_not_narrowed('gate', {'B': factors.b})
  if gates.shape != (factors.rank,):
    raise ValueError(
      f'gate: gates have shape {gates.shape}, expected ({factors.rank},): give '
      'those of one input'
    )
  gates = gates.reshape(*[1] * (factors.b.ndim - 1), -1)
  wide = tree.wide(factors.b)
  b = (wide * gates.astype(wide.dtype)).astype(factors.b.dtype)
  return dataclasses.replace(factors, b=b)


def check_inputs(function: str, x: Any, factors: deltas_lib.Factors) -> None:
  """Checks that factors are of one matrix, and inputs are its inputs."""
  deltas_lib.check_shapes(function, '', factors)
  tree.check_not_narrowed(function, {'A': factors.a, 'B': factors.b})
  if factors.a.ndim != 2:
    raise ValueError(
      f'{function}: the factors are of {len(factors.a)} matrices: take those '
      'of one'
    )
  if x.shape[-1:] != factors.a.shape[1:]:
    raise ValueError(
      f'{function}: x has shape {x.shape}, the factors have '
      f'{factors.a.shape[1]} inputs: give them last'
    )
