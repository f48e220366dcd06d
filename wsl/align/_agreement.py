"""The agreement of aligned models, which matching by weights maximises."""

from collections.abc import Sequence

import numpy as np

from wsl import deltas, tree, types
from wsl.align import _arguments


def agreement(
  models: Sequence[types.Params],
  *,
  leaves: types.Leaves = _arguments.default_leaves,
) -> float:
  r"""Returns the sum of the inner products of all pairs of models.

  .. math:: J = \sum_{p < q} \sum_k \langle \theta^p_k, \theta^q_k \rangle

  Permutations do not change the norms of models, so a higher J is a smaller sum
  of squared distances. It is what ``weight_matching`` and ``match_many``
  maximise, of models permuted into one order.

  Args:
    models: two or more models, leaves ``[...]`` of one structure and shapes; in
      memory or on demand.
    leaves: the leaves that count, a regular expression or a predicate on (name,
      shape). By default all but running statistics of normalisation. Integer
      leaves never count; complex ones count as two real ones.

  Returns:
    J, summed in float64 on the host.

  Raises:
    ValueError: if there are fewer than two models, or they differ.

  Example:
    >>> import jax.numpy as jnp
    >>> models = [{'w': jnp.asarray(x)} for x in ([1., 2.], [3., 4.], [0., 1.])]
    >>> agreement(models)
    17.0
  """
  if len(models) < 2:
    raise ValueError(
      f'agreement: {len(models)} models given, at least two are needed'
    )
  _arguments.check_known('agreement', *models)
  deltas.check('agreement', {f'model {p}': x for p, x in enumerate(models)})
  chosen = tree.named(tree.select(models[0], leaves))
  total = 0.0
  for name in chosen:
    if not chosen[name]:
      continue
    sums: np.ndarray | None = None
    for model in models:
      x = tree.read(tree.named(model)[name])
      if not tree.is_float(x):
        break
      wide = np.complex128 if tree.is_complex(x) else np.float64
      x = np.asarray(x).astype(wide)
      if sums is not None:
        total += float(np.vdot(sums, x).real)
      sums = x if sums is None else sums + x
  return total
