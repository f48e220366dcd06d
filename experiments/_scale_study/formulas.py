"""The cost of each operation on one device, from its definition.

The unit of memory is a share, the part of one model on one device, ``N b / D``
bytes. ``counted`` is what the text of a compiled program shows: the body of a
loop once. ``executed`` is what a call takes.
"""

import math
from typing import Any

from experiments._scale_study import costs

# A search for a rank counts about twice, then collects the last candidates.
PASSES = 3
# Operations for each entry of a stack: a hash and a comparison; the counts of
# four probes, twice, and one collection; mask, votes and mean.
_HASH, _SEARCH, _TIES = 29, 2 * 17 + 8, 18.5
# Each column of the last pass keeps two candidates.
_COLUMNS = 16384
# Multiplications and additions of a solution, in n^3: LU, two substitutions.
_SOLVE = 2 / 3 + 2


def _elementwise(
  size: costs.Size, *, reads: float, operations: float, **more: float
) -> costs.Cost:
  """Reads so many shares, writes one, and keeps nothing."""
  share = _share(size)
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
    memory=7 * _share(size),
    link=_all_reduce(size, 3 * 4 * size.leaves),
    collectives=int(size.devices > 1),
  )


def _ties(
  size: costs.Size, counted: bool, *, searches: int = 1, dare: bool = False
) -> costs.Cost:
  """A search by ``PASSES`` over the stack, then one pass that merges."""
  models, share = size.models, _share(size)
  # A mask of DARE is stored for the search: XLA does not recompute it there,
  # but it does for each of the four parts of the merge.
  made = 2 * models if dare else 0
  hashes = 4 * _HASH * models if dare else 0
  found = _elementwise(
    size, reads=models, operations=(_SEARCH + _TIES) * models + hashes
  )
  found = found._replace(
    memory=(PASSES * models + models + 1 + made) * share,
    temporaries=made / 2 * share,
  )
  if size.devices == 1:
    return found
  if size.cpu:
    # On a CPU a pass runs over flat blocks: the stack is gathered, and each
    # device reads all of it. The text has one count and one collection.
    passes = 2 if counted else PASSES
    gathered = passes * models * (size.devices - 1) * share
    whole = models * size.devices * share
    return found._replace(
      memory=found.memory + PASSES * 2 * whole,
      operations=found.operations
      + _SEARCH * models * size.parameters * (1 - 1 / size.devices),
      link=gathered,
      collectives=4 * size.leaves + 1,
      temporaries=found.temporaries + 2 * whole,
    )
  # Elsewhere shards are reduced: the counts of four probes, then the columns.
  small = (PASSES - 1) * models * 4 * 4 * searches
  columns = 2 * models * _COLUMNS * 4 * searches
  return found._replace(
    link=_all_reduce(size, small + columns), collectives=PASSES
  )


def _ties_leaf(size: costs.Size, counted: bool) -> costs.Cost:
  return _ties(size, counted, searches=size.leaves)


def _dare_ties(size: costs.Size, counted: bool) -> costs.Cost:
  return _ties(size, counted, dare=True)


def _regmean(size: costs.Size, counted: bool) -> costs.Cost:
  """Products of Gram matrices and task vectors, their sum, and a solution."""
  models, share, n = size.models, _share(size), size.side
  # The Gram matrices are float32: shares of 4 N / D bytes.
  gram = 4 / size.itemsize
  found = costs.Cost(
    memory=(8 * models + 7) * share,
    operations=2 * models * size.parameters / size.devices,
    products=2 * models * n * size.parameters / size.devices,
    arguments=models * (1 + gram) * share,
    results=share,
    temporaries=1.5 * models * share,
  )
  # An LU decomposition is not partitioned: each device gathers the Gram
  # matrices and solves for all columns.
  solve = _SOLVE * n * size.parameters
  if size.devices == 1:
    return found._replace(products=found.products + solve)
  return found._replace(
    memory=found.memory + (models + 2) * 2 * size.devices * share,
    products=found.products + solve,
    link=(models + 2) * (size.devices - 1) * share,
    collectives=3 * size.leaves + 1,
    temporaries=1.65 * models * size.devices * share,
  )


