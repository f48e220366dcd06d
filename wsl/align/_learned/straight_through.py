r"""Straight-through matching: a permutation trained for the task's loss.

The permutation depends on the weights :math:`\tilde\theta` it is matched to by
an argmax, whose derivative is zero almost everywhere. The straight-through
estimator replaces the derivative of the permuted weights
:math:`\pi(\tilde\theta)\,\theta_m` by the identity.
"""

from collections.abc import Callable, Iterable, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import batches as batches_lib
from wsl import optimizers, tree, types
from wsl.align import _arguments, _assignment, _permutation, _symmetry
from wsl.align._learned import path
from wsl.align._match import weight_matching

Loss = Callable[[types.Params, Any], types.Array]


def straight_through(
  fixed: types.Params,
  moving: types.Params,
  *,
  symmetry: _symmetry.Symmetry,
  key: types.PRNGKey,
  loss_fn: Loss,
  batches: Iterable[Any],
  held_out: Sequence[Any] = (),
  optimizer: Any = None,
  initial: _permutation.Permutation | None = None,
  leaves: types.Leaves = _arguments.default_leaves,
  solver: _assignment.Solver = _assignment.assign_scipy,
  max_sweeps: int = 100,
  progress: Callable[[int, float, _permutation.Permutation], None]
  | None = None,
) -> _permutation.Permutation:
  r"""Finds a permutation with a low loss at the midpoint, by training.

  .. math:: \pi_t = \arg\max_\pi \langle \tilde\theta_t, \pi\theta_m \rangle,
    \qquad \tilde\theta_{t+1} = \tilde\theta_t - \eta \nabla_{\tilde\theta}
    L\left(\tfrac{1}{2} (\theta_f + \pi_t\theta_m + \tilde\theta
    - \mathrm{const}(\tilde\theta))\right)

  The target :math:`\tilde\theta` starts as the fixed model. Each step matches
  the moving model to the target by weights, starting from the previous
  permutation, and applies the gradient of the loss at the midpoint of the fixed
  and the permuted model to the target. The permutation with the lowest loss is
  returned.

  Args:
    fixed: the model that stays in its order, leaves ``[...]``; the midpoint
      takes its integer leaves.
    moving: the model to permute, of the same structure and shapes.
    symmetry: the symmetry of both.
    key: a random key, for the matchings.
    loss_fn: the function ``(params, batch) -> scalar``; compiled.
    batches: one batch for each step; repeat them for several epochs.
    held_out: batches whose mean loss selects the permutation. Without them each
      permutation is scored by the batch of its own step, as in the paper, which
      is noisy.
    optimizer: an optax transformation for the target, line searches included;
      SGD with learning rate 0.01 and momentum 0.9 if ``None``.
    initial: the start of the first matching, as in ``weight_matching``: by
      default a permutation grown from the inputs and outputs.
    leaves: the leaves that are matched, as in ``weight_matching``.
    solver: an assignment solver, e.g. ``align.assign_lapx``.
    max_sweeps: the maximum number of sweeps of each matching.
    progress: called after each step with its index, the loss of its batch at
      the midpoint, and its permutation.

  Returns:
    The permutation to apply to ``moving``, indices ``[*outer, n]``.

  Raises:
    ValueError: if the models differ, do not fit the symmetry or contain NaN
      or inf; if there is no batch; or if a loss is not finite.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> loss_fn = lambda params, x: jnp.sum(jnp.square(params['a'] - x))
    >>> hidden = align.Factor('a:0', 3)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> fixed = {'a': jnp.asarray([1.0, 2.0, 3.0])}
    >>> moving = {'a': jnp.asarray([3.0, 1.0, 2.0])}
    >>> straight_through(fixed, moving, symmetry=symmetry,
    ...                  key=jax.random.key(0), loss_fn=loss_fn,
    ...                  batches=[fixed['a']] * 2)['a:0'].tolist()
    [1, 2, 0]

  Reference:
    Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
    Symmetries", 2022, arXiv:2209.04836, algorithm 2.

  Differs from the official code, which starts the first matching from the
  current order (here ``initial=align.identity(symmetry)``), in the grown start;
  and in that held-out batches may select the permutation, where the official
  code selects the lowest loss of any training batch.
  """
  batches_lib.check_iterable(batches, name='straight_through')
  batches_lib.check_iterable(
    held_out, name='straight_through', argument='held_out'
  )
  fixed, moving = _arguments.check_models(
    {'fixed': fixed, 'moving': moving}, symmetry, caller='straight_through'
  )
  for model in (fixed, moving):
    tree.check_not_narrowed('straight_through', model)
  fixed, moving = tree.read(fixed), tree.read(moving)
  optimizer = _sgd() if optimizer is None else optimizer
  target = fixed
  state = optimizers.init(
    optimizer, _float_leaves(target), caller='straight_through'
  )
  current, lowest = initial, np.inf
  best: _permutation.Permutation | None = None
  # Git Re-Basin, algorithm 2: pi = argmax <target, pi moving>, then a gradient
  # step on the target. Each ascent starts from the permutation of the previous
  # step, since the target has changed little.
  for step, batch in enumerate(batches):
    previous = current
    current = weight_matching.weight_matching(
      target,
      moving,
      symmetry=symmetry,
      key=jax.random.fold_in(key, step),
      initial=previous,
      leaves=leaves,
      solver=solver,
      max_sweeps=max_sweeps,
    )
    permuted = _permutation.permute(moving, current, symmetry=symmetry)
    midpoint = _midpoint(fixed, permuted)
    loss, target, state = _train_step(
      target, state, midpoint, batch, loss_fn=loss_fn, optimizer=optimizer
    )
    if not np.isfinite(loss):
      raise ValueError(
        f'straight_through: the loss of step {step} is {loss}: is the learning '
        'rate too high?'
      )
    if progress is not None:
      progress(step, float(loss), current)
    if held_out and best and previous is not None and _equal(previous, current):
      continue  # the same midpoint has the same held-out loss
    if held_out:
      losses = [_loss(midpoint, x, loss_fn=loss_fn) for x in held_out]
      loss = np.mean(np.asarray(losses, np.float64))
    if float(loss) < lowest:
      lowest, best = float(loss), current
  if best is None:
    raise ValueError(
      'straight_through: no batches given, at least one is needed '
      '(a generator can be read only once)'
    )
  return best


