"""The matrices among the leaves of a model."""

from typing import Any

from wsl import tree, types


def matrices(
  function: str,
  params: types.Params,
  leaves: types.Leaves,
  rules: tree.Matrices | None,
) -> dict[str, tuple[Any, tree.Matrix]]:
  """Returns the chosen leaves that are matrices, with their views, by name.

  Integers and bools are no matrices.

  Args:
    function: the public function, as the user called it.
    params: the model.
    leaves: the leaves to consider, as in ``tree.select``.
    rules: which of them are matrices, as in ``tree.views``.

  Raises:
    ValueError: as ``tree.views``, or if there is none, or one is complex.
  """
  try:
    chosen = tree.named(tree.select(params, leaves))
    named = {k: x for k, x in tree.named(params).items() if chosen[k]}
    views = tree.views(named, rules)
  except ValueError as error:
    raise ValueError(f'{function}: {error}') from None
  is_leaf = lambda x: x is None or isinstance(x, tree.Matrix)
  found = {
    name: (named[name], view)
    for name, view in tree.named(views, is_leaf=is_leaf).items()
    if view is not None and view.is_matrix and tree.is_float(named[name])
  }
  if not found:
    raise ValueError(f'{function}: no leaf is a matrix: take other leaves=')
  only = {name: leaf for name, (leaf, _) in found.items()}
  tree.check_real(function, only, 'only real ones have factors')
  return found
