"""PLeaS: merge matching units, keep the others separate, refit the layers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _arguments, _permutation, _symmetry
from wsl.align._partial import (
  bias_refit,
  entry_sources,
  gram_layout,
  least_squares,
  separate_units,
  unit_gains,
  unit_order,
)


class PartialMerge(NamedTuple):
  """A partial merge: between an average and an ensemble of two models.

  Attributes:
    params: the model, of the tree of the two models, with wider axes.
    widths: the new size of each group and of the separate outputs. The model
      must be built with them, unless its code infers them from parameters.
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
  refit_biases: bool = False,
) -> PartialMerge:
  r"""Merges two aligned models partially, and refits their linear maps.

  In each group the units that match worst stay separate: its axis becomes
  (merged | only A | only B). The units of the new model are
  :math:`z = \tfrac12 (x_A + x_B)` where merged and copies of :math:`x_A` or
  :math:`x_B` elsewhere, and their preactivations y are defined in the same way.
  Each linear map starts from

  .. math::
    W_0 = \begin{pmatrix} \tfrac12 (A + B) & \tfrac12 A & \tfrac12 B \\
    A & A & 0 \\ B & 0 & B \end{pmatrix}

  (rows: outputs) and becomes the solution of

  .. math:: \min_W \frac{1}{n} \sum_i \| W z_i - y_i \|^2
    + \rho \| W - W_0 \|^2

  with the zeros of W_0 kept, in closed form from the joint Gram matrix. The
  error on that data is at most that of W_0. Other leaves (biases, norms,
  tables) are averaged where merged and copied elsewhere.

  With everything separate the result computes both models, unit by unit, and
  averages their outputs; with nothing separate it has their widths. ``widths``
  chooses the fractions in between for a budget.

  The same code must be able to compute the wider model. Normalisation by
  statistics of each unit (batch norm; reset its moments afterwards) or of whole
  blocks of units that stay together (group norm) is exact. Operations over all
  units of a group (layer norm, a softmax over experts) mix units of A and B,
  and a tied embedding is both a table and a map, so there the result is
  approximate at any budget.

  Args:
    a: a model.
    b: another one, aligned to it: ``permute(b, weight_matching(a, b, ...))``.
    symmetry: the symmetry of ``a``.
    separate: the fraction of its units that each group keeps separate, 0 .. 1,
      by the group's name, 0 where not given; or one number for all groups.
      A group that depends on another group (the units of a head on the heads)
      has no fraction of its own: its units follow those of the outer group.
    grams: ``stats.joint_gram(apply_fn, [a, b], batches)``, on data of the
      tasks, or on any other inputs (the data-free variant). It also defines
      which axes of a leaf are inputs. Only the inputs of maps matter: give
      models with heads of different shapes the same head for this.
    gains: similarity of matched units, ``[*outer sizes, size]`` for each group;
      ``None`` for ``unit_gains`` of the leaves without ``outputs``. The units
      of lowest similarity stay separate.
    outputs: pinned factors whose entries mean different things in the two
      models, named as in ``symmetry.factors``: the classes of different label
      spaces. They are concatenated, A's first, and each is computed from the
      units of its own model; their number may differ between a and b.
    tables: leaves of several axes without inputs, which enter no product
      (embeddings, positions), as a regular expression or a predicate; leaves
      with the axes of a map's outputs (biases of heads) are recognised.
    ridge: rho, in units of the mean square of an input; ``None`` keeps W_0.
    refit_biases: whether each map with a bias is fitted with it, on inputs
      about their mean; by default biases are averaged or copied.

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
  penalty on the distance from W_0 in place of 400 steps of Adam from there;
  in keeping exactly the given number of units (rounded down); in biases, which
  are refitted only with ``refit_biases=True``; in the last layer, where the
  official W_0 does not halve the columns of separate units; and in the zeros of
  W_0, which the official gradient mask exchanges between inputs and outputs.
  """
  tree.check_scalars('pleas', ridge=ridge)
  for model in (a, b):
    tree.check_not_narrowed('pleas', model)
  a, b = tree.read(a), tree.read(b)
  counts = separate_units.count_units(
    a, b, symmetry, separate, outputs, 'pleas'
  )
  if gains is None:
    leaves = unit_gains.comparable_leaves(symmetry, outputs)
    gains = unit_gains.unit_gains(a, b, symmetry=symmetry, leaves=leaves)
  # With the separate units last, every new axis is (merged | A | B).
  order = unit_order.separate_last(symmetry, counts, gains)
  grams_by_name = _arguments.by_leaf(
    grams,
    a,
    types.Gram,
    argument='pleas: grams',
    hint='stats.joint_gram(...)',
  )
  a = _permutation.permute(a, order, symmetry=symmetry)
  b = _permutation.permute(
    b, order, symmetry=separate_units.symmetry_of_b(symmetry, counts)
  )
  others = tree.named(b)
  sources = {
    name: [entry_sources.of_axis(x, counts) for x in symmetry.layout(name)]
    for name in others
  }
  # Leaves for which it is clear which axes are inputs: maps by their Gram
  # matrices, heads, which are concatenated, biases and tables without inputs.
  resolved = {*grams_by_name}
  resolved |= separate_units.leaves_with_factors(symmetry, outputs)
  resolved |= gram_layout.bias_like_leaves(grams_by_name, symmetry)
  if tables is not None:
    chosen = tree.named(tree.select(a, tables))
    resolved |= {name for name in chosen if chosen[name]}
  for name, axes in sources.items():
    if name not in resolved:
      _check_no_inputs(name, axes)

  shifts: dict[str, bias_refit.Shift] = {}

  def average(name: str, x: types.Array, y: types.Array) -> types.Array:
    pairs = [(source.a, source.b) for source in sources[name]]
    axes = grams_by_name[name].axes if name in grams_by_name else ()
    return least_squares.average(x, y, pairs, inputs=axes)

  def merge_map(name: str, x: types.Array) -> types.Array:
    if name not in grams_by_name or not jnp.issubdtype(x.dtype, jnp.inexact):
      return x
    gram, y = grams_by_name[name], others[name]
    merged = average(name, x, y)
    if ridge is not None:
      layout = gram_layout.of_leaf(name, gram, symmetry, counts)
      centred = refit_biases and gram.bias and gram.mean is not None
      used = bias_refit.centre(gram) if centred else gram
      matrix = gram_layout.permute_gram(used, layout, order)
      merged = least_squares.refit(x, y, merged, matrix, layout, ridge=ridge)
      if not np.isfinite(merged).all():
        raise ValueError(
          f"pleas: the least squares of '{name}' are singular with "
          f'ridge={ridge}: increase it, or pass more data'
        )
      if centred:
        shifts[gram.bias] = bias_refit.shift(
          gram, layout, order, (x, y, merged.astype(x.dtype))
        )
    return merged.astype(x.dtype)

  def merge_other(
    name: str, x: types.Array, merged: types.Array
  ) -> types.Array:
    if name in grams_by_name or not jnp.issubdtype(x.dtype, jnp.inexact):
      return merged
    y = others[name]
    if name not in shifts:
      return average(name, x, y).astype(x.dtype)
    # The mean output of the merged map, b included, is that of its target.
    of_a, of_b, of_merged = shifts[name]
    target = average(name, x + of_a.reshape(x.shape), y + of_b.reshape(y.shape))
    return (target - of_merged.reshape(target.shape)).astype(x.dtype)

  maps = tree.map_named(merge_map, a)
  return PartialMerge(
    tree.map_named(merge_other, a, maps),
    unit_order.new_widths(symmetry, counts),
  )


def _check_no_inputs(name: str, sources: list[entry_sources.Source]) -> None:
  """Checks that a leaf of unknown input axes is unchanged or a vector."""
  unchanged = all(source.same for source in sources)
  if not unchanged and sum(len(source.a) > 1 for source in sources) > 1:
    raise ValueError(
      f"pleas: the leaf '{name}' has no Gram matrix, so its input axes are "
      'unknown (stats.linear_maps gives the reason): keep its groups merged, '
      'or name it in tables if it enters no product'
    )
