"""Weight matching of two unrelated ResNet-50, and what it compiles."""

import jax
import jax.numpy as jnp

from tests.bench import resnet50
from tests.bench._gpu import report
from wsl import align

FIRST_S, LATER_S = 10.0, 2.0


def run(lines: report.Report, limit: float) -> None:
  del limit
  stages = resnet50.STAGES[:1] if lines.small else resnet50.STAGES
  shapes = resnet50.shapes(stages)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  symmetry = align.find_symmetry(resnet50.apply, shapes, image)
  fixed, moving = (resnet50.draw(shapes, seed) for seed in (0, 1))
  compiled = []
  count = lambda event, *_, **__: compiled.append('backend_compile' in event)
  jax.monitoring.register_event_duration_secs_listener(count)
  visits: list[align.Visit] = []
  match = lambda: align.weight_matching(
    fixed,
    moving,
    symmetry=symmetry,
    key=jax.random.key(0),
    progress=visits.append,
  )
  first, later = report.seconds(match, rounds=2)
  jax.monitoring.unregister_event_duration_listener(count)
  lines.line('first call', first, 's', at_most=FIRST_S)
  lines.line('later calls', later, 's', at_most=LATER_S)
  lines.line('programs compiled', sum(compiled))
  lines.line('objective', float(visits[-1].objective))
