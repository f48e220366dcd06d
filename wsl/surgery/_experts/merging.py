"""Experts aligned, and merged by usage."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl import align, tree, types
from wsl.surgery._experts import grouping, stacks


def align_experts(
  experts: types.Params,
  *,
  symmetry: align.Symmetry,
  key: types.PRNGKey,
  reference: int | None = 0,
) -> types.Params:
  r"""Permutes the hidden units of each expert to match those of one expert.

  .. math:: \pi_e = \arg\max_\pi \langle \theta_r, \pi \theta_e \rangle

  For a perceptron this is one assignment for each expert, with the gains
  :math:`U_r U_e^\top + V_r^\top V_e` of its input and output weights. The
  function of each expert stays the same. Experts are to be aligned before they
  are merged, or compared by their weights.

  Args:
    experts: leaves ``[E, ...]``, or a sequence of E trees.
    symmetry: of one expert, ``align.find_symmetry(apply_fn, expert, x)``.
    key: a random key, for the order of visits if the symmetry has several
      groups, and for ``reference=None``.
    reference: r, the expert that stays as it is; 0 in M-SMoE. None matches all
      experts to each other (``align.match_many``), for merges of many.

  Returns:
    The experts in the form they were given in.

  Raises:
    ValueError: if there is no such expert, or as ``align.weight_matching``.

  Example:
    >>> import jax
    >>> from wsl import align
    >>> symmetry = align.Symmetry(
    ...   (align.Factor('a:0', 2),), (('a', ((('a:0',),),)),))
    >>> experts = {'a': jnp.asarray([[1.0, 2.0], [2.5, 1.5]])}
    >>> found = align_experts(experts, symmetry=symmetry, key=jax.random.key(0))
    >>> found['a'].tolist()
    [[1.0, 2.0], [1.5, 2.5]]

  Reference:
    Li et al., "Merge, Then Compress: Demystify Efficient SMoE with Hints from
    Its Routing Policy", 2023, arXiv:2310.01334; Ainsworth et al., "Git
    Re-Basin: Merging Models modulo Permutation Symmetries", 2022,
    arXiv:2209.04836; Crisostomi et al., "C2M3: Cycle-Consistent Multi-Model
    Merging", 2024, arXiv:2405.17897 (``reference=None``).
  """
  each = _each('align_experts', experts)
  if reference is not None and not 0 <= reference < len(each):
    raise ValueError(
      f'align_experts(reference={reference}): expected 0 .. {len(each) - 1}'
    )
  # Of a perceptron V s(U x) the agreement with a permutation P of the units of
  # e is <U_r, P U_e> + <V_r, V_e P^T> = sum_j C[j, P(j)], which is linear in P:
  # with one group of units the first assignment is the optimum.
  fixed = None if reference is None else each[reference]
  if fixed is None:
    tables = align.match_many(each, symmetry=symmetry, key=key)
  else:
    match = lambda x: align.weight_matching(
      fixed, x, symmetry=symmetry, key=key
    )
    same = align.identity(symmetry)
    tables = [same if x is fixed else match(x) for x in each]
  each = [
    x if x is fixed else align.permute(x, table, symmetry=symmetry)
    for x, table in zip(each, tables, strict=True)
  ]
  return each if isinstance(experts, (list, tuple)) else tree.stack(each)


def merge_experts(
  experts: types.Params, groups: grouping.ExpertGroups, *, usage: Any
) -> types.Params:
  r"""Averages the experts of each group, weighted by their usage.

  .. math:: \theta_g = \frac{\sum_{e \in g} f_e \theta_e}{\sum_{e \in g} f_e}

  The router stays as it is: its E columns point to G experts. ``tie_experts``
  returns them in this form.

  Args:
    experts: leaves ``[E, ...]``, in memory, on demand or sharded; or a sequence
      of E trees. Align them first.
    groups: of the E experts.
    usage: f, ``[E]``, such as ``Routing.usage``; equal numbers give the mean. A
      group that is never used has the mean of its experts.

  Returns:
    The merged experts, leaves ``[G, ...]`` in the dtypes of the experts; a list
    of trees for a sequence.

  Raises:
    ValueError: if usage, groups and experts have different numbers of experts.

  Example:
    >>> experts = {'w': jnp.asarray([[1.0], [5.0], [3.0]])}
    >>> groups = grouping.ExpertGroups(np.asarray([0, 0, 1]), np.arange(2))
    >>> merge_experts(experts, groups, usage=[0.75, 0.25, 0.0])['w'].tolist()
    [[2.0], [3.0]]

  Reference:
    Li et al., "Merge, Then Compress: Demystify Efficient SMoE with Hints from
    Its Routing Policy", 2023, arXiv:2310.01334.
  """
  separate = isinstance(experts, (list, tuple))
  stack = tree.stack(experts) if separate else experts
  table = np.asarray(groups.table)
  f = grouping.checked_usage('merge_experts', '', usage)
  count = _count('merge_experts', stack)
  if not len(f) == len(table) == count:
    raise ValueError(
      f'merge_experts: usage of {len(f)}, groups of {len(table)} and leaves of '
      f'{count} experts: expected one number'
    )
  grouping.check_table('merge_experts', groups)
  for name, x in tree.named(stack).items():
    if not tree.is_float(x):
      raise ValueError(f"merge_experts: leaf '{name}' is {x.dtype}, no float")
  # Row g of the weights is f_e / sum f over its members, 0 elsewhere.
  members = (table == np.arange(len(groups.dominant))[:, None]).astype(float)
  used = members @ f > 0
  weights = members * np.where(used[:, None], f, 1.0)
  weights /= weights.sum(1, keepdims=True)
  merged = tree.map(_average, stack, weights=weights)
  return _each('merge_experts', merged) if separate else merged


def tie_experts(
  merged: types.Params, groups: grouping.ExpertGroups
) -> types.Params:
  """Returns the expert of each router entry: merged experts, repeated.

  A mixture with the E tied experts and the old router is equal to one with G
  stored experts and a table.

  Args:
    merged: leaves ``[G, ...]``.
    groups: the division of the E experts.

  Returns:
    Leaves ``[E, ...]``.

  Raises:
    ValueError: if leaves and groups have different numbers of groups.

  Example:
    >>> groups = grouping.ExpertGroups(np.asarray([0, 0, 1]), np.arange(2))
    >>> tie_experts({'w': jnp.asarray([2.0, 3.0])}, groups)['w'].tolist()
    [2.0, 2.0, 3.0]
  """
  count = _count('tie_experts', merged)
  if count != len(groups.dominant):
    raise ValueError(
      f'tie_experts: leaves of {count} experts, groups has '
      f'{len(groups.dominant)}: give merged experts'
    )
  grouping.check_table('tie_experts', groups)
  return tree.map(_repeat, merged, table=np.asarray(groups.table, np.int32))


def _each(caller: str, experts: Any) -> list[types.Params]:
  """Returns experts as a list of trees."""
  if isinstance(experts, (list, tuple)):
    return list(experts)
  count = _count(caller, experts)
  return [tree.map(stacks.pick, experts, e=e) for e in range(count)]


def _count(caller: str, experts: types.Params) -> int:
  """Returns E, the first axis of all leaves."""
  sizes = {n: x.shape[:1] for n, x in tree.named(experts).items()}
  if not sizes or len({*sizes.values()}) > 1 or () in sizes.values():
    raise ValueError(
      f'{caller}: experts have leaves with first axes '
      f'{dict(list(sizes.items())[:3])}: expected [E, ...] in all, or a list'
    )
  return int(next(iter(sizes.values()))[0])


def _average(x: types.Array, *, weights: types.Array) -> types.Array:
  """Returns the weighted averages ``[G, ...]`` of a leaf ``[E, ...]``."""
  wide = tree.wide(x)
  w = weights.astype(wide.dtype)
  mean = jnp.tensordot(w, wide, 1, precision='highest')
  # Residual columns are those of the rounded averages.
  return tree.narrow(mean, x.dtype)


def _repeat(x: types.Array, *, table: types.Array) -> types.Array:
  return jnp.take(x, table, axis=0)
