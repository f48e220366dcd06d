"""The first-order Taylor expansion of a model in its weights."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from wsl import deltas, tree, types
from wsl.scale._bank import base_checks


def linearise(
  apply_fn: Callable[[types.Params, Any], types.Tree], base: types.Params
) -> Callable[[types.Delta, Any], types.Tree]:
  r"""Linearises a model in its weights at the base.

  .. math:: g(\delta, x) = f(x; \theta_0) + J_f(x; \theta_0)\, \delta

  It costs one Jacobian-vector product. Candidates share the primal pass under a
  ``vmap`` over the deltas alone. Only ``apply_fn`` is linearised, not what is
  computed from its outputs, such as a normalisation of features.

  Args:
    apply_fn: maps (params, inputs) to outputs, an array or a pytree.
    base: the point of expansion, leaves ``[...]``.

  Returns:
    A function of (delta, inputs). A delta is the result of ``combine`` or of a
    merge, ``None`` at leaves that do not change; of factors it takes the
    product. The base is bound by a
    ``jax.tree_util.Partial``, so that under ``jit`` it is an argument and not a
    constant.

  Example:
    >>> import jax.numpy as jnp
    >>> g = linearise(lambda w, x: x * w**2, jnp.asarray(3.0))
    >>> g(jnp.asarray(0.5), jnp.asarray(1.0)).item()
    12.0

  Reference:
    Ortiz-Jimenez et al., "Task Arithmetic in the Tangent Space: Improved
    Editing of Pre-Trained Models", 2023, arXiv:2305.12827.
  """
  tree.check_not_narrowed('linearise', base)
  return jax.tree_util.Partial(functools.partial(_tangent, apply_fn), base)


def linear_model(
  apply_fn: Callable[[types.Params, Any], types.Tree], base: types.Params
) -> Callable[[types.Params, Any], types.Tree]:
  """Linearises a model, with the signature of ``apply_fn``.

  It replaces ``apply_fn`` in any objective.

  Args:
    apply_fn: maps (params, inputs) to outputs.
    base: the point of expansion.

  Returns:
    A function of (params, inputs): ``linearise`` at ``params - base``.

  Example:
    >>> import jax.numpy as jnp
    >>> g = linear_model(lambda w, x: x * w**2, jnp.asarray(3.0))
    >>> g(jnp.asarray(3.5), jnp.asarray(1.0)).item()
    12.0
  """
  tree.check_not_narrowed('linear_model', base)
  return jax.tree_util.Partial(functools.partial(_from_params, apply_fn), base)


def _from_params(
  apply_fn: Callable[..., Any],
  base: types.Params,
  params: types.Params,
  inputs: Any,
) -> Any:
  """Evaluates the linear model at params - base; integer leaves are fixed."""
  params = tree.conform('linear_model: the params', params, 'the base', base)
  delta = jax.tree.map(
    lambda x, y: (
      tree.wide(y) - tree.wide(x) if base_checks.is_float(x) else None
    ),
    base,
    params,
  )
  return _tangent(apply_fn, base, delta, inputs)


def _tangent(
  apply_fn: Callable[..., Any],
  base: types.Params,
  delta: types.Delta,
  inputs: Any,
) -> Any:
  """Returns f(base) + J delta by forward-mode differentiation."""
  is_none = lambda x: x is None
  delta = deltas.dense(delta)
  delta = tree.conform(
    'linearise: the delta', delta, 'the base', base, is_leaf=is_none
  )
  moves = jax.tree.map(lambda x, d: d is not None, base, delta, is_leaf=is_none)
  leaves, structure = jax.tree.flatten(base)
  moving = [i for i, move in enumerate(jax.tree.leaves(moves)) if move]
  tangents = [
    d.astype(leaves[i].dtype) for i, d in zip(moving, jax.tree.leaves(delta))
  ]

  def outputs(values: list[types.Array]) -> Any:
    filled = list(leaves)
    for i, value in zip(moving, values):
      filled[i] = value
    return apply_fn(jax.tree.unflatten(structure, filled), inputs)

  primals = [leaves[i] for i in moving]
  at_base, change = jax.jvp(outputs, (primals,), (tangents,))
  return jax.tree.map(jnp.add, at_base, change)
