"""MOS: each step moves an adapter towards the mean of the earlier ones."""

from typing import Any, TYPE_CHECKING

import jax
import jax.numpy as jnp

from wsl import tree, types

if TYPE_CHECKING:
  import optax


def merge_past(
  past: types.Deltas, *, momentum: types.Scalar = 0.1
) -> 'optax.GradientTransformation':
  r"""Merges an adapter with those of earlier tasks after every step.

  .. math:: A_t \leftarrow (1 - m) A_t + \frac{m}{t} \sum_{j < t} A_j

  Chain it after the optimizer: ``optax.chain(optax.sgd(0.03), merge_past(past,
  momentum=0.1))``. Without gradients the adapter converges to the mean of the
  past, by a factor 1 - m in each step.

  Args:
    past: the adapters of t earlier tasks, every leaf ``[t, ...]``, as
      ``tree.stack`` makes them; leaves like those that are trained.
    momentum: m, 0 to 1; 0.1 in the paper. It may be traced.

  Returns:
    A transformation without state; its ``update`` needs the parameters.

  Raises:
    ValueError: if the momentum is out of range, ``past`` holds no task, or, in
      ``update``, the parameters are missing or differ from it.

  Example:
    >>> import jax.numpy as jnp, optax
    >>> past = {'w': jnp.asarray([[0.0], [4.0]])}
    >>> rule = optax.chain(optax.sgd(1.0), merge_past(past, momentum=0.5))
    >>> params = {'w': jnp.asarray([5.0])}
    >>> updates, _ = rule.update(
    ...   {'w': jnp.ones(1)}, rule.init(params), params
    ... )
    >>> optax.apply_updates(params, updates)['w'].tolist()
    [3.0]

  Reference:
    Sun et al., "MOS: Model Surgery for Pre-Trained Model-Based Class-
    Incremental Learning", 2024, arXiv:2412.09441.

  Differs from the official code, which also merges in every forward pass, once
  for each block, so that adapters drift while they are evaluated.
  """
  tree.check_scalars('merge_past', momentum=momentum)
  if not tree.is_traced(momentum) and not 0 <= float(momentum) <= 1:
    raise ValueError(f'merge_past: momentum={momentum}: expected 0 to 1')
  for name, leaf in tree.named(past).items():
    if not leaf.shape or not leaf.shape[0]:
      raise ValueError(
        f"merge_past: leaf '{name}' of past, of shape {tuple(leaf.shape)}, "
        'holds no task: stack at least one by tree.stack'
      )
  tree.check_not_narrowed('merge_past', past)
  mean = tree.read(tree.map(_mean, past))

  def init(params: types.Params) -> tuple[()]:
    del params
    return ()

  def update(
    updates: types.Tree, state: tuple[()], params: types.Params | None = None
  ) -> tuple[types.Tree, tuple[()]]:
    if params is None:
      raise ValueError(
        'merge_past: update needs the parameters: update(updates, state, '
        'params)'
      )
    target = tree.conform('merge_past: past', mean, 'params', params)
    step = lambda u, p, a: _step(u, p, a, momentum)
    return jax.tree.map(step, updates, params, target), state

  import optax

  return optax.GradientTransformation(init, update)


def _mean(x: types.Array) -> types.Array:
  """Averages ``[t, ...]`` over the tasks, in float32 or wider."""
  return jnp.mean(tree.wide(x), axis=0)


def _step(u: types.Array, p: types.Array, mean: types.Array, m: Any) -> Any:
  """Returns the change from p to (1 - m) (p + u) + m mean."""
  if p.shape != mean.shape:
    raise ValueError(
      f'merge_past: a leaf of shape {p.shape} has a past of {mean.shape}'
    )
  if not tree.is_float(p):
    return u
  m = jnp.asarray(m).astype(mean.dtype)
  wide = u.astype(mean.dtype)
  return (wide + m * (mean - p.astype(mean.dtype) - wide)).astype(u.dtype)
