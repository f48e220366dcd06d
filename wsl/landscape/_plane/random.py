"""A plane of random directions, normalised filter by filter."""

from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.landscape import _directions
from wsl.landscape._plane import plane as plane_lib


def random_plane(
  params: types.Params,
  *,
  matrices: tree.Matrices | None = None,
  key: types.PRNGKey,
) -> plane_lib.Plane:
  r"""Returns a plane of two random directions with the norms of the filters.

  .. math:: d_{ij} \leftarrow \frac{d_{ij}}{\|d_{ij}\|} \, \|\theta_{ij}\|,
    \qquad d \sim \mathcal N(0, I)

  for each filter j of each layer i: the inputs of one output unit, a column of
  the matrix. A rescaling of layers that does not change the function then does
  not change the sharpness on a figure. Vectors (biases, norm scales) stay
  fixed.

  Args:
    params: the model at (0, 0), leaves ``[...]``.
    matrices: which leaves are matrices, and which of their axes are inputs
      (rows) and outputs (columns); see ``tree.views``. Leaves of more than two
      axes need a rule: the presets ``tree.flax`` and ``tree.torch``.
    key: of the directions; those of a leaf depend on its name.

  Returns:
    A ``Plane``; its directions are not orthonormal.

  Raises:
    ValueError: those of ``tree.views``, or naming the complex leaf.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> params = {'w': jnp.asarray([[3.0, 0.0], [4.0, 2.0]]), 'b': jnp.ones(2)}
    >>> found = random_plane(params, key=jax.random.key(0))
    >>> [f'{x:.3f}' for x in jnp.linalg.norm(found.first['w'], axis=0)]
    ['5.000', '2.000']
    >>> found.first['b'].tolist()
    [0.0, 0.0]

  Reference:
    Li et al., "Visualizing the Loss Landscape of Neural Nets", 2017,
    arXiv:1712.09913.
  """
  params = tree.read(params)
  tree.check_not_narrowed('random_plane', params)
  tree.check_real('random_plane', params, 'its directions would be real')
  floats = _directions.wide_floats(params)
  views = tree.views(floats, matrices)

  def draw(key: types.PRNGKey) -> types.Tree:
    def of_leaf(name: str, x: types.Array, view: Any) -> types.Array:
      if view is None or not view.rows:
        return jnp.zeros_like(x)
      noise = jax.random.normal(tree.name_key(key, name), x.shape, x.dtype)
      size, own = _norms(x, view.rows), _norms(noise, view.rows)
      return noise * tree.safe_divide(size, own)

    return tree.map_named(of_leaf, floats, views)

  first, second = map(draw, jax.random.split(key))
  return plane_lib.Plane(params, first, second)


def _norms(x: types.Array, axes: tuple[int, ...]) -> types.Array:
  """Returns norms over some axes, which are kept with size 1."""
  return jnp.sqrt(jnp.sum(jnp.square(x), axes, keepdims=True))
