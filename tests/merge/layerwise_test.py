"""Layer-wise merges: equal to the method where all layers are alike."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.merge import battery
from wsl import merge, tree

DEPTH = r'block_(\d+)/'
T = battery.T


def ties(part: Any, phi: Any) -> Any:
  density, weights = phi['density'], phi['weights']
  return merge.ties(part, density=density, weights=weights, scope='leaf')


def test_equal_parameters_give_the_method() -> None:
  x, weights = battery.stacked(T), np.asarray([0.5, 1.0, 0.2, 0.3])
  wanted = merge.ties(x, density=0.5, weights=weights, scope='leaf')
  for granularity, groups in ((1, 2), (2, 1), (7, 1)):
    rows = np.broadcast_to(weights, (groups, T))
    phi = {'density': np.full(groups, 0.5), 'weights': rows}
    found = merge.layerwise(
      x, method=ties, parameters=phi, depth=DEPTH, granularity=granularity
    )
    battery.same(found, wanted)
  # One group of all layers is the whole model: its thresholds are global.
  found = merge.layerwise(
    x,
    method=lambda part, density: merge.ties(part, density=density),
    parameters=np.asarray([0.5]),
    depth=DEPTH,
    granularity=2,
  )
  battery.same(found, merge.ties(x, density=0.5))


def test_each_layer_has_its_weights() -> None:
  rows = np.random.default_rng(0).normal(size=(2, T))
  x = battery.stacked(T) | {'head': jnp.ones((T, 3))}

  def call(rows: Any) -> Any:
    method = lambda part, w: merge.sum(part, weights=w)
    return merge.layerwise(x, method=method, parameters=rows, depth=DEPTH)

  found = jax.jit(call)(rows)
  for name, v in tree.named(x).items():
    row = rows[1] if 'block_1' in name else rows[0]
    wanted = np.tensordot(row, np.asarray(v, np.float64), 1)
    np.testing.assert_allclose(
      tree.named(found)[name], wanted, atol=1e-12 if v.dtype == float else 1e-5
    )


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'granularity': 0}, 'layerwise(granularity=0): expected an integer >= 1'),
    ({'depth': r'layer_(\d+)'}, "found no layer in names such as ['block_0/w'"),
    (
      {'parameters': np.ones((3, T))},
      'parameters has shape (3, 4): give [2,',
    ),
    ({'method': lambda x, w: x}, 'layerwise: method returned no merge (4, 8)'),
  ],
)
def test_bad_input_is_named(change: Any, message: str) -> None:
  given = {
    'method': lambda x, w: merge.sum(x, weights=w),
    'parameters': np.ones((2, T)),
    'depth': DEPTH,
  }
  with pytest.raises(ValueError, match=re.escape(message)):
    merge.layerwise(battery.stacked(T), **given | change)
