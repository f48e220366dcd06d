"""by_depth: a line along the blocks."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import merge, scale, tree

DEPTH = r'block_(\d+)/'


def delta(blocks: int = 4) -> dict[str, Any]:
  x = {f'block_{i}': {'w': jnp.asarray([1.0, -2.0])} for i in range(blocks)}
  return x | {'embed': jnp.asarray([4.0]), 'step': None}


def test_by_hand() -> None:
  y = scale.by_depth(delta(), depth=DEPTH, start=0.25, end=1.0)
  found = [y[f'block_{i}']['w'].tolist() for i in range(4)]
  assert found == [[0.25, -0.5], [0.5, -1.0], [0.75, -1.5], [1.0, -2.0]]
  assert y['embed'].tolist() == [1.0]
  assert y['step'] is None


def test_the_line_may_decrease_or_be_constant() -> None:
  y = scale.by_depth(delta(3), depth=DEPTH, start=1.0, end=0.0)
  assert [float(y[f'block_{i}']['w'][0]) for i in range(3)] == [1.0, 0.5, 0.0]
  y = scale.by_depth(delta(), depth=DEPTH, start=1.0, end=1.0)
  assert y['block_2']['w'].tolist() == [1.0, -2.0]


def test_depth_counts_to_the_largest_number_in_order_of_value() -> None:
  x = {f'block_{i}': {'w': jnp.ones(1)} for i in (0, 2, 9, 10)}
  y = scale.by_depth(x, depth=DEPTH, start=0.0, end=1.0)
  found = [float(y[f'block_{i}']['w'][0]) for i in (0, 2, 9, 10)]
  np.testing.assert_allclose(found, [0.0, 0.2, 0.9, 1.0], rtol=1e-15)


def test_stacks_and_single_task_vectors() -> None:
  x = delta()
  stacked = jax.tree.map(lambda v: jnp.stack([v, 3 * v]), x)
  options = {'depth': DEPTH, 'start': 0.2, 'end': 0.7}
  both = scale.by_depth(stacked, **options)
  one = scale.by_depth(x, **options)
  first = jax.tree.map(lambda v: v[0], both)
  jax.tree.map(np.testing.assert_array_equal, first, one)
  # It commutes with a linear merge.
  after = scale.by_depth(merge.sum(stacked), **options)
  before = merge.sum(both)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-15), after, before
  )


def test_traced_ends_and_dtypes() -> None:
  scaled = jax.jit(
    lambda x, a, b: scale.by_depth(x, depth=DEPTH, start=a, end=b)
  )
  for dtype in (jnp.bfloat16, jnp.float32):
    x = jax.tree.map(lambda v, d=dtype: v.astype(d), delta())
    y = scaled(x, 0.25, 1.0)
    assert y['block_1']['w'].dtype == dtype
    assert y['block_1']['w'].tolist() == [0.5, -1.0]


@pytest.mark.parametrize(
  ('names', 'depth', 'message'),
  [
    (['block_0/w'], r'block_\d+', 'expected one group that captures'),
    (['block_0/w'], r'(block)_(\d+)', 'expected one group that captures'),
    (['block_0/w'], r'(block)_\d+', "captured 'block' in 'block_0/w'"),
    (['block_0/w'], DEPTH, 'found 1 block(s)'),
    (['layer_0/w', 'layer_1/w'], DEPTH, "found 0 block(s) in names such as ['"),
  ],
)
def test_a_bad_depth_is_refused(
  names: list[str], depth: str, message: str
) -> None:
  x = {name: jnp.ones(1) for name in names}
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    scale.by_depth(x, depth=depth, start=0.0, end=1.0)
  assert '\n' not in str(error.value)


def test_the_start_of_the_authors_is_a_share_of_l1_norms() -> None:
  stack = {
    f'block_{i}': {'w': jnp.asarray([[1.0, -2.0], [3.0, 2.0]])}
    for i in range(2)
  }
  total = jax.tree.map(lambda x: jnp.sum(x, 0), stack)
  start = tree.norm(total, ord=1) / (2 * tree.norm(total, ord=1))
  assert start == 0.5
  ties = merge.ties(stack, density=1.0)
  # Sums are 4 and 0, disjoint means 2 and 0 or 2: norms 8 and 4 or 8.
  share = tree.norm(total, ord=1) / (2 * tree.norm(ties, ord=1))
  flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(ties)])
  np.testing.assert_allclose(share, 8 / (2 * np.abs(flat).sum()))
