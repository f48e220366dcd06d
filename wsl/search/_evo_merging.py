"""Sparsified and signed combinations of LoRAs, found by evolution."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import adapters, tree, types
from wsl.search import _cmaes, _points


class Evolved(NamedTuple):
  """The result of ``evo_merging``.

  Attributes:
    keep: the share of entries of each expert, ``[T]``.
    coef: the coefficient of each, ``[T]``.
    loss: of both, without penalty.
    stages: the two searches; their losses include the penalty.
  """

  keep: np.ndarray
  coef: np.ndarray
  loss: float
  stages: tuple[_points.Search, _points.Search]


def evo_merging(
  loss: Callable[[np.ndarray, np.ndarray], Any],
  experts: int,
  *,
  evaluations: tuple[int, int] = (400, 800),
  population: int = 20,
  sigma: float = 0.05,
  penalty: float = 0.05,
  key: types.PRNGKey,
) -> Evolved:
  r"""Searches what to keep of T experts, then signed coefficients.

  .. math:: \alpha^* = \operatorname{argmin}_{\alpha \in [0, 1]^T}
    L(\alpha, \tfrac{1}{T}) + p\, \overline{|\alpha|}, \qquad
    \beta^* = \operatorname{argmin}_{\beta \in [-1.5, 1.5]^T}
    L(\alpha^*, \beta) + p\, \overline{|\beta|}

  both by ``cmaes``, from :math:`\alpha = 1` and :math:`\beta = 1/T`. The merge
  itself is a function of yours, such as ``merge_factors``.

  Args:
    loss: maps (keep ``[B, T]``, coef ``[B, T]``) to losses ``[B]``, lower is
      better.
    experts: T, ``>= 1``.
    evaluations: of each stage, ``>= population``.
    population: of a generation, ``>= 2``.
    sigma: the first standard deviation of both stages, ``> 0``.
    penalty: p, ``>= 0``.
    key: of the samples.

  Returns:
    An ``Evolved``.

  Raises:
    ImportError: if the package ``cma`` is not installed.
    ValueError: if an argument is out of range, or ``loss`` does not return one
      number for each point.
    FloatingPointError: if no loss is finite.

  Example:
    >>> import jax
    >>> loss = lambda keep, coef: ((coef - [1.0, -1.0]) ** 2).sum(1)
    >>> found = evo_merging(loss, 2, evaluations=(20, 600), sigma=0.3,
    ...                     penalty=0.0, key=jax.random.key(0))
    >>> found.coef.round(1).tolist()
    [1.0, -1.0]

  Reference:
    Chen et al., "Black-box Model Merging for Language-Model-as-a-Service with
    Massive Model Repositories", 2025, arXiv:2509.12951.

  Differs from the official code, where both stages share one best loss though
  their penalties differ, so that the second may be ignored.
  """
  name = 'evo_merging'
  experts = _points.check_count(name, 'experts', experts, 1)
  tree.check_scalars(name, penalty=penalty)
  if not 0 <= penalty < np.inf:
    raise ValueError(f'{name}: penalty={penalty} is not a finite number >= 0')
  first, second = jax.random.split(key)
  start = np.full(experts, 1 / experts)
  cost = lambda x: penalty * np.abs(x).mean(1)
  options: Any = {'sigma': sigma, 'population': population}
  keep = _cmaes.cmaes(
    lambda x: loss(x, np.broadcast_to(start, x.shape)) + cost(x),
    np.ones(experts),
    lower=0.0,
    upper=1.0,
    evaluations=evaluations[0],
    key=first,
    **options,
  )
  coef = _cmaes.cmaes(
    lambda x: loss(np.broadcast_to(keep.point, x.shape), x) + cost(x),
    start,
    lower=-1.5,
    upper=1.5,
    evaluations=evaluations[1],
    key=second,
    **options,
  )
  reached = coef.loss - float(cost(coef.point[None])[0])
  return Evolved(keep.point, coef.point, reached, (keep, coef))


def merge_factors(
  experts: Sequence[types.Tree], *, keep: types.ArrayLike, coef: types.ArrayLike
) -> types.Tree:
  r"""Combines the factors of LoRAs, each map to the rank sparsified.

  .. math:: A = \sum_t \beta_t \operatorname{top}_{\alpha_t}(A_t), \qquad
    B = \sum_t \beta_t B_t, \qquad \tau = s B A

  with the round(alpha size) largest entries of each :math:`A_t`, at least one.
  Other scales than s, the first, are multiplied into :math:`B_t`.
  The product has terms :math:`\beta_s \beta_t B_s A_t` across experts, and does
  not change if all :math:`\beta` change their sign.

  Args:
    experts: T trees of ``adapters.Factors`` of equal shapes and ranks.
    keep: alpha, the share of entries kept, ``[T]``, 0 .. 1; may be traced.
    coef: beta, ``[T]``; may be traced.

  Returns:
    A tree of ``adapters.Factors``, of the rank of the experts.

  Raises:
    ValueError: if there are no experts, or their factors differ in shape.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import adapters, tree
    >>> view = tree.Matrix(rows=(1,), columns=(0,))
    >>> one = adapters.Factors(jnp.asarray([[1.0, 3.0]]), jnp.ones((2, 1)),
    ...                        1.0, (2, 2), view)
    >>> found = merge_factors([{'w': one}], keep=[0.5], coef=[1.0])
    >>> adapters.dense(found['w']).tolist()
    [[0.0, 3.0], [0.0, 3.0]]

  Reference:
    Chen et al., "Black-box Model Merging for Language-Model-as-a-Service with
    Massive Model Repositories", 2025, arXiv:2509.12951.
  """
  if not experts:
    raise ValueError('merge_factors: no experts given, at least one is needed')
  keep, coef = jnp.asarray(keep), jnp.asarray(coef)
  for name, value in {'keep': keep, 'coef': coef}.items():
    if value.shape != (len(experts),):
      raise ValueError(
        f'merge_factors: {name} has shape {value.shape}: give one number for '
        f'each of {len(experts)} experts'
      )

  def combine(*factors: adapters.Factors) -> adapters.Factors:
    first = factors[0]
    for t, other in enumerate(factors):
      equal = other.a.shape == first.a.shape and other.b.shape == first.b.shape
      if not equal or other.view != first.view or other.shape != first.shape:
        raise ValueError(
          f'merge_factors: factors of experts 0 and {t} differ: a '
          f'{first.a.shape} and {other.a.shape}, b {first.b.shape} and '
          f'{other.b.shape}'
        )
    a = jnp.stack([tree.wide(x.a) for x in factors])
    b = jnp.stack([_scaled(x, first) for x in factors])
    a = jax.vmap(_largest)(a, keep)
    mix = lambda x: jnp.einsum(
      't,t...->...', coef.astype(x.dtype), x, precision='highest'
    )
    return dataclasses.replace(first, a=mix(a), b=mix(b))

  is_factors = lambda x: isinstance(x, adapters.Factors)
  return jax.tree.map(combine, *experts, is_leaf=is_factors)


def _scaled(factors: adapters.Factors, like: adapters.Factors) -> types.Array:
  """Returns the map to the outputs that fits another scale."""
  b = tree.wide(factors.b)
  return b * jnp.asarray(factors.scale / like.scale).astype(b.dtype)


def _largest(x: types.Array, share: types.Array) -> types.Array:
  """Keeps the given share of entries, the largest ones; ties are all kept."""
  count = jnp.clip(jnp.round(share * x.size).astype(jnp.int32), 1, x.size)
  magnitudes = jnp.abs(x)
  least = jnp.sort(magnitudes.reshape(-1))[x.size - count]
  return jnp.where(magnitudes >= least, x, 0)
