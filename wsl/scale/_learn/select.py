"""Which vectors to learn with, from one gradient."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from wsl import deprecation, tree, types
from wsl.scale._bank import bank_rows, banks
from wsl.scale._coefs import init
from wsl.scale._compose import pull_back
from wsl.scale._learn import subset

_WAYS = ('feature', 'vector', 'block')


class Selection(NamedTuple):
  """A smaller bank, and why.

  Attributes:
    bank: what was chosen.
    scores: by name of the vector, its score; with ``'block'`` by name of the
      leaf, a dict of them. The largest were chosen.
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
    gradient: of a loss in the weights, at the base; ``None`` with
      ``'feature'``. One gradient serves, whatever T is.
    budget: how many to keep, ``1 <= budget <= T``.
    by: ``'vector'`` keeps those with the largest sum of s over leaves,
      ``'block'`` the largest s at each leaf, other vectors at other leaves
      (they stay in the bank with the leaves that they won, the rest takes no
      memory), ``'feature'`` those whose data look most like the target's.
    features: for ``'feature'``: the target's mean feature ``[d]`` and the
      vectors' ``[T, d]``, compared by their cosine.

  Returns:
    The smaller bank, with the vectors in their old order, and the scores.

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
  if not 1 <= budget <= len(bank):
    raise ValueError(
      f'select(budget={budget}): expected 1 .. {len(bank)}, the bank has '
      f'{len(bank)} vectors'
    )
  if by == 'feature':
    scores = _cosines(bank, features)
    return Selection(_best(bank, scores, budget), _by_name(bank, scores))
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


def _cosines(
  bank: banks.Bank,
  features: tuple[types.ArrayLike, types.ArrayLike] | None,
) -> np.ndarray:
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
  return {name: float(x) for name, x in zip(bank.names, scores)}


def _largest(scores: np.ndarray, budget: int) -> list[int]:
  return sorted(np.argsort(-scores, kind='stable')[:budget].tolist())


def _best(bank: banks.Bank, scores: np.ndarray, budget: int) -> banks.Bank:
  return subset.subset(bank, [bank.names[i] for i in _largest(scores, budget)])
