"""Which leaves are matrices, and the second moments of their inputs."""

from typing import Any, NamedTuple

import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types

_OTHERWISE = {'refuse': 'refuse', 'keep': 'mean'}


class View(NamedTuple):
  """A leaf as matrices.

  Attributes:
    view: its rows are the inputs, its columns the outputs.
    gram: ``[G, in, in]``, the second moments of the inputs; or None.
  """

  view: tree.Matrix
  gram: Any = None


def of(
  function: str,
  delta: dict[str, Any],
  matrices: tree.Matrices | None,
  otherwise: str,
  grams: types.Tree | None,
) -> dict[str, View | None]:
  """Returns the view of each leaf, None where it is no matrix of floats.

  A leaf with a Gram matrix has the axes that it names; others are viewed by
  ``tree.views``.

  Args:
    function: the public function, for messages.
    delta: leaves by name; those in factors have their own view.
    matrices: as in ``tree.views``.
    otherwise: ``'refuse'`` or ``'keep'``, for leaves of more than two axes.
    grams: a tree with a ``types.Gram`` or None for each leaf; or None.

  Raises:
    ValueError: if a Gram matrix does not fit its leaf, or has none, or a leaf
      has no view.
  """
  if otherwise not in _OTHERWISE:
    hint = tree.nearest(str(otherwise), list(_OTHERWISE))
    raise ValueError(
      f"{function}(otherwise={otherwise!r}): expected 'refuse' or 'keep'{hint}"
    )
  is_gram = lambda x: isinstance(x, types.Gram)
  given = tree.named(grams, is_leaf=is_gram)
  for name in given:
    if name not in delta:
      raise ValueError(
        f"{function}: grams have a leaf '{name}' that the task vector does not "
        f'have{tree.nearest(name, list(delta))}: give grams of this model'
      )
  factored = {
    name: View(x.view) for name, x in delta.items() if deltas_lib.is_factors(x)
  }
  rest = {
    name: x for name, x in delta.items() if name not in {*given, *factored}
  }
  try:
    found = tree.views(rest, matrices, otherwise=_OTHERWISE[otherwise])
  except ValueError as error:
    raise ValueError(f'{function}: {error}') from None
  numbers = [
    k for k, x in rest.items() if hasattr(x, 'dtype') and not tree.is_float(x)
  ]
  views: dict[str, View | None] = {}
  for name, leaf in delta.items():
    if name in given:
      views[name] = _of_gram(function, name, leaf, given[name])
    elif name in factored:
      views[name] = factored[name]
    elif name in numbers:
      views[name] = None
    else:
      view = found[name]
      views[name] = View(view) if view is not None and view.is_matrix else None
  return views


def _of_gram(function: str, name: str, leaf: Any, gram: types.Gram) -> View:
  """Returns the view of a leaf whose input axes a Gram matrix names.

  The outputs are the other axes in stored order, of which a stack of layers or
  of feature groups is the outer part: equal consecutive blocks.
  """
  shape = gram.matrix.shape
  columns = tuple(a for a in range(len(leaf.shape)) if a not in gram.axes)
  groups = int(np.prod(shape[:-2], dtype=np.int64))
  view = tree.Matrix(rows=gram.axes, columns=columns, groups=groups)
  try:
    sizes = view.sizes(leaf.shape)
    view.fit(leaf.shape)
    fits = sizes[1] == shape[-1]
    if deltas_lib.is_factors(leaf):
      fits &= view.rows == leaf.view.rows
  except (ValueError, IndexError):
    fits = False
  if not fits:
    raise ValueError(
      f'{function}: the Gram matrix {tuple(shape)} on axes {gram.axes} does '
      f"not fit leaf '{name}' {tuple(leaf.shape)}: give that of this model"
    )
  matrix = tree.read(gram.matrix)
  if not np.all(np.isfinite(matrix)):
    raise ValueError(
      f"{function}: the Gram matrix of leaf '{name}' is not finite: leave out "
      'the batches that make it so'
    )
  return View(view, matrix.reshape(-1, *shape[-2:]))