def _spectral(
  size: costs.Size,
  counted: bool,
  *,
  decomposed: float,
  products: float,
  kept: tuple[float, float],
) -> costs.Cost:
  """Whole matrices are exchanged, a part of them on each device.

  Args:
    size: of the model.
    counted: not used.
    decomposed: decompositions of n x n matrices for each leaf.
    products: of n x n matrices for each leaf.
    kept: shares of temporaries on one device, and on several.
  """
  # The number of matrices is rounded up to a multiple of D.
  mine = math.ceil(size.leaves / size.devices)
  padded = mine * size.devices / size.leaves
  n, share, d = size.side, _share(size), size.devices
  wide = 4 / size.itemsize  # decomposed in float32
  return costs.Cost(
    memory=4 * size.models * padded * wide * share,
    operations=size.models * mine * n**2,
    products=2 * products * mine * n**3,
    decompositions=decomposed * mine * n**3,
    link=(size.models + 1) * padded * wide * share * (d - 1) / d,
    collectives=2 * (d > 1),
    arguments=size.models * share,
    results=share,
    temporaries=kept[d > 1] * padded * wide * share,
  )


def _iso_c(size: costs.Size, counted: bool) -> costs.Cost:
  kept = (size.models + 2, 3 * size.models)
  return _spectral(size, counted, decomposed=1, products=1, kept=kept)


def _tsv(size: costs.Size, counted: bool) -> costs.Cost:
  # A Gram matrix and its eigenvectors for each model, two polar factors.
  models = size.models
  kept = (6 * models + 2, 6 * models + 6)
  return _spectral(
    size, counted, decomposed=models + 2, products=2 * models + 4, kept=kept
  )


def _gains(size: costs.Size, counted: bool) -> costs.Cost:
  """The inner axis is sharded: partial products are summed over devices.

  A CPU sums all leaves at once, other devices one after the other.
  """
  share, d = _share(size), size.devices
  leaf = d * share / size.leaves
  return costs.Cost(
    memory=(3 if d == 1 else 3 * d + 4) * share,
    products=2 * size.side * size.parameters / d,
    link=_all_reduce(size, d * share),
    collectives=int(d > 1),
    arguments=2 * share,
    results=share,
    temporaries=0.0 if d == 1 else 2 * d * share if size.cpu else leaf,
  )


def _evaluate(size: costs.Size, counted: bool) -> costs.Cost:
  """Interpolates, and applies the layers to images.

  The columns of a layer are sharded, so that its outputs are gathered before
  the next one; at last a mean is reduced.
  """
  share, d, b = _share(size), size.devices, size.itemsize
  layer = size.rows * size.side * b
  gathered = (size.leaves - 1) * layer
  return costs.Cost(
    memory=(2 if d == 1 else 4) * share + 4 * size.leaves * layer,
    operations=3 * size.parameters / d,
    products=2 * size.rows * size.parameters / d,
    link=gathered * (d - 1) / d + _all_reduce(size, b),
    collectives=size.leaves if d > 1 else 0,
    arguments=2 * share + layer,
    results=b,
    temporaries=0.0 if d == 1 else share + 2 * layer,
  )


def _share(size: costs.Size) -> float:
  """The bytes of one model on one device."""
  return size.parameters * size.itemsize / size.devices


def _all_reduce(size: costs.Size, result: float) -> float:
  """Bytes that a device sends: a reduce-scatter and an all-gather, in rings."""
  return 2 * result * (size.devices - 1) / size.devices


_FORMULAS: dict[str, Any] = {
  'mean': _mean,
  'task arithmetic': _task_arithmetic,
  'slerp': _slerp,
  'fisher': _fisher,
  'dare': _dare,
  'ties': _ties,
  'ties leaf': _ties_leaf,
  'dare + ties': _dare_ties,
  'regmean': _regmean,
  'iso_c': _iso_c,
  'tsv': _tsv,
  'gains': _gains,
  'evaluate': _evaluate,
}


def executed(name: str, size: costs.Size) -> costs.Cost:
  """Returns the cost of one call on each device."""
  return _FORMULAS[name](size, False)


def counted(name: str, size: costs.Size) -> costs.Cost:
  """Returns the cost that the text of the compiled program shows."""
  found = _FORMULAS[name](size, True)
  # The compiler's operations include those of products.
  return found._replace(operations=found.operations + found.products)
