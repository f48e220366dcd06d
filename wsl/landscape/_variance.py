"""Does a merged model's activity vary as much as that of its ends?"""

import jax
import jax.numpy as jnp

from wsl import tree, types


def variance_ratio(merged: types.Tree, *ends: types.Tree) -> types.Tree:
  r"""Returns, layer by layer, the merged variance over that of the ends.

  .. math:: \nu_\ell = \frac{\sum_i \operatorname{Var}[z_{\ell i}(\theta)]}
    {\frac1N \sum_n \sum_i \operatorname{Var}[z_{\ell i}(\theta_n)]}

  If a unit of a linear layer has variance :math:`v` in both ends, which see the
  same inputs, and correlation c between them, the midpoint has
  :math:`v (1 + c) / 2`: 1 where matched units do the same, 1/2 where they are
  unrelated. The next layer's inputs then vary less, and so the variance
  collapses with depth.

  Args:
    merged: variances of the units' values over data: a pytree with one leaf
      ``[...]`` for each layer, all of its units.
    *ends: N trees alike for the models that were merged.

  Returns:
    A tree like ``merged`` of ratios ``[]``; of a layer that is constant in all
    ends, 1 if it is constant in the merged model too, else infinity.

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
  for n, end in enumerate(ends):
    tree.check_names(f'variance_ratio: end {n}', end, 'merged', merged)
    for name, x in tree.named(end).items():
      if jnp.shape(x) != shapes[name]:
        raise ValueError(
          f"variance_ratio: layer '{name}' has variances {jnp.shape(x)} in end "
          f'{n} but {shapes[name]} in merged'
        )
  return jax.tree.map(_ratio, merged, *ends)


def _ratio(merged: types.Array, *ends: types.Array) -> types.Array:
  top = jnp.sum(tree.wide(jnp.asarray(merged)))
  sums = [jnp.sum(tree.wide(jnp.asarray(end))) for end in ends]
  bottom = jnp.mean(jnp.stack(sums))
  return jnp.where((top == 0) & (bottom == 0), jnp.ones_like(top), top / bottom)
