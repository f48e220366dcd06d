r"""Nested matching: attention heads together with the units inside each head.

This covers every group on whose index other permutations depend: heads and
their query, key and value units, key-value heads and their query heads, groups
of a GroupNorm and their channels, experts and their hidden units. A permutation
of such a wreath product is an outer permutation :math:`\sigma` and inner ones
:math:`\tau_i`, one for each new outer index i. The agreement is

.. math:: \sum_i \Big( S_0[i, \sigma(i)]
  + \sum_p G[i, \sigma(i), p, \tau_i(p)] \Big).

Only the i-th term contains :math:`\tau_i`, so the maximum over the inner
permutations can be taken first, separately for each pair of outer indices:

.. math:: \max_\sigma \sum_i S[i, \sigma(i)], \qquad
  S[i, j] = S_0[i, j] + \max_\tau \sum_p G[i, j, p, \tau(p)].

Solving all inner assignments and then the outer one is therefore exact. It also
holds recursively, for groups nested more deeply.

The exception are two inner groups on one block, such as the query heads of a
key-value head and the query units. Its agreement is bilinear in their
permutations. They are maximised in alternation, which is monotone but may end
in a local optimum.
"""

from typing import Any

import numpy as np

from wsl.align._match import block_pairs, labelled_array, weight_gains

_MAX_ROUNDS = 10  # of alternation between inner groups of the same block
_MAX_ENTRIES = 2**27  # of one gram; a larger one is computed in slices


