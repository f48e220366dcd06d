"""64 merges of one model in one call: densities and coefficients by vmap."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.bench._gpu import report
from wsl import deltas, merge

T, SIDE, LAYERS = 8, 512, 4


def run(lines: report.Report, limit: float) -> None:
  del limit
  side = 16 if lines.small else SIDE
  draw = lambda seed: {
    f'block_{i}': jax.random.normal(
      jax.random.fold_in(jax.random.key(seed), i), (side, side)
    )
    for i in range(LAYERS)
  }
  base, *models = (draw(seed) for seed in range(1 + T))
  stacks = deltas.stack(base, models)
  x = jax.random.normal(jax.random.key(99), (64, side))

  # The task vectors are an operand: XLA would compute with constants.
  def recipe(stacks: Any, density: Any, coef: Any) -> Any:
    merged = merge.ties(stacks, density=density)
    h = x
    for kernel in deltas.apply(base, merged, coef=coef).values():
      h = jnp.tanh(jnp.matmul(h, kernel, precision='highest') / side**0.5)
    return jnp.mean(jnp.square(h))

  grid = np.meshgrid(np.linspace(0.1, 0.8, 8), np.linspace(0.1, 0.8, 8))
  each = [jnp.asarray(x.ravel(), jnp.float32) for x in grid]
  start = time.perf_counter()
  mapped = jax.vmap(recipe, (None, 0, 0))
  many = jax.jit(mapped).lower(stacks, *each).compile()
  lines.line('compilation', time.perf_counter() - start, 's')
  first = (stacks, each[0][0], each[1][0])
  one = jax.jit(recipe).lower(*first).compile()
  _, alone = report.seconds(lambda: one(*first))
  _, together = report.seconds(lambda: many(stacks, *each))
  lines.line('64 recipes', together, 's')
  lines.line('64 recipes, in times of one', together / alone, 'x')
  gap = report.difference(many(stacks, *each)[0], one(*first))
  lines.line('the first recipe alone', gap, at_most=1e-5)
