"""PLeaS: merge the units that match, keep the others, refit every layer."""

from collections.abc import Mapping, Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _permutation, _symmetry
from wsl.align._partial import (
  entry_sources,
  gram_layout,
  least_squares,
  separate_units,
  unit_gains,
)


class PartialMerge(NamedTuple):
  """A model between a merge and both models side by side.

  Attributes:
    params: the model, of the tree of the others, its axes wider.
    widths: the new size of each group, and of the outputs kept apart: what
      the model must be built with, where its code does not read the widths
      off its parameters.
  """

  params: types.Params
  widths: dict[str, int]


def pleas(
  a: types.Params,
  b: types.Params,
  *,
  symmetry: _symmetry.Symmetry,
  separate: float | Mapping[str, float],
  grams: types.Tree,
  gains: Mapping[str, types.ArrayLike] | None = None,
  outputs: Sequence[str] = (),
  tables: types.Leaves | None = None,
  ridge: float | None = 1e-2,
) -> PartialMerge:
  r"""Merges two aligned models in part, and refits their linear maps.

  In each group the units that match worst stay apart: its axis becomes
  (merged | only A | only B). With z the units of the new model, taken from
  those of the old, :math:`z = \tfrac12 (x_A + x_B)` where merged, and y their
  preactivations likewise, each linear map starts from

  .. math::
    W_0 = \begin{pmatrix} \tfrac12 (A + B) & \tfrac12 A & \tfrac12 B \\
    A & A & 0 \\ B & 0 & B \end{pmatrix}

  (rows: outputs) and becomes the solution of

  .. math:: \min_W \frac{1}{n} \sum_i \| W z_i - y_i \|^2
    + \rho \| W - W_0 \|^2

  with zeros where they are, in closed form from the joint Gram matrix. Its
  error on that data is at most that of W_0. Other leaves (biases, norms,
  tables) are averaged where merged and copied elsewhere.

  With everything separate the result computes both models, unit by unit, and
  averages their outputs; with nothing separate it has their widths. In
  between its width and cost are chosen by ``widths``.

  The larger model must still be computed by the same code. Normalisation by
  statistics of each unit (batch norm: reset its moments afterwards), or of
  whole blocks that stay together (group norm), goes on as before. What is
  computed over all units of a group (layer norm, a softmax over experts) mixes
  those of A with those of B, and a tied embedding is table and map in one, so
  there the result is approximate however large the budget.

  Args:
    a: a model.
    b: another one, aligned to it: ``permute(b, weight_matching(a, b, ...))``.
    symmetry: the symmetry of ``a``.
    separate: the fraction of its units that each group keeps separate, 0 .. 1,
      by the group's name, 0 where not given; or one number for all groups.
      Groups that depend on another group (units of a head) go with the units
      of that one (heads) and have none of their own.
    grams: ``stats.joint_gram(apply_fn, [a, b], batches)``, on data of the
      tasks, or on any that the models take (the data-free variant). It also
      says which axes of a leaf are inputs. Only the inputs of maps matter:
      models with heads of different shapes are both given one of them for
      this.
    gains: how well the units match, ``[*outer sizes, size]`` for each group;
      ``None`` for ``unit_gains`` of the leaves that hold none of ``outputs``.
    outputs: pinned factors whose entries mean different things in the two
      models, named as in ``symmetry.factors``: the classes of different label
      spaces. They are put side by side, A's first, each computed from its own
      model's units; their number may differ between a and b.
    tables: leaves of several axes that enter no product and have no inputs
      (embeddings, positions), a regular expression or a predicate; those with
      the axes of a map's outputs (biases of heads) are known.
    ridge: rho, in units of the mean square of an input; ``None`` keeps W_0.

  Returns:
    The model and its widths.

  Raises:
    ValueError: if a model, a name or a Gram matrix does not fit, a fraction
      is out of range, or the least squares are singular.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align, stats
    >>> hidden, x, y = (align.Factor('h', 2), align.Factor('x', 1, 'input'),
    ...                 align.Factor('y', 1, 'output'))
    >>> symmetry = align.Symmetry((hidden, x, y), (
    ...   ('u', ((('x',),), (('h',),))), ('v', ((('h',),), (('y',),)))))
    >>> net = lambda p, x: jnp.tanh(x @ p['u']) @ p['v']
    >>> a = {'u': jnp.asarray([[1.0, 2.0]]), 'v': jnp.ones((2, 1))}
    >>> b = {'u': jnp.asarray([[1.0, -3.0]]), 'v': jnp.ones((2, 1))}
    >>> data = [jnp.linspace(-1, 1, 9)[:, None]]
    >>> grams = stats.joint_gram(net, [a, b], data)
    >>> merged = align.pleas(a, b, symmetry=symmetry, separate=0.5, grams=grams)
    >>> merged.widths, merged.params['u'].round(2).tolist()
    ({'h': 3}, [[1.0, 2.0, -3.0]])

  Reference:
    Nasery et al., "PLeaS: Merging Models with Permutations and Least Squares",
    2024, arXiv:2407.02447.

  Differs from the official code in solving the least squares exactly, with a
  penalty on the distance from W_0 in place of 400 steps of Adam from there,
  and in keeping exactly the given number of units (rounded down).
  """
  a, b = tree.read(a), tree.read(b)
  split = separate_units.split(a, b, symmetry, separate, outputs, 'pleas')
  if gains is None:
    leaves = unit_gains.compared(symmetry, outputs)
    gains = unit_gains.unit_gains(a, b, symmetry=symmetry, leaves=leaves)
  order = _order(symmetry, split, gains)
  grams_by_name = gram_layout.named(grams, a)
  a = _permutation.permute(a, order, symmetry=symmetry)
  b = _permutation.permute(
    b, order, symmetry=separate_units.of_b(symmetry, split)
  )
  others = tree.named(b)
  sources = {
    name: [entry_sources.of_axis(axis, split) for axis in symmetry.plan(name)]
    for name in others
  }
  known = {*grams_by_name, *separate_units.holding(symmetry, outputs)}
  known |= gram_layout.like_outputs(grams_by_name, symmetry)
  if tables is not None:
    chosen = tree.named(tree.select(a, tables))
    known |= {name for name in chosen if chosen[name]}
  for name, axes in sources.items():
    if name not in known:
      _check_axes(name, axes)

  def one(name: str, x: types.Array) -> types.Array:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
      return x
    gram, y = grams_by_name.get(name), others[name]
    pairs = [(source.a, source.b) for source in sources[name]]
    mean = _average(x, y, pairs, inputs=gram.axes if gram else ())
    if gram is not None and ridge is not None:
      layout = gram_layout.layout(name, gram, symmetry, split)
      matrix = gram_layout.reorder(gram, layout, order)
      mean = least_squares.refit(x, y, mean, matrix, layout, ridge=ridge)
      if not np.isfinite(mean).all():
        raise ValueError(
          f"pleas: the least squares of '{name}' are singular with "
          f'ridge={ridge}: raise it, or give more data'
        )
    return mean.astype(x.dtype)

  return PartialMerge(tree.map_named(one, a), _widths(symmetry, split))


