r"""REPAIR without a pass over the merged model.

If the inputs of a layer were those of each model, the outputs of the averaged
layer would be the average of the outputs, :math:`y = \sum_t c_t y_t`. Mean and
variance of that average follow from the moments of the merged models alone.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from wsl import deltas, tree, types
from wsl.align import _arguments, _unit_moments
from wsl.align._partial import bias_refit, least_squares


def repair_in_closed_form(
  models: Sequence[types.Params],
  *,
  grams: types.Tree,
  weights: Sequence[float] | None = None,
  shift: bool = True,
  leaves: types.Leaves | None = None,
  epsilon: float = 1e-5,
) -> types.Params:
  r"""Averages aligned models and restores the moments of units, in one pass.

  With the outputs y_t of a unit in model t, before the activation function, the
  average of the models has, layer by layer,

  .. math::
    m = \sum_t c_t m_t, \qquad
    v = \sum_{s, t} c_s c_t \operatorname{Cov}(y_s, y_t), \qquad
    \sigma = \sum_t c_t \sqrt{\operatorname{Var}(y_t)},

  and with :math:`\gamma = \sqrt{(\sigma^2 + \epsilon) / (v + \epsilon)}`

  .. math::
    W \leftarrow \gamma \sum_t c_t W_t, \qquad
    b \leftarrow \gamma \Bigl(\sum_t c_t b_t - m\Bigr) + m.

  The covariances are those of the same examples in all models, from their joint
  Gram matrices, and no merged model is evaluated: other weights c_t need no
  further data. It is an approximation, as the merged layers get merged inputs;
  ``repair`` measures them.

  Args:
    models: N aligned models, ``[a, align.permute(b, ...), ...]``, leaves
      ``[...]``.
    grams: ``stats.joint_gram(apply_fn, models, batches)``.
    weights: c_t, of sum 1; ``None`` for equal weights.
    shift: ``False`` only rescales, as in ``repair``.
    leaves: which maps to correct, as in ``repair``; ``None`` for all.
    epsilon: added to variances, in squared units of the activations.

  Returns:
    The corrected average, of the dtypes of the first model, which also gives
    the integer leaves.

  Raises:
    ValueError: if the models differ, a Gram matrix does not fit the models, a
      chosen map has no bias to shift, or an argument is out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import stats
    >>> dense = lambda p, x: x @ p['w'] + p['b'][None]
    >>> a = {'b': jnp.zeros(1), 'w': jnp.asarray([[1.0], [0.0]])}
    >>> b = {'b': jnp.ones(1), 'w': jnp.asarray([[0.0], [1.0]])}
    >>> x = jnp.asarray([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    >>> grams = stats.joint_gram(dense, [a, b], [x])
    >>> found = repair_in_closed_form([a, b], grams=grams, epsilon=0.0)
    >>> (2 * found['w'] ** 2).round(4).tolist(), found['b'].tolist()
    ([[1.0], [1.0]], [0.5])

  Reference:
    Jordan et al., "REPAIR: REnormalizing Permuted Activations for
    Interpolation Repair", 2022, arXiv:2211.08403 (its approximate variant).

  Differs from the official code in N models, and in the covariances of the
  outputs before the activation function, where the code takes their standard
  deviations with the correlations after it.
  """
  name = 'repair_in_closed_form'
  tree.check_scalars(name, epsilon=epsilon)
  if epsilon < 0:
    raise ValueError(f'{name}: epsilon={epsilon}, expected >= 0')
  models = deltas.check(name, {f'model {t}': m for t, m in enumerate(models)})
  for model in models:
    tree.check_not_narrowed(name, model)
    tree.check_real(name, model, 'only moments of real maps are defined')
  models = [tree.read(model) for model in models]
  shares = _unit_moments.shares(weights, len(models), caller=name)
  by_leaf = _arguments.by_leaf(
    grams,
    models[0],
    types.Gram,
    argument=f'{name}: grams',
    hint='stats.joint_gram(apply_fn, models, ...)',
  )
  merged = tree.map(_average, *models, weights=np.asarray(shares))
  ends, found = [], {}
  for leaf, gram in by_leaf.items():
    each, average = _unit_statistics(leaf, gram, models, shares)
    ends.append(each)
    found[leaf] = average
  names = _unit_moments.chosen_maps(found, leaves, shift, caller=name)
  by_model = [dict(zip(by_leaf, column)) for column in zip(*ends)]
  corrections = {
    leaf: _unit_moments.correction(
      found[leaf],
      _unit_moments.target(leaf, found[leaf], by_model, shares),
      shift,
      epsilon,
    )
    for leaf in names
  }
  return _unit_moments.fold_in(merged, found, corrections)


def _average(
  first: types.Array, *others: types.Array, weights: types.Array
) -> types.Array:
  """Returns the weighted mean of a leaf; integers are those of the first."""
  if not tree.is_float(first):
    return first
  wide = [tree.wide(x) for x in (first, *others)]
  terms = [c.astype(x.dtype) * x for c, x in zip(weights, wide)]
  return sum(terms[1:], terms[0]).astype(first.dtype)


def _unit_statistics(
  leaf: str, gram: types.Gram, models: list[types.Params], shares: list[float]
) -> tuple[list[types.Moments], types.Moments]:
  """Returns the moments of a map's outputs in each model and in their average.

  Args:
    leaf: the name of the map's weight.
    gram: its joint Gram matrix, ``[groups, T d, T d]``.
    models: T models.
    shares: their weights.
  """
  named = [tree.named(model) for model in models]
  x = named[0][leaf]
  rows = [_rows(model[leaf], gram) for model in named]
  groups, d, _ = rows[0].shape
  size = len(models) * d
  if gram.mean is None or gram.matrix.shape != (groups, size, size):
    raise ValueError(
      f"repair_in_closed_form: the Gram matrix of '{leaf}' has shape "
      f'{gram.matrix.shape}, expected {(groups, size, size)}: pass '
      'stats.joint_gram(apply_fn, models, ...)'
    )
  # y_t = W_t^T x_t + b_t: Cov(y_s, y_t) of one unit is w_s^T C_st w_t, with the
  # blocks C_st of the centred Gram matrix.
  covariance = bias_refit.centre(gram).matrix.reshape(
    groups, len(models), d, len(models), d
  )
  shape = [n for axis, n in enumerate(x.shape) if axis not in gram.axes]
  w = jnp.stack(rows).astype(covariance.dtype)  # [T, groups, d, m]
  products = jnp.einsum(
    'sgdm,gsdte,tgem->stgm', w, covariance, w, precision='highest'
  )
  between = products.reshape(len(models), len(models), *shape)
  means = []
  for t, mean in enumerate(jnp.split(gram.mean, len(models), axis=-1)):
    outputs = tree.matmul(mean[:, None].astype(w.dtype), w[t]).reshape(shape)
    if gram.bias:
      outputs += named[t][gram.bias].reshape(shape).astype(w.dtype)
    means.append(outputs)
  c = jnp.asarray(shares, w.dtype)
  moments = lambda mean, variance: types.Moments(
    mean, jnp.maximum(variance, 0), gram.count, gram.axes, gram.bias
  )
  each = [moments(mean, between[t, t]) for t, mean in enumerate(means)]
  mean = jnp.tensordot(c, jnp.stack(means), 1, precision='highest')
  variance = jnp.einsum('s,t,st...->...', c, c, between, precision='highest')
  return each, moments(mean, variance)


def _rows(x: types.Array, gram: types.Gram) -> types.Array:
  """Reshapes a leaf to ``[groups, d, m]``."""
  front = jnp.moveaxis(tree.wide(x), gram.axes, range(len(gram.axes)))
  return least_squares.as_rows(front, len(gram.axes), gram.matrix.shape[-3])
