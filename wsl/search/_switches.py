"""Offspring of an assignment of levels to layers, within a budget."""

import numpy as np

_SWITCHES = 3  # at most, in one offspring


def total(levels: np.ndarray, costs: np.ndarray) -> float:
  """Returns the cost of levels ``[L]`` by the costs ``[L, K]``."""
  return float(costs[np.arange(len(costs)), levels].sum())


def offspring(
  parent: np.ndarray,
  costs: np.ndarray,
  budget: float,
  count: int,
  generator: np.random.Generator,
) -> np.ndarray:
  """Returns different mutants, fewer than asked if few exist, ``[B, L]``."""
  found: dict[bytes, np.ndarray] = {}
  for _ in range(20 * count):
    mutant = _mutant(parent, costs, budget, generator)
    if mutant is not None and not np.array_equal(mutant, parent):
      found[mutant.tobytes()] = mutant
    if len(found) == count:
      break
  return np.array([*found.values()], parent.dtype).reshape(-1, len(parent))


def _mutant(
  parent: np.ndarray,
  costs: np.ndarray,
  budget: float,
  generator: np.random.Generator,
) -> np.ndarray | None:
  """Returns the parent with levels switched; None if the budget fails."""
  levels = parent.copy()
  # The smaller of two draws: one switch is more probable than three.
  switches = generator.integers(1, _SWITCHES + 1, 2).min()
  raised = np.zeros(len(levels), bool)
  for _ in range(switches):
    above = np.minimum(levels + 1, costs.shape[1] - 1)
    exists = np.isfinite(costs[np.arange(len(levels)), above])
    able = (above > levels) & exists
    if able.any():
      chosen = generator.choice(np.flatnonzero(able))
      levels[chosen] += 1
      raised[chosen] = True
  while total(levels, costs) > budget:
    able = (levels > 0) & ~raised
    if not able.any():
      return None
    levels[generator.choice(np.flatnonzero(able))] -= 1
  return levels
