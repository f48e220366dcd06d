"""Localize-and-Stitch against its definition in numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.merge import battery
from wsl import merge

NEAR = 1e-12 if np.float64 == battery.FLOAT else 1e-5
RNG = np.random.default_rng(1)


def draw(*shape: int) -> Any:
  return RNG.normal(size=shape).astype(battery.FLOAT)


DELTAS = {'u': draw(3, 4, 5), 'v': draw(3, 7)}
BASE = {name: draw(*x.shape[1:]) for name, x in DELTAS.items()}
GOALS = {name: draw(*x.shape) for name, x in DELTAS.items()}


def kept(density: float, extra: int) -> dict[str, Any]:
  """Returns the masks of the largest entries."""
  flat = np.concatenate([abs(x.reshape(3, -1)) for x in DELTAS.values()], 1)
  count = int(density * flat.shape[1]) + extra
  cut = np.sort(flat, 1)[:, -count]
  shaped = lambda x: cut.reshape(3, *[1] * (x.ndim - 1))
  return {name: abs(x) >= shaped(x) for name, x in DELTAS.items()}


def average(masks: dict[str, Any]) -> dict[str, Any]:
  divide = lambda x, m: (x * m).sum(0) / np.maximum(m.sum(0), 1)
  return {name: divide(x, masks[name]) for name, x in DELTAS.items()}


def same(found: Any, wanted: dict[str, Any]) -> None:
  for name, want in wanted.items():
    np.testing.assert_allclose(found[name], want, rtol=NEAR, atol=NEAR)


@pytest.mark.parametrize(('dialect', 'extra'), [('paper', 0), ('official', -1)])
def test_entries_are_averaged_where_masks_overlap(
  dialect: str, extra: int
) -> None:
  masks = kept(0.4, extra)
  found = merge.localize_and_stitch(DELTAS, density=0.4, dialect=dialect)
  same(found, average(masks))
  same(merge.localize_and_stitch(DELTAS, masks=masks), average(masks))


def loss(params: Any, batch: Any) -> Any:
  return sum(jnp.sum((params[name] - batch[name]) ** 2) for name in batch)


def learned(official: bool, steps: int) -> dict[str, Any]:
  masks = kept(0.4, -1 if official else 0)
  found = {}
  for name, x in DELTAS.items():
    s = np.where(masks[name], 2.0, -2.0)
    for _ in range(steps):
      share = 1 / (1 + np.exp(-s))
      slope = share * (1 - share)
      g = 2 * (BASE[name] + share * x - GOALS[name]) * x * slope
      if official:
        s = s - 0.5 * g + 0.02 * slope * np.where(s > 0, 1, -1)
      else:
        s = s - 0.5 * (g + 0.02 * slope)
    found[name] = s > 0
  return found


@pytest.mark.parametrize('dialect', ['paper', 'official'])
def test_masks_are_learned_by_gradient_descent(dialect: str) -> None:
  call = lambda steps: merge.localize(
    DELTAS,
    base=BASE,
    loss_fn=loss,
    batches=GOALS,
    density=0.4,
    steps=steps,
    rate=0.5,
    penalty=0.02,
    sharpness=2.0,
    dialect=dialect,
  )
  official = dialect == 'official'
  jax.tree.map(np.testing.assert_array_equal, call(8), learned(official, 8))
  changed = jax.tree.map(np.not_equal, call(8), call(0))
  assert np.any(changed['u'])


def test_zero_task_vectors_have_empty_masks() -> None:
  zero = jax.tree.map(np.zeros_like, DELTAS)
  found = merge.localize_and_stitch(zero, density=0.5)
  assert not np.any(found['u'])
