"""The cost of each operation on one device, from its definition.

The unit of memory is a share, the part of one model on one device, ``N b / D``
bytes. ``counted`` is what the text of a compiled program shows: the body of a
loop once. ``executed`` is what a call takes.
"""

import math
from typing import Any

from experiments._scale_study import costs, products

# A search for a rank counts about twice, then collects the last candidates.
PASSES = 3
# Operations for each entry of a stack: a hash and a comparison; the counts of
# four probes, twice, and one collection; mask, votes and mean.
_HASH, _SEARCH, _TIES = 29, 2 * 17 + 8, 18.5
# Of a search in each model, read off its programs: columns of all leaves, which
# hold the ends of a bracket; and entries of a sample, of each leaf.
_COLUMNS, _SAMPLE = 4096, 2048


def _elementwise(
  size: costs.Size, *, reads: float, operations: float, **more: float
) -> costs.Cost:
  """Reads so many shares, writes one, and keeps nothing."""
  share = size.share
  return costs.Cost(
    memory=(reads + 1) * share,
    operations=operations * size.parameters / size.devices,
    arguments=reads * share,
    results=share,
    **more,
  )


def _mean(size: costs.Size, counted: bool) -> costs.Cost:
  return _elementwise(size, reads=size.models, operations=size.models)


def _task_arithmetic(size: costs.Size, counted: bool) -> costs.Cost:
  models = size.models
  return _elementwise(size, reads=models + 1, operations=models + 1)


def _fisher(size: costs.Size, counted: bool) -> costs.Cost:
  models = size.models
  return _elementwise(size, reads=2 * models, operations=4 * models + 1)


def _dare(size: costs.Size, counted: bool) -> costs.Cost:
  return _elementwise(
    size, reads=size.models, operations=_HASH * size.models + 1
  )


def _slerp(size: costs.Size, counted: bool) -> costs.Cost:
  # aa, bb and ab read 1 + 1 + 2 shares, the interpolation 2, and writes 1.
  # The three products of all leaves are reduced together.
  found = _elementwise(size, reads=2, operations=9)
  return found._replace(
    memory=7 * size.share,
    link=size.all_reduce(3 * 4 * size.leaves),
    collectives=int(size.devices > 1),
  )


def _ties(
  size: costs.Size, counted: bool, *, dare: bool = False, leaf: bool = False
) -> costs.Cost:
  """A search by ``PASSES`` over the stack, then one pass that merges."""
  models, share = size.models, size.share
  # A mask of DARE is stored for the search: XLA does not recompute it there,
  # but it does for each of the four parts of the merge.
  made = 2 * models if dare else 0
  hashes = 4 * _HASH * models if dare else 0
  found = _elementwise(
    size, reads=models, operations=(_SEARCH + _TIES) * models + hashes
  )
  columns, each = _columns(size, leaf)
  ends, sample = 4 * 2 * models * columns, 4 * models * _SAMPLE
  kept = 6 * ends if leaf else 4 * sample
  found = found._replace(
    memory=(PASSES * models + models + 1 + made) * share,
    temporaries=made / 2 * share + kept * size.leaves,
  )
  if size.devices == 1:
    return found
  # Shards are counted where they are; the ends of brackets in each column, and
  # a sample, are combined leaf by leaf, on accelerators for eight leaves.
  batches = size.leaves if size.cpu else math.ceil(size.leaves / 8)
  return found._replace(
    link=size.leaves * size.all_reduce(each * ends + sample),
    collectives=8 * batches + 1,
  )


def _columns(size: costs.Size, leaf: bool) -> tuple[float, float]:
  """Returns the columns of a leaf, and how often its ends are combined."""
  total = _COLUMNS * (4 if size.parameters >= 2**22 else 1)
  if leaf:
    return total / 2, 1
  columns = max(total / size.leaves, 1)
  # Where a column is a row or more, shards are combined pair by pair.
  return columns, 1 if columns > size.side else math.log2(size.devices)


def _dare_ties(size: costs.Size, counted: bool) -> costs.Cost:
  return _ties(size, counted, dare=True)


def _ties_leaf(size: costs.Size, counted: bool) -> costs.Cost:
  return _ties(size, counted, leaf=True)


_FORMULAS: dict[str, Any] = {
  'mean': _mean,
  'task arithmetic': _task_arithmetic,
  'slerp': _slerp,
  'fisher': _fisher,
  'dare': _dare,
  'ties': _ties,
  'ties leaf': _ties_leaf,
  'dare + ties': _dare_ties,
  'regmean': products.regmean,
  'iso_c': products.iso_c,
  'tsv': products.tsv,
  'gains': products.gains,
  'evaluate': products.evaluate,
}


def executed(name: str, size: costs.Size) -> costs.Cost:
  """Returns the cost of one call on each device."""
  return _FORMULAS[name](size, False)


def counted(name: str, size: costs.Size) -> costs.Cost:
  """Returns the cost that the text of the compiled program shows."""
  found = _FORMULAS[name](size, True)
  # The compiler's operations include those of products.
  return found._replace(operations=found.operations + found.products)
