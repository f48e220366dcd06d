"""Functions designed to mislead the reader, by name."""

from tests.align.find.adversarial import (
  batched,
  features,
  finer,
  loops,
  mixing,
  rare,
  structure,
)

PARTS = (
  features.CASES,
  structure.CASES,
  mixing.CASES,
  loops.CASES,
  rare.CASES,
  finer.CASES,
  batched.CASES,
)
CASES = {name: case for part in PARTS for name, case in part.items()}
