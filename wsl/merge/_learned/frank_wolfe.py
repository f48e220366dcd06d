"""FW-Merging: Frank-Wolfe steps towards the experts that lower the loss."""

from typing import Any

import jax
import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _stack
from wsl.merge._learned import iterations, tasks


@deltas_lib.on_stacks
def frank_wolfe(
  deltas: types.Deltas,
  *,
  base: types.Params,
  loss_fn: tasks.Loss,
  batches: Any,
  steps: int = 10,
  rate: Any = 1.0,
  scale: Any = 1.0,
  form: str = 'hard',
  scope: str = 'global',
  dialect: str = 'paper',
  start: types.Delta | None = None,
  coef_steps: int = 0,
  coef_rate: Any = 1e-3,
) -> types.Delta:
  r"""Merges the experts that a linear model of the loss selects, step by step.

  .. math:: j_i = \operatorname*{argmin}_j \langle \nabla L(\theta_0 + \tau),
    \tau_j \rangle, \qquad
    \tau \leftarrow \tau + \gamma_i s \, (\tau_{j_i} - \tau), \qquad
    \gamma_i = \frac{2 \eta}{i + 2},

  with L the mean of the tasks' losses. Each :math:`\tau` is in the convex hull
  of the start and the experts if :math:`\gamma_i s \le 1`.

  In the soft form each task selects, one after another and by its own slope,
  an expert that no task before it has; and

  .. math:: \tau \leftarrow \tau + \sum_{j\ \text{selected}} c_j
    (\tau_j - \tau), \qquad c_j = s \gamma_i, \quad \gamma_0 = 1,

  or coefficients for each leaf that steps of Adam learn from the loss.

  Args:
    deltas: stacked task vectors in memory, every leaf ``[T, ...]``.
    base: the model that they are differences to.
    loss_fn: a hashable function ``(params, batch) -> loss``, the mean over the
      batch.
    batches: labelled examples of each of K tasks, a pytree of ``[K, ...]``;
      heads of tasks may be part of it. The authors take 100 for each task.
    steps: iterations i, ``>= 0``; not traced.
    rate: eta, ``>= 0``, a number that may be traced; the authors take 0.1 with
      ``scale=0.3``.
    scale: s, ``>= 0``, a number that may be traced.
    form: ``'hard'`` or ``'soft'``.
    scope: ``'global'`` selects one expert for the whole model, ``'leaf'`` one
      for each leaf.
    dialect: ``'paper'`` selects by the inner product. ``'official'`` selects by
      the sum over leaves of :math:`\cos(\nabla L, \theta_0 + \tau_j)`; in the
      hard form it starts at :math:`s \sum_t \tau_t`, which is a candidate too.
    start: the first :math:`\tau`, a tree of ``[...]``. By default the mean of
      the task vectors, or as ``dialect`` says; in the soft form zero.
    coef_steps: soft form: steps of Adam for the coefficients of the selected
      experts in each leaf, from ``scale`` in the first iteration, and from 1e-8
      in others; 0 takes c as above. Not traced.
    coef_rate: their learning rate, a number that may be traced.

  Returns:
    The merged task vector, every leaf ``[...]``, to be applied with the
    coefficient 1.

  Raises:
    ValueError: if an option is unknown, a hyperparameter is out of range, the
      batches have no axis of tasks, or the loss is no scalar.

  Example:
    >>> import jax.numpy as jnp
    >>> base, deltas = {'w': jnp.zeros(2)}, {'w': jnp.eye(2)}
    >>> loss = lambda params, x: jnp.sum((params['w'] - x) ** 2)
    >>> merged = frank_wolfe(deltas, base=base, loss_fn=loss, steps=200,
    ...                      batches=jnp.asarray([[0.75, 0.25]]))
    >>> [round(x, 2) for x in merged['w'].tolist()]
    [0.75, 0.25]

  Reference:
    Chen et al., "FW-Merging: Scaling Model Merging with Frank-Wolfe
    Optimization", 2025, arXiv:2503.12649.

  Differs from the official code as ``dialect`` says. That code draws new
  examples in every iteration, minimises entropies of test images in the soft
  form unless told otherwise, and gives NaN for a leaf without slope; here such
  a leaf has no vote. Leaves are read as a whole: the slopes need the model.
  """
  count = _stack.count('frank_wolfe', deltas)
  _checks.choose('frank_wolfe: form', form, {'hard': 0, 'soft': 0})
  _checks.choose('frank_wolfe: scope', scope, {'global': 0, 'leaf': 0})
  _checks.choose('frank_wolfe: dialect', dialect, {'paper': 0, 'official': 0})
  hyper = {'rate': rate, 'scale': scale, 'coef_rate': coef_rate}
  for name, value in hyper.items():
    tree.check_scalars('frank_wolfe', remedy='give one', **{name: value})
    _checks.at_least_zero('frank_wolfe', name, value)
  for value in (steps, coef_steps):
    _checks.integer('frank_wolfe', 'steps', value, least=0)
  batches = tasks.stacked('frank_wolfe', batches)
  if form == 'soft' and len(jax.tree.leaves(batches)[0]) > count:
    raise ValueError(
      f'frank_wolfe: {len(jax.tree.leaves(batches)[0])} tasks select from '
      f'{count} experts, one each: give at most {count} tasks'
    )
  deltas = _stack.arrays('frank_wolfe', deltas)
  base = _stack.arrays('frank_wolfe: the base', base)
  wide = tree.wide_dtype(*jax.tree.leaves(deltas))
  numbers = {k: jnp.asarray(v).astype(wide) for k, v in hyper.items()}
  found = iterations.merge(
    base,
    jax.tree.map(tree.wide, deltas),
    _start(start, deltas),
    batches,
    numbers,
    loss_fn,
    iterations.Choices(
      int(steps), int(coef_steps), form, scope, dialect == 'official'
    ),
  )
  return jax.tree.map(lambda y, x: y.astype(x.dtype), found, deltas)


def _start(
  start: types.Delta | None, deltas: types.Deltas
) -> types.Delta | None:
  """Returns the given start in wide dtypes, and in the order of the deltas.

  Raises:
    ValueError: if it does not fit the deltas.
  """
  if start is None:
    return None
  label = 'frank_wolfe: the start'
  is_none = lambda x: x is None
  start = tree.conform(label, start, 'the deltas', deltas, is_leaf=is_none)

  def fit(name: str, x: types.Array, y: types.Array) -> types.Array:
    if y is None or y.shape != x.shape[1:]:
      raise ValueError(f"{label} does not have {x.shape[1:]} at leaf '{name}'")
    return tree.wide(y).astype(tree.wide_dtype(x))

  return tree.map_named(fit, deltas, _stack.arrays(label, start))
