"""All the functions made to mislead, by name."""

from tests.align import adversarial_features as features
from tests.align import adversarial_loops as loops
from tests.align import adversarial_mixing as mixing
from tests.align import adversarial_rare as rare
from tests.align import adversarial_structure as structure

PARTS = (
  features.CASES,
  structure.CASES,
  mixing.CASES,
  loops.CASES,
  rare.CASES,
)
CASES = {name: case for part in PARTS for name, case in part.items()}
