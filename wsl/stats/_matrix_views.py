"""The view of every leaf as matrices, read from the traced function."""

from collections.abc import Callable, Sequence
import math
import re
from typing import Any

import jax.numpy as jnp

from wsl import tree, types
from wsl.stats import _gram
from wsl.stats._linear_maps import records

_ADDED = {'add', 'add_any', 'sub'}


def matrix_views(
  apply_fn: Callable[[types.Params, Any], Any],
  params: types.Params,
  inputs: Any,
) -> dict[str, tree.Matrix | None]:
  r"""Finds which axes of each leaf are batch, rows and columns, as rules.

  ``apply_fn`` is traced as in ``gram``. The rows of a leaf are the axes that
  its product contracts with the input, and the columns are the others, except

  - axes of layers that a ``scan`` iterates over and axes of experts that a
    product keeps on both sides: they are batch axes;
  - feature groups of a convolution: the columns have ``groups``; those of a
    depthwise kernel have one column each.

  A table ``[entries, d]`` that is indexed is a product with one-hot vectors. A
  leaf that is added (biases, positions), or multiplied entrywise and of one
  axis in each layer (norm scales), is a stack of vectors.

  Args:
    apply_fn: a function ``(params, inputs) -> anything``; nothing is computed.
    params: any pytree, in memory or on demand.
    inputs: one batch of inputs, arrays or ``jax.ShapeDtypeStruct``.

  Returns:
    Rules for ``matrices=`` of ``merge.tsv`` and others: for each float leaf of
    two or more axes, by its name as a regular expression, a ``tree.Matrix``, or
    None for vectors; and for a vector that a product contracts, a
    ``tree.Matrix`` without columns, which merges take as a vector. A leaf whose
    use is not clear has no rule: it is used in several products in different
    ways, or altered before its product (``linear_maps`` reports how). Add a
    rule, or the merge takes its default.

  Example:
    >>> import jax.numpy as jnp
    >>> dense = lambda p, x: jnp.tanh(jnp.einsum('bd,dhk->bhk', x, p['q']))
    >>> params = {'q': jnp.ones((6, 2, 3)), 'b': jnp.zeros(3)}
    >>> matrix_views(dense, params, jnp.ones((4, 6)))
    {'^q$': Matrix(rows=(0,), columns=(1, 2), batch=(), groups=1)}
  """
  found = _gram.traced(apply_fn, params, inputs, lambda *args: args)
  rules: dict[str, tree.Matrix | None] = {}
  for name, leaf in tree.named(params).items():
    floats = jnp.issubdtype(leaf.dtype, jnp.inexact)
    if not floats or not leaf.shape or not math.prod(leaf.shape):
      continue
    record, position = found[name]
    known, view = _view(record, position, leaf.shape)
    # A vector needs a rule only if a product contracts it.
    if known and (view is not None or len(leaf.shape) > 1):
      rules[f'^{re.escape(name)}$'] = view
  return rules


def _view(
  record: records.Record, leaf: int, shape: Sequence[int]
) -> tuple[bool, tree.Matrix | None]:
  """Returns whether a leaf's use is clear, and its view."""
  uses = [use for use in record.sums if use.leaf == leaf]
  if uses:
    return len(uses) == 1, _of_product(uses[0], shape)
  layers = record.layers.get(leaf, ())
  axes = tuple(a for a in range(len(shape)) if a not in layers)
  notes = set(record.notes.get(leaf, []))
  if sum(shape[a] > 1 for a in axes) < 2 or (notes and notes <= _ADDED):
    return True, tree.Matrix(rows=axes, batch=layers) if layers else None
  if notes == {'gather'} and len(axes) == 2:
    return True, tree.Matrix(rows=axes[:1], columns=axes[1:], batch=layers)
  return False, None


def _of_product(use: records.Use, shape: Sequence[int]) -> tree.Matrix:
  """Returns the view of a leaf in its product.

  The blocks are the leading factors of the axes that are not contracted, in
  stored order: whole axes are batch axes, a part of one is a group. The last
  axis stays a column, so that d x 1 blocks are matrices too.
  """
  rest = [a for a in range(len(shape)) if a not in use.axes]
  groups, batch = use.groups, []
  while len(rest) > 1 and groups > 1 and groups % shape[rest[0]] == 0:
    axis = rest.pop(0)
    groups //= shape[axis]
    batch.append(axis)
  return tree.Matrix(use.axes, tuple(rest), tuple(batch), groups)
