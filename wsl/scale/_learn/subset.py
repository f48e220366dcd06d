"""A bank of some of the vectors."""

from collections.abc import Sequence
import dataclasses

from wsl import tree
from wsl.scale._bank import bank_rows, banks


def subset(bank: banks.Bank, names: Sequence[str]) -> banks.Bank:
  """Returns the bank of some of the vectors, in the order given.

  Args:
    bank: T vectors.
    names: which ones, from ``bank.names``.

  Returns:
    A bank of ``len(names)`` vectors.

  Raises:
    ValueError: if there is no vector of a name, or no name.

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
