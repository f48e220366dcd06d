"""Re-basin by gradient: permutations relaxed by Sinkhorn's iteration."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from wsl import deltas, tree, types
from wsl.align import _assignment, _permutation, _soft, _symmetry
from wsl.align._match import weight_gains
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
  leaves: types.Leaves = weight_gains.default_leaves,
) -> _permutation.Permutation:
  r"""Learns a permutation of a model by gradient descent on a relaxed one.

  .. math:: \min_Z L(P(Z)\, \theta_m), \qquad P_g = \lim_k
    (\mathrm{columns} \circ \mathrm{rows})^k \exp(Z_g / \tau)

  Every group has free logits Z, one matrix for each pair of outer indices. A
  step makes doubly stochastic matrices of them, applies these to the model and
  differentiates the loss implicitly through the iteration. At the end each
  matrix is rounded to a permutation. All steps run in one compiled scan.

  Args:
    fixed: the model that the other is brought near to, leaves ``[...]``.
    moving: the model to permute, of the same structure and shapes.
    symmetry: the symmetry of both.
    key: draws the noise in the logits, and one key for each call of a loss.
    loss: ``'l2'``, :math:`\|\theta_f - P \theta_m\|^2`; ``'cosine'``, one minus
      the cosine between them; or a function of the softly permuted model and a
      key, such as the task's loss at the midpoint with ``fixed``, or at a
      random place on the line, for a batch that the key chooses.
    steps: gradient steps.
    temperature: the tau above, > 0; small is near a permutation, with gradients
      that fade.
    iterations: of Sinkhorn's normalisation of rows and columns.
    noise: standard deviation of the first logits.
    optimizer: an optax transformation for the logits; Adam at 0.1 if ``None``.
    solver: the assignment solver that rounds the matrices.
    leaves: which leaves enter ``'l2'`` and ``'cosine'``: a regular expression
      or a predicate on (name, shape). By default all but running statistics of
      normalisation.

  Returns:
    The permutation to apply to ``moving``, indices ``[*outer, n]``.

  Raises:
    ValueError: if the models differ, do not fit the symmetry or hold NaN or
      inf, or if ``loss``, ``steps`` or ``temperature`` is not as above.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> hidden = align.Factor('a:0', 3)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> fixed = {'a': jnp.asarray([1.0, 2.0, 3.0])}
    >>> moving = {'a': jnp.asarray([3.0, 1.0, 2.0])}
    >>> sinkhorn(fixed, moving, symmetry=symmetry, key=jax.random.key(0),
    ...          steps=50)['a:0'].tolist()
    [1, 2, 0]

  Reference:
    Peña et al., "Re-basin via implicit Sinkhorn differentiation", 2023,
    arXiv:2212.12042.

  Differs from the official code in that the linear system of the backward pass
  is reduced to one n by n system, units of dependent groups have matrices of
  their own, and running statistics are permuted softly like any leaf.
  """
  check(fixed, moving, symmetry, 'sinkhorn')
  if isinstance(loss, str) and loss not in LOSSES:
    raise ValueError(
      f"sinkhorn: loss '{loss}' is unknown: take one of {list(LOSSES)}, or a "
      'function of the permuted model and a key'
    )
  if steps < 1:
    raise ValueError(f'sinkhorn: steps is {steps}, expected >= 1')
  if not isinstance(temperature, jax.core.Tracer) and not temperature > 0:
    raise ValueError(f'sinkhorn: temperature is {temperature}, expected > 0')
  names = _soft.matched(fixed, symmetry, leaves)
  dtype = _soft.widest(fixed, moving)
  draw, run = jax.random.split(key)
  logits = {
    group.name: jax.random.normal(k, _soft.shape(group, symmetry), dtype)
    for group, k in zip(
      symmetry.groups, jax.random.split(draw, len(symmetry.groups))
    )
  }
  matrices = _learn(
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
  return _soft.round(matrices, symmetry=symmetry, solver=solver)


def check(
  fixed: types.Params,
  moving: types.Params,
  symmetry: _symmetry.Symmetry,
  label: str,
) -> None:
  """Checks that two models can be aligned by a symmetry."""
  for name, model in (('fixed', fixed), ('moving', moving)):
    leaves = tree.named(model)
    _symmetry.check_leaves(symmetry, leaves, f'{label}: {name}')
  deltas.check(label, {'fixed': fixed, 'moving': moving})


def _l2(fixed: list[types.Array], moved: list[types.Array]) -> types.Array:
  differences = [jnp.sum(jnp.square(x - y)) for x, y in zip(fixed, moved)]
  return jnp.sum(jnp.stack(differences))


def _cosine(fixed: list[types.Array], moved: list[types.Array]) -> types.Array:
  dot = lambda a, b: jnp.sum(jnp.stack([jnp.sum(x * y) for x, y in zip(a, b)]))
  norms = jnp.sqrt(dot(fixed, fixed)) * jnp.sqrt(dot(moved, moved))
  return 1 - dot(fixed, moved) / norms


LOSSES = {'l2': _l2, 'cosine': _cosine}


@functools.cache
def _adam() -> Any:
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
def _learn(
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
) -> _soft.Matrices:
  """Returns the doubly stochastic matrices after all steps."""

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

  def step(carry: Any, key: types.PRNGKey) -> tuple[Any, None]:
    logits, state = carry
    slope = jax.grad(objective)(logits, key)
    with jax.numpy_dtype_promotion('standard'):  # optax mixes dtypes itself
      updates, state = optimizer.update(slope, state, logits)
    return (jax.tree.map(jnp.add, logits, updates), state), None

  start = (logits, optimizer.init(logits))
  (logits, _), _ = jax.lax.scan(step, start, jax.random.split(key, steps))
  return soften(logits)
