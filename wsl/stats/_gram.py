"""Gram matrices of the inputs of every dense and convolutional weight."""

from collections.abc import Callable, Iterable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.stats._linear_maps import reader, records, totals


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sum:
  """The sum of x x^T over some rows."""

  matrix: types.Array
  rows: int = dataclasses.field(metadata={'static': True})
  axes: tuple[int, ...] = dataclasses.field(metadata={'static': True})
  bias: int | None = dataclasses.field(metadata={'static': True})


def gram(
  apply_fn: Callable[[types.Params, Any], Any],
  params: types.Params,
  batches: Iterable[Any],
  *,
  leaves: types.Leaves = '',
) -> types.Tree:
  r"""Computes the Gram matrix of the inputs of every linear map in a model.

  .. math:: G = \frac{1}{n} \sum_{i=1}^{n} x_i x_i^\top

  The maps are found by tracing ``apply_fn``, not by names or layer types:
  wherever a parameter is multiplied with a value in a dense product or a
  convolution, the value's rows enter that parameter's Gram matrix. Between the
  leaf and the product the parameter may be cast, transposed, reshaped, used
  inside ``jit``, ``remat``, ``custom_jvp``, ``custom_vjp`` or ``vmap``, or
  passed to ``scan``, whole or as a stack of layers. ``linear_maps`` reports for
  each leaf what was found, or why nothing was.

  Move the axes ``Gram.axes`` of the weight to the front and flatten them to d;
  flatten the rest in stored order and split it into ``groups`` equal
  consecutive blocks. Then the map is x W. Dense kernels have one group, a
  convolution has its feature groups, a stack of L weights (scanned layers,
  experts) has L. A row is one vector multiplied by the weight: an example, a
  token (padding included), a patch; n counts the rows of one group, over all
  batches and all uses of the weight.

  Args:
    apply_fn: a hashable function ``(params, inputs) -> anything``.
    params: any pytree, in memory or on demand.
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``;
      inputs are an array ``[B, ...]`` or a pytree of them. Batches of one
      size compile once.
    leaves: the leaves whose Gram matrices are needed, by a regular expression
      or a predicate; all by default. What only others need is not computed.

  Returns:
    A tree like ``params`` with a ``Gram`` at each leaf used in a linear map,
    ``matrix [groups, d, d]`` and ``count []`` in float32 or wider, and
    ``None`` elsewhere: at leaves that are in no linear map, contract different
    axes in different places, are used inside ``cond`` or ``while``, or are
    altered (sliced, scaled) before the product.

  Raises:
    ValueError: if there are no batches, one array is given instead, or no leaf
      matches.

  Example:
    >>> import jax.numpy as jnp
    >>> dense = lambda p, x: jnp.tanh(x @ p['w'] + p['b'][None])
    >>> params = {'w': jnp.ones((2, 3)), 'b': jnp.zeros(3)}
    >>> found = gram(dense, params, [jnp.asarray([[1.0, 2.0], [3.0, 4.0]])])
    >>> found['w'].matrix[0].tolist(), found['w'].axes, found['b']
    ([[5.0, 7.0], [7.0, 10.0]], (0,), None)

  Reference: the statistic of Jin et al., "Dataless Knowledge Fusion by Merging
  Weights of Language Models", 2022, arXiv:2212.09849.
  """
  params = tree.read(params)
  tree.check_not_narrowed('gram', params)
  tree.check_real('gram', params, 'only moments of real maps are defined')
  chosen = tuple(jax.tree.leaves(tree.select(params, leaves)))
  of_batch = functools.partial(_batch_sums, apply_fn, chosen, params)
  total = totals.over_batches(of_batch, batches, add=add, name='gram')
  return jax.tree.unflatten(
    jax.tree.structure(params), [mean(s) for s in total]
  )