@functools.cache
def _sgd() -> Any:
  """Returns the default optimizer, one object so that steps compile once."""
  import optax

  return optax.sgd(0.01, momentum=0.9)


@functools.partial(jax.jit, static_argnames=('loss_fn', 'optimizer'))
def _train_step(
  target: types.Params,
  state: Any,
  midpoint: types.Params,
  batch: Any,
  *,
  loss_fn: Loss,
  optimizer: Any,
) -> tuple[types.Array, types.Params, Any]:
  """Returns the loss at the midpoint, and the target and state after a step."""
  loss_of = lambda floats: loss_fn(_with_floats(midpoint, floats), batch)
  loss, gradient = jax.value_and_grad(loss_of)(_float_leaves(midpoint))
  # The midpoint is (fixed + permuted) / 2, and the straight-through estimator
  # sets d permuted / d target = 1: hence dL/dtarget = dL/dmidpoint / 2.
  gradient = jax.tree.map(lambda x: x / 2, gradient)
  floats = _float_leaves(target)
  # The loss as a function of the target, by the same estimator.
  middle = _float_leaves(midpoint)
  near = lambda x: jax.tree.map(
    lambda m, y, z: m + (y - z) / 2, middle, x, floats
  )
  trained, state = optimizers.step(
    optimizer,
    gradient,
    state,
    floats,
    value=loss,
    value_fn=lambda x: loss_of(near(x)),
    caller='straight_through',
  )
  return loss, _with_floats(target, trained), state


@functools.partial(jax.jit, static_argnames='loss_fn')
def _loss(midpoint: types.Params, batch: Any, *, loss_fn: Loss) -> types.Array:
  """Returns the loss of a batch, compiled once for each loss function."""
  return loss_fn(midpoint, batch)


def _midpoint(fixed: types.Params, permuted: types.Params) -> types.Params:
  """Averages the float leaves of two models; others are those of ``fixed``."""
  return path.point(fixed, permuted, 0.5, like=fixed)


def _float_leaves(params: types.Params) -> types.Params:
  """Replaces every leaf that is not trained by ``None``."""
  is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
  return jax.tree.map(lambda x: x if is_float(x) else None, params)


def _with_floats(params: types.Params, floats: types.Params) -> types.Params:
  """Replaces the float leaves of a model."""
  return jax.tree.map(
    lambda x, y: y if x is None else x,
    floats,
    params,
    is_leaf=lambda x: x is None,
  )


def _equal(a: _permutation.Permutation, b: _permutation.Permutation) -> bool:
  """Returns True if two permutations are the same."""
  return all(np.array_equal(a[name], b[name]) for name in b)
