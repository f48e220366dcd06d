"""Which leaves are matrices, and in which view: rules, presets, the default."""

from collections.abc import Callable, Mapping
import re
from typing import Any, TypeAlias

import jax.numpy as jnp

from wsl import types
from wsl.tree import _names, _select
from wsl.tree._matrix import view as view_lib

Matrix = view_lib.Matrix

# A choice of leaves, rules by regular expression, or a rule as a function of
# (name, shape). True is a matrix in the default view; False and None are none.
Matrices: TypeAlias = (
  types.Leaves
  | Mapping[str, Matrix | None]
  | Callable[[str, tuple[int, ...]], Matrix | bool | None]
)

DENSE = Matrix(rows=(0,), columns=(1,))
# The last part of a vector's name, and the part that names a normalisation.
VECTOR = re.compile(
  r'(^|_)(bias|biases|scale|scales|gamma|beta|offset|shift|mean|var|variance)$'
)
NORM = re.compile(
  r'(norm|(^|_)(ln|bn|gn))(_?(\d+|[a-z]|pre|post|final))?$', re.IGNORECASE
)
OTHERWISE = ('refuse', 'mean')


def is_vectors(name: str) -> bool:
  """Returns True if a name says bias, scale or normalisation.

  The last part counts, and the one before it unless the last is ``kernel``.

  Args:
    name: the name of a leaf.

  Example:
    >>> [is_vectors(n) for n in ('ln_1.weight', 'q/bias', 'mlp/norm/kernel')]
    [True, True, False]
  """
  *parents, last = re.split('[/.]', name)
  if VECTOR.search(last) or NORM.search(last):
    return True
  return last != 'kernel' and bool(parents and NORM.search(parents[-1]))


def views(
  tree: types.Tree, matrices: Matrices | None, *, otherwise: str = 'refuse'
) -> types.Tree:
  """Returns for each leaf its view as matrices, or None if it is none.

  Without rules a leaf of two axes is one matrix ``[rows, columns]``, unless its
  name says bias, scale or normalisation (such as ``norm/scale [L, D]`` of
  scanned layers): that is a stack of vectors. A leaf of fewer axes is a vector.
  A leaf of more axes has no view that is right in general: it is refused.

  Args:
    tree: any pytree of arrays, leaves ``[...]`` without an axis of models.
    matrices: None, or one of

      - a regular expression or a predicate on (name, shape) that chooses the
        matrices among all leaves, the others being none. A leaf of two axes is
        ``[rows, columns]``. One of four or more is a convolution, ``[product of
        all but the last, last]``; one of three is refused.
      - rules: a mapping from regular expressions, searched in the name, to a
        ``Matrix``, None (no matrix) or a function as below. The first that
        matches holds; other leaves are treated as without rules.
        ``stats.matrix_views`` finds such rules in a traced function.
      - a function of (name, shape) that returns a ``Matrix``, True or None:
        the presets ``flax``, ``torch`` and ``scanned(...)``.

    otherwise: ``'refuse'``, or ``'mean'``: a leaf of more than two axes without
      a rule is no matrix.

  Returns:
    The tree with a ``Matrix`` or None for each leaf.

  Raises:
    ValueError: if a leaf of more than two axes has no rule, or one of two that
      may be a stack of vectors beside stacks of matrices; if a rule does not
      fit its leaf or matches none; or if no leaf is chosen, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> model = {'query': jnp.ones((8, 2, 4)), 'w': jnp.ones((8, 8))}
    >>> found = views(model, {'query': Matrix(rows=(0,), columns=(1, 2))})
    >>> found['w'].rows, found['query'].columns
    ((0,), (1, 2))
    >>> views(model, None)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: leaf 'query' of shape (8, 2, 4) has more than two axes: say ...
  """
  if otherwise not in OTHERWISE:
    hint = _names.nearest(str(otherwise), OTHERWISE)
    raise ValueError(
      f'otherwise={otherwise!r}: expected one of {list(OTHERWISE)}{hint}'
    )
  if isinstance(matrices, str):
    try:
      chosen = _select.select(tree, matrices)
    except ValueError as error:
      raise ValueError(f'matrices: {error}') from None
    return _names.map_named(
      lambda name, x, at: _view(name, jnp.shape(x), at), tree, chosen
    )
  if callable(matrices):
    return _names.map_named(
      lambda name, x: _view(name, jnp.shape(x), matrices), tree
    )
  if not isinstance(matrices, (Mapping, type(None))):
    raise ValueError(
      f'matrices={matrices!r}: expected a regular expression, rules {{regex: '
      'tree.Matrix(...)}, or a function of (name, shape) such as tree.flax'
    )
  rules = [(_names.compiled(k), v) for k, v in (matrices or {}).items()]
  used = set()

  def view(name: str, x: Any) -> Matrix | None:
    for pattern, value in rules:
      if pattern.search(name):
        used.add(pattern)
        return _view(name, jnp.shape(x), value)
    return _default(name, jnp.shape(x), otherwise)

  found = _names.map_named(view, tree)
  _check_stacks(tree, found, [pattern for pattern, _ in rules])
  unused = [pattern.pattern for pattern, _ in rules if pattern not in used]
  if unused:
    names = list(_names.named(tree))
    raise ValueError(
      f"matrices: rule '{unused[0]}' matches no leaf that an earlier rule "
      f'leaves: the names are {names[:4]}' + (' ...' if names[4:] else '')
    )
  return found


