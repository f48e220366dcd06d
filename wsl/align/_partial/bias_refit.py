r"""The biases of a partial merge, fitted together with the weights.

The least squares of W and b have the optimum

.. math:: b = \mathrm{E}[y] - W^\top \mathrm{E}[z]

for any W, and inserting it leaves the least squares of W on z and y about their
means. Their moments are those of the centred Gram matrix :math:`G - \mu
\mu^\top`, with the mean :math:`\mu` of the inputs of both models.
"""

import dataclasses
from typing import TypeAlias

import jax.numpy as jnp

from wsl import tree, types
from wsl.align import _permutation
from wsl.align._partial import gram_layout, least_squares

# Mean outputs, without bias, of the map of A, of B and of the merged model.
Shift: TypeAlias = tuple[types.Array, types.Array, types.Array]


def centre(gram: types.Gram) -> types.Gram:
  """Returns the second moments about the mean."""
  matrix, mean = tree.wide(gram.matrix), tree.wide(jnp.asarray(gram.mean))
  return dataclasses.replace(
    gram, matrix=matrix - mean[..., :, None] * mean[..., None, :]
  )


def shift(
  gram: types.Gram,
  layout: gram_layout.Layout,
  order: _permutation.Permutation,
  leaves: tuple[types.Array, types.Array, types.Array],
) -> Shift:
  """Returns the mean outputs of a map in A, in B and in the merged model.

  Args:
    gram: the joint Gram matrix, with the mean of its inputs.
    layout: the layout of the leaf.
    order: the permutation of both models.
    leaves: the permuted leaf of A and of B, and the merged one.
  """
  means = gram_layout.permute_means(jnp.asarray(gram.mean), layout, order)
  of_a, of_b = jnp.split(means, 2, axis=-1)
  groups, inputs = layout.groups, layout.inputs
  pairs = [(groups.a, groups.b), (inputs.a, inputs.b)]
  merged = least_squares.average(of_a, of_b, pairs, inputs=())
  a, b, new = (
    _mean_output(x, layout.axes, mean)
    for x, mean in zip(leaves, (of_a, of_b, merged))
  )
  return a, b, new


def _mean_output(
  x: types.Array, axes: tuple[int, ...], mean: types.Array
) -> types.Array:
  """Returns W^T E[z], flat, for inputs ``[groups, d]``."""
  front = jnp.moveaxis(tree.wide(x), axes, range(len(axes)))
  rows = least_squares.as_rows(front, len(axes), len(mean))
  products = tree.matmul(mean[:, None].astype(rows.dtype), rows)
  return products.reshape(-1)
