"""Re-basin by gradient descent on permutations, relaxed by Sinkhorn."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from wsl import optimizers, tree, types
from wsl.align import (
  _arguments,
  _assignment,
  _permutation,
  _soft,
  _symmetry,
)
from wsl.align._relaxed import projection


def sinkhorn(
  fixed: types.Params,
  moving: types.Params,
  *,
  symmetry: _symmetry.Symmetry,
  key: types.PRNGKey,
  loss: str | Callable[[types.Params, types.PRNGKey], types.Array] = 'l2',
  steps: int = 300,
  temperature: types.Scalar = 1.0,
  iterations: int = 20,
  noise: types.Scalar = 0.1,
  optimizer: Any = None,
  solver: _assignment.Solver = _assignment.assign_scipy,
  leaves: types.Leaves = _arguments.default_leaves,
  progress: Callable[[int, float], None] | None = None,
) -> _permutation.Permutation:
  r"""Aligns a model by gradient descent on a relaxed permutation.

  .. math:: \min_Z L(P(Z)\, \theta_m), \qquad P_g = \lim_k
    (\mathrm{columns} \circ \mathrm{rows})^k \exp(Z_g / \tau)

  Every group has logits Z as free parameters, one matrix for each pair of outer
  indices. A step projects them onto doubly stochastic matrices, applies these
  to the model and differentiates the loss implicitly through the iteration. At
  the end each matrix is rounded to a permutation. All steps run in one compiled
  scan.

  Args:
    fixed: the reference model, leaves ``[...]``.
    moving: the model to permute, of the same structure and shapes.
    symmetry: the symmetry of both.
    key: draws the noise in the logits, and one key for each call of a loss.
    loss: ``'l2'``, :math:`\|\theta_f - P \theta_m\|^2`; ``'cosine'``, one minus
      the cosine between them; or a function of the softly permuted model and a
      key, such as the task loss at the midpoint with ``fixed``, or at a
      random point of the line, on a batch drawn by the key.
    steps: gradient steps.
    temperature: tau, > 0; at low temperatures the matrices are near
      permutations and gradients vanish.
    iterations: number of Sinkhorn normalisations of rows and columns.
    noise: standard deviation of the initial logits.
    optimizer: an optax transformation for the logits; Adam at 0.1 if ``None``.
    solver: the assignment solver that rounds the matrices.
    leaves: which leaves enter ``'l2'`` and ``'cosine'``: a regular expression
      or a predicate on (name, shape). By default all but running statistics of
      normalisation.
    progress: called with the index and the loss of each step (before its
      update), when all of them are done.

  Returns:
    The permutation to apply to ``moving``, indices ``[*outer, n]``.

  Raises:
    ValueError: if the models differ, do not fit the symmetry or contain NaN or
      inf, or if ``loss``, ``steps`` or ``temperature`` is invalid.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> fixed = {'a': jnp.asarray([1.0, 2.0, 3.0])}
    >>> moving = {'a': jnp.asarray([3.0, 1.0, 2.0])}
    >>> hidden = align.Factor('a:0', 3)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> sinkhorn(fixed, moving, symmetry=symmetry, key=jax.random.key(0),
    ...          steps=50)['a:0'].tolist()
    [1, 2, 0]

  Reference:
    Peña et al., "Re-basin via implicit Sinkhorn differentiation", 2023,
    arXiv:2212.12042.

  Differs from the official code in that the linear system of the backward pass
  is reduced to one n by n system, dependent groups have a matrix for each pair
  of outer indices, and running statistics are permuted softly like any leaf.
  """
  tree.check_scalars('sinkhorn', temperature=temperature, noise=noise)
  fixed, moving = _arguments.check_models(
    {'fixed': fixed, 'moving': moving}, symmetry, caller='sinkhorn'
  )
  for model in (fixed, moving):
    tree.check_not_narrowed('sinkhorn', model)
  if isinstance(loss, str) and loss not in LOSSES:
    raise ValueError(
      f"sinkhorn: loss '{loss}' is unknown, expected one of {list(LOSSES)} or "
      'a function of the permuted model and a key'
    )
  tree.check_whole('sinkhorn', steps=steps, iterations=iterations)
  if steps < 1 or iterations < 1:
    raise ValueError(
      f'sinkhorn: steps is {steps}, iterations {iterations}, expected >= 1'
    )
  if not isinstance(temperature, jax.core.Tracer) and not temperature > 0:
    raise ValueError(f'sinkhorn: temperature is {temperature}, expected > 0')
  names = _soft.matched_leaves(fixed, symmetry, leaves)
  dtype = _soft.matrix_dtype(fixed, moving)
  draw, run = jax.random.split(key)
  logits = {
    group.name: _permutation.normal(k, _soft.shape(group, symmetry), dtype)
    for group, k in zip(
      symmetry.groups, jax.random.split(draw, len(symmetry.groups))
    )
  }
  matrices, losses = _optimise_logits(
    jax.tree.map(lambda z: z * jnp.asarray(noise, dtype), logits),
    tree.read(fixed),
    tree.read(moving),
    run,
    jnp.asarray(temperature, dtype),
    symmetry=symmetry,
    loss=loss,
    names=names,
    steps=steps,
    iterations=iterations,
    optimizer=_adam() if optimizer is None else optimizer,
  )
  if progress is not None:
    for i, value in enumerate(losses.tolist()):
      progress(i, value)
  return _soft.round(matrices, symmetry=symmetry, solver=solver)


def _l2(fixed: list[types.Array], moved: list[types.Array]) -> types.Array:
  """Returns the squared distance."""
  differences = [jnp.sum(jnp.square(x - y)) for x, y in zip(fixed, moved)]
  return jnp.sum(jnp.stack(differences))


def _cosine(fixed: list[types.Array], moved: list[types.Array]) -> types.Array:
  """Returns one minus the cosine."""
  dot = lambda a, b: jnp.sum(jnp.stack([jnp.sum(x * y) for x, y in zip(a, b)]))
  norms = jnp.sqrt(dot(fixed, fixed)) * jnp.sqrt(dot(moved, moved))
  return 1 - dot(fixed, moved) / norms


LOSSES = {'l2': _l2, 'cosine': _cosine}


@functools.cache
def _adam() -> Any:
  """Returns the default optimizer: one object, so that it compiles once."""
  import optax

  return optax.adam(0.1)


@functools.partial(
  jax.jit,
  static_argnames=(
    'symmetry',
    'loss',
    'names',
    'steps',
    'iterations',
    'optimizer',
  ),
)
def _optimise_logits(
  logits: _soft.Matrices,
  fixed: types.Params,
  moving: types.Params,
  key: types.PRNGKey,
  temperature: types.Array,
  *,
  symmetry: _symmetry.Symmetry,
  loss: str | Callable[[types.Params, types.PRNGKey], types.Array],
  names: tuple[str, ...],
  steps: int,
  iterations: int,
  optimizer: Any,
) -> tuple[_soft.Matrices, types.Array]:
  """Returns the doubly stochastic matrices after all steps, and the losses."""

  def soften(logits: _soft.Matrices) -> _soft.Matrices:
    return {
      name: projection.sinkhorn_project(
        z, temperature=temperature, iterations=iterations
      )
      for name, z in logits.items()
    }

  def objective(logits: _soft.Matrices, key: types.PRNGKey) -> types.Array:
    moved = _soft.apply(moving, soften(logits), symmetry=symmetry)
    if not isinstance(loss, str):
      return loss(moved, key)
    pair = tree.named(fixed), tree.named(moved)
    dtype = next(iter(logits.values())).dtype
    a, b = ([model[name].astype(dtype) for name in names] for model in pair)
    return LOSSES[loss](a, b)

  def step(carry: Any, key: types.PRNGKey) -> tuple[Any, types.Array]:
    # The gradient passes through the projection by its implicit derivative.
    logits, state = carry
    value, gradients = jax.value_and_grad(objective)(logits, key)
    carry = optimizers.step(
      optimizer,
      gradients,
      state,
      logits,
      value=value,
      value_fn=lambda logits: objective(logits, key),
      caller='sinkhorn',
    )
    return carry, value

  start = logits, optimizers.init(optimizer, logits, caller='sinkhorn')
  (logits, _), losses = jax.lax.scan(step, start, jax.random.split(key, steps))
  return soften(logits), losses
