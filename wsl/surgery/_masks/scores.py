"""Scores by which entries are pruned, and the matrices they belong to."""

import math
from typing import Any

import jax.numpy as jnp

from wsl import tree, types
from wsl.surgery._masks import masked as masked_lib

_IS_VIEW = lambda x: x is None or isinstance(x, tree.Matrix)


def wanda_scores(params: types.Params, grams: types.Tree) -> dict[str, Any]:
  r"""Returns the scores of Wanda, weights times the norms of their inputs.

  .. math:: S_{ij} = |W_{ij}| \sqrt{\tfrac1n \sum_b x_{bi}^2}

  Args:
    params: any pytree, plain or with ``Masked`` nodes.
    grams: the ``Gram`` of each linear map, as ``stats.gram`` returns them.

  Returns:
    Scores by the names of the leaves with a Gram matrix, for
    ``magnitude_masks(scores=, scope='output')``.

  Raises:
    ValueError: if no leaf has a Gram matrix, or one does not fit its leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import types
    >>> grams = {'w': types.Gram(jnp.diag(jnp.asarray([4.0, 1.0]))[None])}
    >>> wanda_scores({'w': jnp.asarray([[1.0], [-3.0]])}, grams)['w'].tolist()
    [[2.0], [3.0]]

  Reference:
    Sun et al., "A Simple and Effective Pruning Approach for Large Language
    Models", 2023, arXiv:2306.11695.
  """
  found = {}
  for name, (weight, gram) in with_grams('wanda_scores', params, grams).items():
    view = tree.Static(gram_view(weight.shape, gram))
    found[name] = tree.apply_kernel(_wanda, weight, gram.matrix, view=view)
  return found


def with_grams(
  function: str, params: types.Params, grams: types.Tree
) -> dict[str, tuple[Any, types.Gram]]:
  """Returns the weight and the Gram matrix of each leaf that has one."""
  is_gram = lambda x: isinstance(x, types.Gram)
  of = tree.named(grams, is_leaf=is_gram)
  weights = tree.named(masked_lib.unmask(params))
  given = {k: g for k, g in of.items() if is_gram(g)}
  if not given:
    raise ValueError(f'{function}: no leaf has a Gram matrix: give stats.gram')
  for name, gram in given.items():
    if name not in weights:
      raise ValueError(
        f"{function}: the model has no leaf '{name}' of the Gram matrices"
        f'{tree.nearest(name, list(weights))}'
      )
    shape = tuple(weights[name].shape)
    groups, d = gram.matrix.shape[-3], gram.matrix.shape[-1]
    inside = all(a < len(shape) for a in gram.axes)
    inputs = math.prod(shape[a] for a in gram.axes) if inside else 0
    if inputs != d or math.prod(shape) % max(d * groups, 1):
      raise ValueError(
        f"{function}: leaf '{name}' {shape} has other inputs than its Gram "
        f'matrix {tuple(gram.matrix.shape)} of axes {tuple(gram.axes)}: take '
        'stats.gram of this model'
      )
  return {name: (weights[name], gram) for name, gram in given.items()}


def gram_view(shape: tuple[int, ...], gram: types.Gram) -> tree.Matrix:
  """Returns a leaf as the matrices that its Gram matrices belong to."""
  rest = tuple(a for a in range(len(shape)) if a not in gram.axes)
  groups = gram.matrix.shape[-3]
  return tree.Matrix(rows=gram.axes, columns=rest, groups=groups)


def of_leaves(
  function: str,
  params: types.Params,
  leaves: types.Leaves | None,
  scores: types.Tree | None,
) -> dict[str, Any]:
  """Returns the score of each entry of the chosen leaves, at least 0.

  Entries that an earlier mask removed have the score 0.
  """
  plain = tree.named(masked_lib.unmask(params))
  try:
    chosen = tree.select(plain, _prunable if leaves is None else leaves)
  except ValueError as error:
    raise ValueError(f'{function}: {error}') from None
  names = [
    name for name in plain if chosen[name] and tree.is_float(plain[name])
  ]
  if not names:
    raise ValueError(f'{function}: no leaf to prune: choose some by leaves=')
  given = plain if scores is None else tree.named(scores)
  masks = masks_of(params, dict.fromkeys(names))
  found = {}
  for name in names:
    if name not in given or given[name].shape != plain[name].shape:
      raise ValueError(
        f"{function}: leaf '{name}' of shape {tuple(plain[name].shape)} has no "
        'score of its shape: choose leaves that have by leaves='
      )
    found[name] = tree.apply_kernel(_magnitude, given[name], *masks[name])
  tree.check_finite(
    function, {k: given[k] for k in names}, remedy='leave it out by leaves='
  )
  return found


def masks_of(
  params: types.Params, names: dict[str, Any]
) -> dict[str, list[types.Array]]:
  """Returns for each name a list of its mask, empty if it has none."""
  masks = masked_lib.masks(params)
  return {name: [masks[name]] if name in masks else [] for name in names}


def views_of(
  function: str, found: dict[str, Any], matrices: tree.Matrices | None
) -> dict[str, tree.Matrix]:
  """Returns the view of each chosen leaf; all have to be matrices."""
  try:
    views = tree.named(tree.views(found, matrices), is_leaf=_IS_VIEW)
  except ValueError as error:
    raise ValueError(f'{function}: {error}') from None
  for name, view in views.items():
    if view is None or not view.is_matrix:
      raise ValueError(
        f"{function}: leaf '{name}' is no matrix: say which axes are inputs by "
        'matrices=, or leave it out by leaves='
      )
  return views


def _prunable(name: str, shape: tuple[int, ...]) -> bool:
  return len(shape) > 1 and not tree.is_vectors(name)


def _magnitude(x: types.Array, *mask: types.Array) -> types.Array:
  """Returns magnitudes in float32 or wider, 0 outside an earlier mask."""
  found = jnp.abs(tree.wide(x))
  return jnp.where(mask[0], found, jnp.zeros_like(found)) if mask else found


def _wanda(
  x: types.Array, gram: types.Array, *, view: tree.Matrix
) -> types.Array:
  """Multiplies magnitudes by the root mean square of each input."""
  # Without W_ij output j of example b changes by x_bi W_ij: the root mean
  # square of that change is |W_ij| (mean_b x_bi^2)^(1/2), the diagonal of G.
  rows = tree.wide(view.split(x))
  power = jnp.diagonal(gram, axis1=-2, axis2=-1).astype(rows.real.dtype)
  return view.join(jnp.abs(rows) * jnp.sqrt(power)[..., None], x.shape)
