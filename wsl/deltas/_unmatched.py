"""Leaves that a base and a model do not share."""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from wsl import tree, types


class Unmatched(NamedTuple):
  """A leaf of a model, or of the base, without a counterpart.

  Attributes:
    name: the leaf's name in the base, or in the model if the base lacks it.
    model: the index of the model.
    reason: ``'missing'`` in the model, ``'extra'`` there, or the two shapes.
  """

  name: str
  model: int
  reason: str


def unmatched(
  base: types.Params, models: Sequence[types.Params]
) -> list[Unmatched]:
  """Lists the leaves to which ``stack(unmatched=)`` applies.

  Args:
    base: leaves ``[...]``.
    models: models whose names may be dotted or nested, see ``tree.like``.

  Returns:
    A list by model; empty if all models have the base's names and shapes.

  Example:
    >>> import jax.numpy as jnp
    >>> base = {'w': jnp.ones(2), 'head': jnp.ones(3)}
    >>> for leaf in unmatched(base, [{'w': jnp.ones(2), 'head': jnp.ones(5)}]):
    ...   print(leaf)
    Unmatched(name='head', model=0, reason='shape (5,), in the base (3,)')
  """
  wanted = tree.named(base)
  found = []
  for t, model in enumerate(models):
    leaves, extra = tree.common(base, model)
    for name, leaf in wanted.items():
      if name not in leaves:
        found.append(Unmatched(name, t, 'missing'))
      elif jax.numpy.shape(leaves[name]) != jax.numpy.shape(leaf):
        shapes = [tuple(jax.numpy.shape(x)) for x in (leaves[name], leaf)]
        reason = f'shape {shapes[0]}, in the base {shapes[1]}'
        found.append(Unmatched(name, t, reason))
    found += [Unmatched(name, t, 'extra') for name in extra]
  return found


def fill(
  base: types.Params, models: Sequence[types.Params]
) -> tuple[list[types.Params], set[str], set[str]]:
  """Returns models of the base's leaves, and the names that do not match.

  A leaf without a counterpart is the base's: its task vector is zero.

  Returns:
    The models; the names that some model does not match; and that none does.
  """
  misfits: dict[int, set[str]] = {}
  for name, t, _ in unmatched(base, models):
    misfits.setdefault(t, set()).add(name)
  filled = []
  for t, model in enumerate(models):
    leaves, _ = tree.common(base, model)
    misfit = misfits.get(t, set())
    own = {name: leaf for name, leaf in leaves.items() if name not in misfit}
    filled.append(
      tree.map_named(lambda name, x, own=own: own.get(name, x), base)
    )
  apart = [misfits.get(t, set()) for t in range(len(models))]
  return filled, set().union(*apart), set.intersection(*apart)