def linear_maps(
  apply_fn: Callable[[types.Params, Any], Any],
  params: types.Params,
  inputs: Any,
) -> dict[str, str]:
  """Reports for each leaf what ``gram`` finds, or why it finds nothing.

  Args:
    apply_fn: a function ``(params, inputs) -> anything``; it is traced, nothing
      is computed.
    params: any pytree, in memory or on demand.
    inputs: one batch of inputs, arrays or ``jax.ShapeDtypeStruct``.

  Returns:
    One line by leaf name; ``matrix_views`` gives the axes as rules for merges.

  Example:
    >>> import jax.numpy as jnp
    >>> dense = lambda p, x: jnp.tanh(x @ p['w'] + p['b'][None])
    >>> params = {'w': jnp.ones((2, 3)), 'b': jnp.zeros(3)}
    >>> for line in linear_maps(dense, params, jnp.ones((4, 2))).items():
    ...   print(*line, sep=': ')
    b: no linear map; met add
    w: linear in axes (0,), groups 1, rows 4
  """
  return traced(apply_fn, params, inputs, _line)


def traced(
  apply_fn: Callable[[types.Params, Any], Any],
  params: types.Params,
  inputs: Any,
  describe: Callable[[records.Record, int], Any],
) -> dict[str, Any]:
  """Describes the uses of each leaf in a traced function.

  Args:
    apply_fn: a function ``(params, inputs) -> anything``.
    params: any pytree, in memory or on demand.
    inputs: one batch of inputs, arrays or ``jax.ShapeDtypeStruct``.
    describe: maps a record and the position of a leaf to its description.

  Returns:
    The descriptions by leaf name.
  """
  found: list[Any] = []

  def trace(params: types.Params, inputs: Any) -> None:
    record = reader.record_products(apply_fn, params, inputs)
    count = len(jax.tree.leaves(params))
    found.extend(describe(record, leaf) for leaf in range(count))

  abstract = lambda x: jax.ShapeDtypeStruct(
    x.shape, jax.dtypes.canonicalize_dtype(x.dtype)
  )
  jax.eval_shape(trace, jax.tree.map(abstract, params), inputs)
  return dict(zip(tree.named(params), found))


def _line(record: records.Record, leaf: int) -> str:
  """Describes the uses of one leaf in one line."""
  uses = [use for use in record.sums if use.leaf == leaf]
  met = ', '.join(record.notes.get(leaf, [])) or 'nothing'
  if not uses:
    return f'no linear map; met {met}'
  found = ' and '.join(
    f'linear in axes {use.axes}, groups {use.groups}, rows {record.rows[use]}'
    for use in uses
  )
  if len(uses) > 1:
    return f'no one Gram: {found}'
  return found if met == 'nothing' else f'{found}; also met {met}'


def sums(
  apply_fn: Callable[..., Any],
  params: types.Params,
  inputs: Any,
  measure: records.Measure = records.second_moment,
) -> list[Sum | None]:
  """Returns each leaf's statistic on one batch, None if it is not unique."""
  record = reader.record_products(apply_fn, params, inputs, measure)
  leaves = range(len(jax.tree.leaves(params)))
  return [
    use
    and Sum(record.sums[use], record.rows[use], use.axes, record.bias_of(leaf))
    for leaf, use in zip(leaves, map(record.single, leaves))
  ]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _batch_sums(
  apply_fn: Callable[..., Any],
  chosen: tuple[bool, ...],
  params: types.Params,
  inputs: Any,
) -> list[Sum | None]:
  """Returns the sums of the chosen leaves; XLA drops what others need."""
  found = sums(apply_fn, params, inputs)
  return [x if flag else None for x, flag in zip(found, chosen)]


def add(a: Sum, b: Sum) -> Sum:
  """Adds the sums of two batches."""
  return dataclasses.replace(
    a, matrix=a.matrix + b.matrix, rows=a.rows + b.rows
  )


def mean(total: Sum | None) -> types.Gram | None:
  """Divides a sum by its rows."""
  if total is None:
    return None
  count = jnp.asarray(total.rows, total.matrix.dtype)
  return types.Gram(total.matrix / count, count, total.axes)
