"""The costs of operations that multiply, solve or decompose matrices.

Units and arguments are those of ``formulas``.
"""

import math

from experiments._scale_study import costs

# Multiplications and additions of a solution, in n^3: LU, two substitutions.
_SOLVE = 2 / 3 + 2


def regmean(size: costs.Size, counted: bool) -> costs.Cost:
  """Products of Gram matrices and task vectors, their sum, and a solution."""
  models, share, n = size.models, size.share, size.side
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
  # matrices, on a CPU those of all leaves at once, and solves for a part of the
  # columns, which are exchanged.
  at_once = 1 if size.cpu else size.leaves
  solve = _SOLVE * n * size.parameters
  if size.devices == 1:
    return found._replace(products=found.products + solve)
  return found._replace(
    memory=found.memory + (models + 2) * 2 * size.devices * share,
    products=found.products + solve,
    link=(models + 1) * (size.devices - 1) * share,
    collectives=9 * size.leaves + 1,
    temporaries=(1.575 * size.devices + 1) * models * share / at_once,
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
  n, share, d = size.side, size.share, size.devices
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


def iso_c(size: costs.Size, counted: bool) -> costs.Cost:
  kept = (size.models + 2, 3 * size.models)
  return _spectral(size, counted, decomposed=1, products=1, kept=kept)


def tsv(size: costs.Size, counted: bool) -> costs.Cost:
  # A Gram matrix and its eigenvectors for each model, two polar factors.
  models = size.models
  kept = (6 * models + 2, 6 * models + 6)
  return _spectral(
    size, counted, decomposed=models + 2, products=2 * models + 4, kept=kept
  )


def gains(size: costs.Size, counted: bool) -> costs.Cost:
  """The inner axis is sharded: partial products are summed over devices.

  A CPU sums all leaves at once, other devices one after the other.
  """
  share, d = size.share, size.devices
  leaf = d * share / size.leaves
  return costs.Cost(
    memory=(3 if d == 1 else 3 * d + 4) * share,
    products=2 * size.side * size.parameters / d,
    link=size.all_reduce(d * share),
    collectives=int(d > 1),
    arguments=2 * share,
    results=share,
    temporaries=0.0 if d == 1 else 2 * d * share if size.cpu else leaf,
  )


def evaluate(size: costs.Size, counted: bool) -> costs.Cost:
  """Interpolates, and applies the layers to images.

  The columns of a layer are sharded, so that its outputs are gathered before
  the next one; at last a mean is reduced.
  """
  share, d, b = size.share, size.devices, size.itemsize
  layer = size.rows * size.side * b
  gathered = (size.leaves - 1) * layer
  return costs.Cost(
    memory=(2 if d == 1 else 4) * share + 4 * size.leaves * layer,
    operations=3 * size.parameters / d,
    products=2 * size.rows * size.parameters / d,
    link=gathered * (d - 1) / d + size.all_reduce(b),
    collectives=size.leaves if d > 1 else 0,
    arguments=2 * share + layer,
    results=b,
    temporaries=0.0 if d == 1 else share + 2 * layer,
  )
