"""RegMean: least squares on the outputs of each linear map."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _linear, _per_leaf, _stack


@deltas_lib.on_stacks
def regmean(
  deltas: types.Deltas,
  *,
  grams: types.Tree,
  shrink: types.Scalar,
  coefs: Any = 1.0,
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
) -> types.Delta:
  r"""Fits each linear map to the outputs of all models on their own inputs.

  .. math:: \tau = \Big(\sum_t c_t \tilde G_t\Big)^{-1}
    \sum_t c_t \tilde G_t \tau_t, \qquad
    \tilde G_t = \alpha G_t + (1 - \alpha) \operatorname{diag}(G_t)

  with G_t the mean of :math:`x x^\top` over the inputs x of that map in model t
  on task t. Leaves without a Gram matrix (biases, norms, embeddings) are
  averaged with the weights c_t. The Gram matrices say which axes are inputs and
  which are layers, experts or feature groups: each is solved on its own.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    grams: a tree with a ``types.Gram`` (``matrix [T, groups, d, d]``) or
      ``None`` for each leaf: ``tree.stack([stats.gram(...) for each model])``.
      Their ``axes`` are the input axes of the leaf: ``(0,)`` for a Flax kernel
      ``[in, out]``, ``(1,)`` for a weight ``[out, in]``.
    shrink: alpha, the factor of the off-diagonal entries, 0 .. 1: a number, or
      one for each leaf, ``{'attn': 0.8, '.*': 0.9}``, as in ``tree.scalars``.
      At 1 the sum of Gram matrices must be regular: give more rows than inputs,
      or take 0.9.
    coefs: c_t: a number, ``[T]``, or one for each leaf.
    matrices: which leaves are solved, as in ``tree.views``; the others are
      averaged. Their Gram matrices have to have the same rows and blocks. If
      None, all leaves with Gram matrices are.
    otherwise: leaves of more than two axes that have no Gram matrix, and are
      not biases or norm scales by name: ``'refuse'``, or ``'mean'``.

  Returns:
    The merged task vector, every leaf ``[...]``. An input that is zero in every
    model takes equal weights.

  Raises:
    ValueError: if ``shrink`` is out of range, a Gram matrix does not fit its
      leaf or its view, or a leaf of more than two axes has none.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import types
    >>> deltas = {'w': jnp.asarray([[[1.0]], [[3.0]]])}
    >>> matrix = jnp.asarray([3.0, 1.0]).reshape(2, 1, 1, 1)
    >>> gram = types.Gram(matrix)
    >>> regmean(deltas, grams={'w': gram}, shrink=1.0)['w'].tolist()
    [[1.5]]

  Reference:
    Jin et al., "Dataless Knowledge Fusion by Merging Weights of Language
    Models", 2022, arXiv:2212.09849.

  Differs from the official code in solving instead of inverting, and in the
  dtype of alpha, which that code rounds to float32 whatever the data.
  """
  grams = _stack.per_leaf('regmean: the grams', grams, deltas)
  return prepare('regmean', deltas, shrink, coefs, matrices, otherwise).solve(
    deltas, grams
  )


class Regression(NamedTuple):
  """The hyperparameters of RegMean at the leaves of a tree.

  Attributes:
    function: the public function, for messages.
    shrink: alpha at each leaf.
    coefs: c_t at each leaf, ``[T]``.
    views: the view at each leaf.
    chosen: whether the views say which leaves are solved.
    refuse: whether leaves of more than two axes need a Gram matrix.
  """

  function: str
  shrink: types.Tree
  coefs: types.Tree
  views: types.Tree
  chosen: bool
  refuse: bool

  def solve(self, deltas: types.Deltas, grams: types.Tree) -> types.Delta:
    """Averages leaves by their Gram matrices, or by the coefficients."""
    weights = tree.map_named(
      self._weight, deltas, grams, self.views, self.shrink, self.coefs
    )
    return _linear.weighted_mean(deltas, weights)

  def _weight(
    self,
    name: str,
    x: types.Array,
    gram: Any,
    view: Any,
    shrink: Any,
    coefs: Any,
  ) -> Any:
    """Returns the weight of one leaf: shrunk Gram matrices, or ``[T]``."""
    kernel = view and view.is_matrix
    if self.chosen and not kernel:
      return coefs
    if gram is None:
      named = kernel or not (self.chosen or tree.is_vectors(name))
      if x.ndim > 3 and named and self.refuse:
        raise ValueError(
          f"{self.function}: leaf '{name}' of shape {x.shape[1:]} has no Gram "
          'matrix: give one (stats.gram), take matrices= to leave it out, or '
          "otherwise='mean'"
        )
      return coefs
    _linear.check_gram(self.function, name, x, gram)
    if self.chosen:
      _check_view(self.function, name, x, gram, view)
    matrix = tree.apply_kernel(_shrunk, gram.matrix, shrink=shrink, coefs=coefs)
    return dataclasses.replace(gram, matrix=matrix)


def prepare(
  function: str,
  deltas: types.Deltas,
  shrink: Any,
  coefs: Any,
  matrices: tree.Matrices | None,
  otherwise: str,
) -> Regression:
  """Checks the hyperparameters of ``regmean``, and gives each leaf its own."""
  models = _stack.count(function, deltas)
  check = functools.partial(
    _checks.fraction, meaning='the factor of off-diagonal entries'
  )
  chosen = matrices is not None
  return Regression(
    function,
    _per_leaf.number_at_leaves(function, 'shrink', shrink, deltas, check),
    _per_leaf.at_leaves(
      function, 'coefs', coefs, deltas, models, lambda _: None
    ),
    _stack.views(function, deltas, matrices, otherwise if chosen else 'mean'),
    chosen,
    otherwise != 'mean',
  )


def _check_view(
  function: str,
  name: str,
  x: types.Array,
  gram: types.Gram,
  view: tree.Matrix,
) -> None:
  """Checks that a Gram matrix has the rows and the blocks of a view.

  Raises:
    ValueError: naming the leaf.
  """
  shape = x.shape[1:]
  blocks, groups = view.sizes(shape)[0], gram.matrix.shape[1]
  rest = tuple(a for a in range(len(shape)) if a not in gram.axes)
  # The blocks of a Gram matrix are the leading parts of the other axes.
  leading = blocks == 1 or (*view.batch, *view.columns) == rest
  if view.rows != tuple(gram.axes) or blocks != groups or not leading:
    raise ValueError(
      f"{function}: the Gram matrix of leaf '{name}' has the input axes "
      f'{tuple(gram.axes)} and {groups} blocks, its view {view} has {blocks}: '
      'take stats.matrix_views of the same function'
    )


def _shrunk(
  matrix: types.Array, *, shrink: types.Scalar, coefs: types.Array
) -> types.Array:
  """Scales Gram matrices by ``coefs`` and their off-diagonal by ``shrink``.

  For PSD G, alpha G + (1 - alpha) diag(G) is positive definite for alpha < 1
  if no diagonal entry is zero, however few rows G was summed over.
  """
  wide = tree.wide(matrix)
  eye = jnp.eye(wide.shape[-1], dtype=bool)
  factor = jnp.where(eye, 1, jnp.asarray(shrink).astype(wide.dtype))
  coefs = _stack.expand_rank(coefs.astype(wide.dtype), wide)
  return coefs * wide * jnp.broadcast_to(factor, wide.shape)