def _order(
  symmetry: _symmetry.Symmetry,
  split: entry_sources.Split,
  gains: Mapping[str, types.ArrayLike],
) -> _permutation.Permutation:
  """Puts the units that are kept separate, those of least gain, last."""
  order = _permutation.identity(symmetry)
  for name, k in split.separate.items():
    shape = symmetry.table_shape(name)
    found = np.shape(gains[name]) if name in gains else 'none'
    if found != shape:
      raise ValueError(
        f"pleas: the gains of group '{name}' have shape {found}, expected "
        f'{shape}'
      )
    gain = np.asarray(gains[name], np.float64)
    if not np.isfinite(gain).all():
      raise ValueError(f"pleas: the gains of group '{name}' are not finite")
    rank = np.argsort(np.argsort(gain, axis=-1, kind='stable'), axis=-1)
    last = np.argsort(rank < k, axis=-1, kind='stable')
    order[name] = jnp.asarray(last, np.int32)
  return order


@functools.partial(jax.jit, static_argnames='inputs')
def _average(
  x: types.Array,
  y: types.Array,
  sources: list[tuple[types.Array, types.Array]],
  *,
  inputs: tuple[int, ...],
) -> types.Array:
  """Returns W_0: A's and B's entries by the shares of the output units."""
  x, y = tree.wide(x), tree.wide(y)
  ones = jnp.ones([1] * x.ndim, x.dtype)
  of_a, of_b = ones, ones
  for axis, (a, b) in enumerate(sources):
    rest = [i for i in range(x.ndim) if i != axis]
    in_a, in_b = (
      jnp.expand_dims(index >= 0, rest).astype(x.dtype) for index in (a, b)
    )
    x = jnp.take(x, jnp.maximum(a, 0), axis) * in_a
    y = jnp.take(y, jnp.maximum(b, 0), axis) * in_b
    if axis not in inputs:
      of_a, of_b = of_a * in_a, of_b * in_b
  count = jnp.maximum(of_a + of_b, 1)
  return x * (of_a / count) + y * (of_b / count)


def _check_axes(name: str, sources: list[entry_sources.Source]) -> None:
  """Checks a leaf that has no Gram matrix and is no table or head either."""
  alike = all(source.same for source in sources)
  if not alike and sum(len(source.a) > 1 for source in sources) > 1:
    raise ValueError(
      f"pleas: the leaf '{name}' has no Gram matrix, so it is not known which "
      'of its axes are inputs (stats.linear_maps tells why): keep its groups '
      'merged, or name it in tables if it enters no product'
    )


def _widths(
  symmetry: _symmetry.Symmetry, split: entry_sources.Split
) -> dict[str, int]:
  sizes = {
    g.name: g.size + split.separate.get(g.name, 0) for g in symmetry.groups
  }
  sides = {
    name: symmetry.factor[name].size + size
    for name, size in split.outputs.items()
  }
  return sizes | sides
