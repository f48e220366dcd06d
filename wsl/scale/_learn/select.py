"""Choose task vectors: by name, or by a score within a budget."""

from collections.abc import Sequence
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from wsl import deprecation, tree, types
from wsl.scale._bank import bank_rows, banks
from wsl.scale._coefs import init
from wsl.scale._compose import pull_back

_WAYS = ('feature', 'vector', 'block')


class Selection(NamedTuple):
  """A smaller bank, and the scores it was chosen by.

  Attributes:
    bank: the chosen vectors.
    scores: the score of each vector, by name; with ``'block'``, such a dict for
      each leaf, by the leaf's name. The largest scores are chosen.
  """

  bank: banks.Bank
  scores: dict[str, Any]


@deprecation.positional('scale.select', 'budget')
def select(
  bank: banks.Bank,
  gradient: types.Params,
  *,
  budget: int,
  by: str = 'vector',
  features: tuple[types.ArrayLike, types.ArrayLike] | None = None,
) -> Selection:
  r"""Chooses ``budget`` task vectors, for the model or for each leaf.

  .. math:: s_{ij} = \Bigl| \frac{\partial L}{\partial \lambda_{ij}} \Bigr|
    = \Bigl| \Bigl\langle \frac{\partial L}{\partial \theta_j}, \tau_{i,j}
    \Bigr\rangle \Bigr|

  Args:
    bank: T task vectors.
    gradient: the gradient of a loss with respect to the weights, at the base;
      ``None`` with ``'feature'``. One gradient scores any number of vectors.
    budget: the number of vectors to keep, ``1 <= budget <= T``.
    by: ``'vector'`` keeps the vectors with the largest sum of s over leaves;
      ``'block'`` keeps the largest s at each leaf, so that the vectors differ
      between leaves (a vector keeps the leaves where it was chosen, the others
      take no memory); ``'feature'`` keeps the vectors whose data resemble the
      target's most.
    features: for ``'feature'``: the target's mean feature ``[d]`` and the
      vectors' ``[T, d]``, compared by their cosine.

  Returns:
    The smaller bank, with the vectors in their original order, and the scores.

  Raises:
    ValueError: if an argument is unknown, missing or out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import scale
    >>> base = {'w': jnp.zeros(2)}
    >>> models = [{'w': jnp.asarray(v)} for v in ([1.0, 0.0], [0.0, 3.0])]
    >>> bank = scale.bank(base, models, names=['cars', 'pets'])
    >>> select(bank, {'w': jnp.ones(2)}, budget=1).bank.names
    ('pets',)

  Reference:
    Zhang et al., "Knowledge Composition using Task Vectors with Learned
    Anisotropic Scaling", 2024, arXiv:2407.02880.

  Differs from the paper, which takes gradients for groups of ``budget`` vectors
  and compares them across groups: the inner product needs no groups.
  """
  if by not in _WAYS:
    hint = tree.nearest(str(by), _WAYS)
    raise ValueError(f"select(by='{by}'): no such way{hint}: one of {_WAYS}")
  tree.check_whole('select', budget=budget)
  if not 1 <= budget <= len(bank):
    raise ValueError(
      f'select(budget={budget}): expected 1 .. {len(bank)}, the bank has '
      f'{len(bank)} vectors'
    )
  if by == 'feature':
    scores = _cosines(bank, features)
    return Selection(_best(bank, scores, budget), _by_name(bank, scores))
  tree.check_not_narrowed('select', bank.leaves)
  coefs = init.init(bank, by='leaf')
  found = pull_back.pull_back(bank, gradient, coefs)
  by_leaf = {name: np.abs(np.asarray(x)) for name, x in found.values.items()}
  if by == 'vector':
    scores = np.sum(list(by_leaf.values()), axis=0)
    return Selection(_best(bank, scores, budget), _by_name(bank, scores))
  leaves = {
    name: bank_rows.only(
      bank.leaves[name], _largest(by_leaf[name], budget), len(bank)
    )
    for name in bank.leaves
  }
  at_leaf = {name: _by_name(bank, x) for name, x in by_leaf.items()}
  return Selection(dataclasses.replace(bank, leaves=leaves), at_leaf)


def subset(bank: banks.Bank, names: Sequence[str]) -> banks.Bank:
  """Returns a bank of the named vectors, in the order given.

  Args:
    bank: T vectors.
    names: the vectors to keep, from ``bank.names``.

  Returns:
    A bank of ``len(names)`` vectors.

  Raises:
    ValueError: if a name is not in the bank, or no names are given.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import scale
    >>> models = [{'w': jnp.zeros(2)}, {'w': jnp.ones(2)}]
    >>> both = scale.bank({'w': jnp.zeros(2)}, models, names=['cars', 'pets'])
    >>> subset(both, ['pets']).leaves['w'].tolist()
    [[1.0, 1.0]]
  """
  for name in names:
    if name not in bank.names:
      hint = tree.nearest(name, bank.names)
      raise ValueError(f"subset: no vector '{name}' in the bank{hint}")
  if not names:
    raise ValueError('subset: no names given, at least one is needed')
  index = [bank.names.index(name) for name in names]
  return dataclasses.replace(
    bank,
    leaves={
      name: found
      for name, leaf in bank.leaves.items()
      if (found := bank_rows.take(leaf, index)) is not None
    },
    names=tuple(names),
  )


def _cosines(
  bank: banks.Bank,
  features: tuple[types.ArrayLike, types.ArrayLike] | None,
) -> np.ndarray:
  """Returns the cosine of each vector's mean feature with the target's."""
  if features is None:
    raise ValueError(
      "select(by='feature'): features= is missing: the target's mean feature "
      "[d], and the vectors' [T, d]"
    )
  target, others = (np.asarray(x, np.float64) for x in features)
  if target.ndim != 1 or others.shape != (len(bank), target.size):
    raise ValueError(
      f"select(by='feature'): features have shapes {target.shape} and "
      f'{others.shape}, expected (d,) and ({len(bank)}, d)'
    )
  norms = np.linalg.norm(others, axis=1) * np.linalg.norm(target)
  return others @ target / np.where(norms > 0, norms, 1)


def _by_name(bank: banks.Bank, scores: np.ndarray) -> dict[str, float]:
  """Returns the scores as a dict of vector names."""
  return {name: float(x) for name, x in zip(bank.names, scores)}


def _largest(scores: np.ndarray, budget: int) -> list[int]:
  """Returns the indices of the largest scores, in ascending order."""
  return sorted(np.argsort(-scores, kind='stable')[:budget].tolist())


def _best(bank: banks.Bank, scores: np.ndarray, budget: int) -> banks.Bank:
  """Returns the bank of the vectors with the largest scores."""
  return subset(bank, [bank.names[i] for i in _largest(scores, budget)])
