"""Scores by which entries are pruned, and the matrices they belong to."""

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
    ValueError: if no leaf has a Gram matrix.

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
  found = {k: (weights[k], g) for k, g in of.items() if is_gram(g)}
  if not found:
    raise ValueError(f'{function}: no leaf has a Gram matrix: give stats.gram')
  return found


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
  """Returns the score of each entry of the chosen leaves, at least 0."""
  plain = tree.named(masked_lib.unmask(params))
  chosen = tree.select(plain, _prunable if leaves is None else leaves)
  names = [name for name in plain if chosen[name]]
  if not names:
    raise ValueError(f'{function}: no leaf to prune: choose some by leaves=')
  given = plain if scores is None else tree.named(scores)
  found = {}
  for name in names:
    if name not in given or given[name].shape != plain[name].shape:
      raise ValueError(
        f"{function}: leaf '{name}' of shape {tuple(plain[name].shape)} has no "
        'score of its shape: choose leaves that have by leaves='
      )
    found[name] = tree.apply_kernel(_magnitude, given[name])
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


def _magnitude(x: types.Array) -> types.Array:
  """Returns magnitudes in float32 or wider."""
  return jnp.abs(tree.wide(x))


def _wanda(
  x: types.Array, gram: types.Array, *, view: tree.Matrix
) -> types.Array:
  """Multiplies magnitudes by the root mean square of each input."""
  rows = tree.wide(view.split(x))
  power = jnp.diagonal(gram, axis1=-2, axis2=-1).astype(rows.dtype)
  return view.join(jnp.abs(rows) * jnp.sqrt(power)[..., None], x.shape)
