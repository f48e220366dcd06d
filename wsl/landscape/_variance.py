"""Variance collapse: activations of a merged model against its endpoints."""

import jax
import jax.numpy as jnp

from wsl import tree, types


def variance_ratio(merged: types.Tree, *ends: types.Tree) -> types.Tree:
  r"""Returns the activation variance of a merge relative to its endpoints.

  .. math:: \nu_\ell = \frac{\sum_i \operatorname{Var}[z_{\ell i}(\theta)]}
    {\frac1N \sum_n \sum_i \operatorname{Var}[z_{\ell i}(\theta_n)]}

  If a unit of a linear layer has variance :math:`v` in both endpoints on the
  same inputs, with correlation c, it has variance :math:`v (1 + c) / 2` at the
  midpoint: the ratio is 1 for identical units and 1/2 for uncorrelated ones.
  The inputs of the next layer then have less variance, so the variance
  collapses with depth.

  Args:
    merged: variances of the units' values over data: a pytree with one leaf
      ``[...]`` for each layer, all of its units.
    *ends: N such trees, of the models that were merged.

  Returns:
    A tree like ``merged`` of ratios ``[]``. For a layer of zero variance in all
    endpoints the ratio is 1 if the merged variance is zero too, else infinity.

  Raises:
    ValueError: if there are no ends, or naming the leaf that differs.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'z': jnp.asarray([1.0, 3.0])}, {'z': jnp.asarray([3.0, 1.0])}
    >>> variance_ratio({'z': jnp.asarray([1.0, 1.0])}, a, b)['z'].item()
    0.5

  Reference:
    Jordan et al., "REPAIR: REnormalizing Permuted Activations for
    Interpolation Repair", 2022, arXiv:2211.08403.
  """
  if not ends:
    raise ValueError('variance_ratio: no ends given, at least one is needed')
  shapes = {name: jnp.shape(x) for name, x in tree.named(merged).items()}
  ends = tuple(
    tree.conform(f'variance_ratio: end {n}', end, 'merged', merged)
    for n, end in enumerate(ends)
  )
  for n, end in enumerate(ends):
    for name, x in tree.named(end).items():
      if jnp.shape(x) != shapes[name]:
        raise ValueError(
          f"variance_ratio: layer '{name}' has variances {jnp.shape(x)} in end "
          f'{n} but {shapes[name]} in merged'
        )
  return jax.tree.map(_ratio, merged, *ends)


def _ratio(merged: types.Array, *ends: types.Array) -> types.Array:
  """Returns the ratio of one layer, by sums over its units; 0 / 0 gives 1."""
  top = jnp.sum(tree.wide(jnp.asarray(merged)))
  sums = [jnp.sum(tree.wide(jnp.asarray(end))) for end in ends]
  bottom = jnp.mean(jnp.stack(sums))
  return jnp.where((top == 0) & (bottom == 0), jnp.ones_like(top), top / bottom)
