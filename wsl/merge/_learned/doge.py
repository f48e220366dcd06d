"""DOGE: a shared change of task vectors, by projected gradient descent."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _stack
from wsl.merge._learned import adam
from wsl.merge._sparse import trim
from wsl.merge._spectral import columns, matrix

# Entries kept beyond floor(density * entries).
_EXTRA = {'paper': 0, 'official': 1}


@deltas_lib.on_stacks
def doge(
  deltas: types.Deltas,
  *,
  density: Any = 0.3,
  norm: Any = 0.07,
  steps: int = 400,
  rate: Any = 1e-4,
  subspace: int = 6,
  dialect: str = 'paper',
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
) -> types.Delta:
  r"""Sums task vectors of one norm, after a change that lowers their conflict.

  .. math:: \tau = \sum_t \lambda_t \, m_t \odot (\tau_t + \Delta), \qquad
    \lambda_t = \eta / \|\tau_t\|_F

  for each matrix of rows of inputs and columns of outputs. The masks m_t keep
  the largest entries of each task. Steps of Adam from 0 change
  :math:`\Delta` so that it lowers

  .. math:: L = \sum_j \Big\| 1^\top \tau_j \odot \Big(\tau_j - \sum_t \lambda_t
    (\tau_t + \Delta) \Big) \Big\|^2,

  and the slopes are projected to :math:`\nabla L \, (I - V V^\top)`. V has the
  leading :math:`\lfloor k / s \rfloor` directions, k being ``min(m, n)``, of
  the joined :math:`\lfloor k / T \rfloor` leading right singular vectors of
  each task: the outputs that tasks share do not change.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    density: the fraction of the entries of all matrices that is kept of each
      task vector, ``0 < density <= 1``: one number, or ``[T]``.
    norm: eta, the norm of each task vector of a matrix, ``>= 0``, a number that
      may be traced. It is absolute: the result does not grow with the task
      vectors, except for the change.
    steps: steps of Adam, ``>= 0``; not traced.
    rate: the learning rate of Adam, ``>= 0``, a number that may be traced.
    subspace: s, a whole number ``>= 1``: more projects out less.
    dialect: ``'paper'`` keeps ``floor(density * d)`` of d entries, at least
      one; ``'official'`` one more, as in ``trim``.
    matrices: which leaves are matrices, and which of their axes are rows
      (inputs) and columns: any of the forms of ``tree.views``. Weights stored
      as ``[out, in]`` need ``tree.torch``.
    otherwise: as in ``iso_c``.

  Returns:
    The merged task vector, every leaf ``[...]``, to be applied with the
    coefficient 1. Leaves that are no matrices are zero: the base's stay.

  Raises:
    ValueError: if a hyperparameter is out of range, or as ``tree.views``,
      naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[[3.0, 0.0], [0.0, 4.0]]])}
    >>> merged = doge(deltas, density=1.0, norm=1.0, steps=0)['w']
    >>> [[round(x, 3) for x in row] for row in merged.tolist()]
    [[0.6, 0.0], [0.0, 0.8]]

  Reference:
    Wei et al., "Modeling Multi-Task Model Merging as Adaptive Projective
    Gradient Descent", 2025, arXiv:2501.01230.

  Differs from the official code in the choice of leaves (weights of the encoder
  without its norms), in the layout, which is ``[out, in]`` there, in the number
  of kept entries as ``dialect`` says, and for zero task vectors, which have no
  weight here and are NaN there. Scanned layers are changed matrix by matrix.
  Adam divides each entry of a projected slope, so that the change is orthogonal
  to V only nearly, there as here.
  """
  for name, value in {'norm': norm, 'rate': rate}.items():
    tree.check_scalars('doge', remedy='merge groups of leaves', **{name: value})
    _checks.at_least_zero('doge', name, value)
  _checks.integer('doge', 'steps', steps, least=0)
  if not isinstance(subspace, (int, np.integer)) or subspace < 1:
    raise ValueError(f'doge(subspace={subspace}): expected an integer >= 1')
  views = _stack.views('doge', deltas, matrices, otherwise)
  ranked = tree.map_named(
    lambda _, x, view: x if view and view.is_matrix and x.size else None,
    deltas,
    views,
  )
  if not jax.tree.leaves(ranked):
    return tree.map(_zero, deltas)
  bounds = trim.thresholds(
    'doge',
    ranked,
    density=density,
    scope='global',
    dialect=dialect,
    dialects=_EXTRA,
  )
  return matrix.on_matrices(
    'doge',
    _doge,
    deltas,
    matrices,
    otherwise,
    vectors=_zero,
    bound=jax.tree.leaves(bounds)[0],
    norm=norm,
    rate=rate,
    steps=tree.Static(int(steps)),
    subspace=tree.Static(int(subspace)),
  )


def _zero(x: types.Array) -> types.Array:
  """Returns the zero task vector of a leaf ``[T, ...]``."""
  return jnp.zeros_like(x[0])


def _doge(
  x: types.Array,
  *,
  bound: types.Array,
  norm: Any,
  rate: Any,
  steps: int,
  subspace: int,
) -> types.Array:
  """Merges ``[T, B, m, n]`` of entries that reach ``bound``, ``[1, T]``."""
  norm, rate = (jnp.asarray(v).astype(x.dtype) for v in (norm, rate))
  square = jnp.sum(jnp.square(x), (-2, -1), keepdims=True)
  root = jnp.sqrt(jnp.where(square > 0, square, 1))
  scales = jnp.where(square > 0, norm / root, 0)
  change = _change(x, scales, _shared(x, subspace), rate=rate, steps=steps)
  kept = _stack.map_models(tree.reaches, x, tree.wide(bound[0]))
  return _stack.sum_models(scales * jnp.where(kept, x + change[None], 0))


def _shared(x: types.Array, subspace: int) -> types.Array:
  """Returns the directions of outputs that tasks share, ``[B, n, r]``."""
  smaller = min(x.shape[-2:])
  each = smaller // len(x)
  joined = columns.join(tree.leading(x, each).v)
  # A basis of a task's subspace that is turned has the same joint directions.
  return tree.leading(joined, min(smaller // subspace, len(x) * each)).u


def _change(
  x: types.Array,
  scales: types.Array,
  shared: types.Array,
  *,
  rate: types.Array,
  steps: int,
) -> types.Array:
  """Returns the change ``[B, m, n]`` that steps of Adam find."""
  # With S the scaled sum of the tasks and l the sum of their scales, the loss
  # is the sum over tasks j and outputs o of (c_jo - l sum_i x_jio D_io)^2,
  # c_jo = sum_i x_jio (x_jio - S_io). Its slope is linear in the change D.
  total = _stack.sum_models(scales * x)
  scale = _stack.sum_models(scales)
  over_inputs = lambda y: jnp.sum(y, -2, keepdims=True)
  fixed = over_inputs(x * (x - total[None]))

  def step(i: Any, state: Any) -> Any:
    change, moments = state
    rest = fixed - scale[None] * over_inputs(x * change[None])
    slope = -2 * scale * _stack.sum_models(rest * x)
    inside = tree.matmul(tree.matmul(slope, shared), _transpose(shared))
    direction, moments = adam.step(slope - inside, moments, i)
    return change - rate * direction, moments

  zero = jnp.zeros_like(total)
  change, _ = jax.lax.fori_loop(0, steps, step, (zero, adam.start(zero)))
  return change


_transpose = jnp.matrix_transpose
