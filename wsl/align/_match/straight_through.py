"""Matching by training: a permutation that is good for the task's loss."""

from collections.abc import Callable, Iterable, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas, tree, types
from wsl.align import _assignment, _permutation, _symmetry
from wsl.align._match import weight_gains, weight_matching

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
  leaves: types.Leaves = weight_gains.default_leaves,
  solver: _assignment.Solver = _assignment.assign_scipy,
  max_sweeps: int = 100,
) -> _permutation.Permutation:
  r"""Trains what a model is matched to, for a low loss at the midpoint.

  .. math:: \pi_t = \arg\max_\pi \langle \tilde\theta_t, \pi\theta_m \rangle,
    \qquad \tilde\theta_{t+1} = \tilde\theta_t - \eta \nabla_{\tilde\theta}
    L\left(\tfrac{1}{2} (\theta_f + \pi_t\theta_m + \tilde\theta
    - \mathrm{const}(\tilde\theta))\right)

  A target, first the fixed model, stands for the permuted one: each step
  matches the moving model to it by weights, from where the last step ended,
  and the gradient of the loss at the midpoint passes straight through the
  matching to the target. The permutation with the lowest loss is returned.

  Args:
    fixed: the model that stays, leaves ``[...]``; integer leaves of a midpoint
      are its own.
    moving: the model to be permuted, of the same structure and shapes.
    symmetry: the symmetry of both.
    key: a random key, for the matchings.
    loss_fn: from a model and a batch to a scalar; compiled.
    batches: one for each step; several epochs are several times the batches.
    held_out: batches whose mean loss chooses among the permutations. With none
      a permutation is judged by the batch of its own step, as in the paper,
      which is noisy.
    optimizer: an optax transformation for the target; SGD at 0.01 with momentum
      0.9 if ``None``.
    initial: where the first matching starts, by default the order as it is.
    leaves: which leaves are matched, as in ``weight_matching``.
    solver: an assignment solver, e.g. ``align.assign_lapx``.
    max_sweeps: the greatest number of sweeps of each matching.

  Returns:
    The permutation to apply to ``moving``, indices ``[*outer, n]``.

  Raises:
    ValueError: if the models differ, do not fit the symmetry or hold NaN or
      inf; if there is no batch; or if a loss is not finite.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> hidden = align.Factor('a:0', 3)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> fixed = {'a': jnp.asarray([1.0, 2.0, 3.0])}
    >>> moving = {'a': jnp.asarray([3.0, 1.0, 2.0])}
    >>> loss_fn = lambda params, x: jnp.sum(jnp.square(params['a'] - x))
    >>> straight_through(fixed, moving, symmetry=symmetry,
    ...                  key=jax.random.key(0), loss_fn=loss_fn,
    ...                  batches=[fixed['a']] * 2)['a:0'].tolist()
    [1, 2, 0]

  Reference:
    Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
    Symmetries", 2022, arXiv:2209.04836, algorithm 2.

  Differs from the official code in that held-out batches may choose the
  permutation, where it takes the lowest loss of any training batch.
  """
  for name, model in (('fixed', fixed), ('moving', moving)):
    named = tree.named(model)
    _symmetry.check_leaves(symmetry, named, f'straight_through: {name}')
  deltas.check('straight_through', {'fixed': fixed, 'moving': moving})
  fixed, moving = tree.read(fixed), tree.read(moving)
  optimizer = _sgd() if optimizer is None else optimizer
  target = fixed
  state = optimizer.init(_floats(target))
  current, best = initial, np.inf
  found: _permutation.Permutation | None = None
  for step, batch in enumerate(batches):
    before = current
    current = weight_matching.weight_matching(
      target,
      moving,
      symmetry=symmetry,
      key=jax.random.fold_in(key, step),
      initial=before,
      leaves=leaves,
      solver=solver,
      max_sweeps=max_sweeps,
    )
    moved = _permutation.permute(moving, current, symmetry=symmetry)
    middle = _midpoint(fixed, moved)
    loss, target, state = _train(
      target, state, middle, batch, loss_fn=loss_fn, optimizer=optimizer
    )
    if not np.isfinite(loss):
      raise ValueError(
        f'straight_through: the loss of step {step} is {loss}: is the learning '
        'rate too high?'
      )
    if held_out and before is not None and found and _same(before, current):
      continue
    if held_out:
      losses = [_loss(middle, x, loss_fn=loss_fn) for x in held_out]
      loss = np.mean(np.asarray(losses, np.float64))
    if float(loss) < best:
      best, found = float(loss), current
  if found is None:
    raise ValueError('straight_through: there is no batch, give one a step')
  return found


@functools.cache
def _sgd() -> Any:
  import optax

  return optax.sgd(0.01, momentum=0.9)


@functools.partial(jax.jit, static_argnames=('loss_fn', 'optimizer'))
def _train(
  target: types.Params,
  state: Any,
  middle: types.Params,
  batch: Any,
  *,
  loss_fn: Loss,
  optimizer: Any,
) -> tuple[types.Array, types.Params, Any]:
  """Returns the loss at the midpoint, and the target after a step."""
  objective = lambda floats: loss_fn(_filled(floats, middle), batch)
  loss, slope = jax.value_and_grad(objective)(_floats(middle))
  # The target is one half of the midpoint.
  slope = jax.tree.map(lambda x: x / 2, slope)
  floats = _floats(target)
  with jax.numpy_dtype_promotion('standard'):  # optax mixes dtypes itself
    updates, state = optimizer.update(slope, state, floats)
  moved = jax.tree.map(lambda x, u: x + u.astype(x.dtype), floats, updates)
  return loss, _filled(moved, target), state


@functools.partial(jax.jit, static_argnames='loss_fn')
def _loss(middle: types.Params, batch: Any, *, loss_fn: Loss) -> types.Array:
  return loss_fn(middle, batch)


def _midpoint(fixed: types.Params, moved: types.Params) -> types.Params:
  def mean(x: types.Array, y: types.Array) -> types.Array:
    if not jnp.issubdtype(x.dtype, jnp.floating):
      return x
    return ((tree.wide(x) + tree.wide(y)) / 2).astype(x.dtype)

  return jax.tree.map(mean, fixed, moved)


def _floats(params: types.Params) -> types.Params:
  """Puts None in the place of every leaf that is not trained."""
  is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
  return jax.tree.map(lambda x: x if is_float(x) else None, params)


def _filled(floats: types.Params, params: types.Params) -> types.Params:
  return jax.tree.map(
    lambda x, y: y if x is None else x,
    floats,
    params,
    is_leaf=lambda x: x is None,
  )


def _same(a: _permutation.Permutation, b: _permutation.Permutation) -> bool:
  return all(np.array_equal(a[name], b[name]) for name in b)
