"""All the functions made to mislead, by name."""

from tests.align import adversarial_features as features
from tests.align import adversarial_loops as loops
from tests.align import adversarial_mixing as mixing
from tests.align import adversarial_structure as structure

CASES = features.CASES | structure.CASES | loops.CASES | mixing.CASES