def solve(
  blocks: list[block_pairs.BlockPair],
  group: str,
  *,
  outer: block_pairs.Names,
  outer_of: dict[str, block_pairs.Names],
  solvers: block_pairs.Solvers,
) -> block_pairs.Tables:
  """Matches the units of a group and of all groups that depend on it.

  Args:
    blocks: pairs of blocks in which the group occurs exactly once and each of
      its dependents at most once.
    group: a group, e.g. the heads.
    outer: the factors on which its permutation depends.
    outer_of: for each group the factors on which its permutation depends.
    solvers: for each group a function from gains to its table.

  Returns:
    Tables of the group and its dependents, outer groups first, relative to the
    current order.
  """
  # Grams of all pairs of heads may not fit in memory: the rows of S are
  # computed in slices of new outer indices, the outer assignment follows.
  size = blocks[0].fixed.shape[blocks[0].names.index(group)]
  largest = max(gram_size(block, group, outer_of) for block in blocks)
  step = max(1, _MAX_ENTRIES * size // largest)
  slices = []
  for start in range(0, size, step):
    grams = [
      _gram(block, group, slice(start, start + step), outer, outer_of)
      for block in blocks
    ]
    slices.append(_pair_values(group, grams, outer, outer_of, solvers))
  axis = len(outer)
  values = np.concatenate([value for value, _ in slices], axis)
  inner_tables = {
    name: labelled_array.LabelledArray(
      np.concatenate([tables[name].array for _, tables in slices], axis), labels
    )
    for name, (_, labels) in slices[0][1].items()
  }
  found = _outer_assignment(group, values, inner_tables, outer, solvers)
  return {
    name: labelled_array.sum_to(
      found[name],
      labelled_array.table_labels(found[name].array, (*outer_of[name], name)),
    )
    for name in sorted(found, key=lambda name: len(outer_of[name]))
  }


def gram_size(
  block: block_pairs.BlockPair,
  group: str,
  outer_of: dict[str, block_pairs.Names],
) -> int:
  """Returns the number of entries of the gram of a block."""
  matched = (group, *_inner_groups(block, group, outer_of))
  total = 1
  for name, size in zip(block.names, block.fixed.shape):
    is_batch = any(name in outer_of[n] for n in matched)
    total *= size**2 if name in matched else size if is_batch else 1
  return total


def _inner_groups(
  block: block_pairs.BlockPair,
  group: str,
  outer_of: dict[str, block_pairs.Names],
) -> block_pairs.Names:
  """Returns the groups of a block that depend on a group."""
  return tuple(n for n in block.names if group in outer_of.get(n, ()))


def _gram(
  block: block_pairs.BlockPair,
  group: str,
  rows: slice,
  outer: block_pairs.Names,
  outer_of: dict[str, block_pairs.Names],
) -> labelled_array.LabelledArray:
  """Contracts both models' blocks over all axes but the matched groups.

  The group and its dependents keep an index of each model; other factors on
  which these depend are batch axes with one index. ``rows`` selects the
  group's indices in the fixed model.
  """
  names = block.names
  matched = (group, *_inner_groups(block, group, outer_of))
  batch = tuple(
    n
    for n in names
    if n not in matched
    and (n in outer or any(n in outer_of[m] for m in matched))
  )
  # G[i, p, j, q] = sum_r A[i, p, r] B[j, q, r] is one matrix product: rows are
  # pairs (outer unit, inner unit), columns all axes that are not matched.
  axis = names.index(group)
  labels = weight_gains.unique_labels(names, axis)
  selected = block.fixed[(slice(None),) * axis + (rows,)]
  x = weight_gains.as_matrices(selected, labels, batch, matched)
  y = weight_gains.as_matrices(block.moving, labels, batch, matched)
  sizes = dict(zip(names, block.moving.shape))
  shape = [sizes[name] for name in (*batch, *matched)]
  fixed_shape = [*shape]
  fixed_shape[len(batch)] = len(range(*rows.indices(sizes[group])))
  gram = weight_gains.multiply(x, y)
  return labelled_array.LabelledArray(
    gram.reshape(*fixed_shape, *shape[len(batch) :]),
    (*batch, *matched, *map(labelled_array.old_index, matched)),
  )


def _pair_values(
  group: str,
  grams: list[labelled_array.LabelledArray],
  outer: block_pairs.Names,
  outer_of: dict[str, block_pairs.Names],
  solvers: block_pairs.Solvers,
) -> tuple[np.ndarray, dict[str, labelled_array.LabelledArray]]:
  """Returns ``S[*outer, i, j]`` and the inner tables that attain it."""
  # Grams without inner groups, e.g. of one scale for each head, are S_0. The
  # inner assignments of all pairs (i, j) are one batch for the solver.
  batch = (*outer, group, labelled_array.old_index(group))
  nested = [g for g in grams if labelled_array.unmatched_groups(g, batch)]
  values: Any = 0.0
  for gram in grams:
    if not labelled_array.unmatched_groups(gram, batch):
      values = values + labelled_array.sum_to(gram, batch)
  if not nested:
    return values, {}
  tables = _alternate(nested, batch, outer_of, solvers)
  for gram in nested:
    inner = labelled_array.unmatched_groups(gram, batch)
    best = labelled_array.take_all_matched(gram, inner, tables)
    values = values + labelled_array.sum_to(best, batch)
  return values, tables


def _alternate(
  grams: list[labelled_array.LabelledArray],
  batch: block_pairs.Names,
  outer_of: dict[str, block_pairs.Names],
  solvers: block_pairs.Solvers,
) -> dict[str, labelled_array.LabelledArray]:
  """Solves for the inner groups, each given the others of the same gram."""
  inner = [labelled_array.unmatched_groups(gram, batch) for gram in grams]
  names = {name for groups in inner for name in groups}
  # The outermost of the inner groups; each is solved with its own dependents.
  tops = sorted(n for n in names if not names & set(outer_of[n]))
  nested = {t: {t, *(n for n in names if t in outer_of[n])} for t in tops}
  partners = [
    {t: [n for n in groups if n not in nested[t]] for t in tops}
    for groups in inner
  ]
  # Groups with a linear term first: they need no partner's table to begin.
  has_linear = {
    t: any(t in groups and not p[t] for groups, p in zip(inner, partners))
    for t in tops
  }
  coupled = any(
    t in groups and p[t] for groups, p in zip(inner, partners) for t in tops
  )
  # With the partners' tables inserted, the bilinear gram of a group is linear.
  tables: dict[str, labelled_array.LabelledArray] = {}
  for _ in range(_MAX_ROUNDS):
    before = dict(tables)
    for top in sorted(tops, key=lambda t: not has_linear[t]):
      mine = [i for i, groups in enumerate(inner) if top in groups]
      known = [i for i in mine if all(n in tables for n in partners[i][top])]
      given = [
        labelled_array.take_all_matched(grams[i], partners[i][top], tables)
        for i in known or mine
      ]
      extra = tuple(
        o for o in outer_of[top] if o not in batch and o in given[0].labels
      )
      outer = (*batch, *extra)
      values, below = _pair_values(top, given, outer, outer_of, solvers)
      tables |= _outer_assignment(top, values, below, outer, solvers)
    if not coupled or (before and _equal(before, tables)):
      break
  return tables


def _outer_assignment(
  group: str,
  values: np.ndarray,
  inner_tables: dict[str, labelled_array.LabelledArray],
  outer: block_pairs.Names,
  solvers: block_pairs.Solvers,
) -> dict[str, labelled_array.LabelledArray]:
  """Matches a group's units; selects the inner tables of the matched pairs."""
  table = np.asarray(solvers[group](values))
  indices = labelled_array.table(table, (*outer, group))
  selected = {
    name: labelled_array.take_matched(table, group, indices)
    for name, table in inner_tables.items()
  }
  return {group: indices} | selected


def _equal(
  first: dict[str, labelled_array.LabelledArray],
  second: dict[str, labelled_array.LabelledArray],
) -> bool:
  """Returns True if two sets of tables are the same."""
  return all(np.array_equal(first[n].array, second[n].array) for n in second)