def _default(
  name: str, shape: tuple[int, ...], otherwise: str
) -> Matrix | None:
  """Returns the view of a leaf without a rule."""
  if len(shape) < 2 or (len(shape) == 2 and is_vectors(name)):
    return None
  if len(shape) == 2:
    return DENSE
  if otherwise == 'mean':
    return None
  raise ValueError(
    f"leaf '{name}' of shape {shape} has more than two axes: say which are "
    'batch, rows and columns: matrices={regex: tree.Matrix(...)}, a preset '
    "(tree.flax), or otherwise='mean'"
  )


def _check_stacks(
  tree: types.Tree, views: types.Tree, patterns: list[re.Pattern[str]]
) -> None:
  """Checks that no leaf without a rule lies as ``[L, D]`` beside L matrices.

  A gate or a scale of scanned layers under an unusual name would be decomposed
  as one matrix.

  Raises:
    ValueError: naming the leaf.
  """
  shapes = {name: jnp.shape(x) for name, x in _names.named(tree).items()}
  is_leaf = lambda x: x is None or isinstance(x, Matrix)
  known = _names.named(views, is_leaf=is_leaf)
  top = lambda name: re.split('[/.]', name)[0]
  stacks = {
    (top(name), shapes[name][0]): name
    for name in shapes
    if known[name] and 0 in known[name].batch
  }
  for name, shape in shapes.items():
    beside = stacks.get((top(name), shape[0])) if len(shape) == 2 else None
    if beside and known[name] and not any(p.search(name) for p in patterns):
      raise ValueError(
        f"leaf '{name}' of shape {shape} may be a stack of {shape[0]} vectors "
        f"as '{beside}' is of matrices: give it a rule, tree.Matrix(batch=(0,),"
        ' rows=(1,)), or tree.Matrix(rows=(0,), columns=(1,))'
      )


def _view(name: str, shape: tuple[int, ...], value: Any) -> Matrix | None:
  """Evaluates a rule for its leaf, and checks that the view fits."""
  if callable(value):
    value = value(name, shape)
    value = value if isinstance(value, Matrix) else bool(value)
  if isinstance(value, Matrix):
    try:
      return value.fit(shape)
    except ValueError as error:
      raise ValueError(f"leaf '{name}' of shape {shape}: {error}") from None
  if value is None or value is False:
    return None
  if value is not True:
    raise ValueError(
      f"the rule of leaf '{name}' is {value!r}: expected tree.Matrix(rows=..., "
      'columns=...), or None for no matrix'
    )
  if len(shape) < 2:
    raise ValueError(
      f"leaf '{name}' of shape {shape} is chosen as a matrix and has fewer "
      'than two axes: narrow `matrices`'
    )
  if len(shape) == 3:
    raise ValueError(
      f"leaf '{name}' of shape {shape} is chosen as a matrix and has three "
      "axes: say which are batch, rows and columns: matrices={'...': "
      'tree.Matrix(...)}'
    )
  return Matrix(tuple(range(len(shape) - 1)), (len(shape) - 1,))
