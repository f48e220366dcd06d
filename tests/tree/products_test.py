"""Chunks of a leaf to which a product of small factors is added."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from wsl import adapters, deltas, merge, tree
from wsl.tree._chunks import cut, windows

ROWS, COLUMNS = (
  tree.Matrix(rows=(1,), columns=(0,)),
  tree.Matrix(rows=(0,), columns=(1,)),
)


def draw(seed: int, *shape: int) -> np.ndarray:
  x = np.random.default_rng(seed).standard_normal(shape)
  return x.astype(np.float32)


def stored(x: np.ndarray, read: list[str], name: str = '') -> tree.Stored:
  flat = x.reshape(-1)

  def fetch() -> np.ndarray:
    read.append(name)
    return x

  def read_into(start: int, out: np.ndarray) -> None:
    out[:] = flat[start : start + out.size]

  return tree.Stored(fetch, x.shape, x.dtype, read_into)


def factors(
  shape: tuple[int, int], view: tree.Matrix, t: int, read: Any
) -> Any:
  m, n = (shape[a[0]] for a in (view.columns, view.rows))
  a = stored(draw(t, 3, n), read, 'a')
  return adapters.Factors(
    a, stored(draw(t + 9, m, 3), read, 'b'), 0.5, shape, view
  )


@pytest.mark.parametrize('view', [ROWS, COLUMNS])
@pytest.mark.parametrize('chunk', [1 << 12, 1 << 14, 1 << 20])
def test_chunks_have_the_bits_of_the_whole(
  view: tree.Matrix, chunk: int
) -> None:
  read: list[str] = []
  base = {'w': stored(draw(5, 301, 37), read, 'base')}
  loras = [{'w': factors((301, 37), view, t, read)} for t in range(2)]
  model = deltas.apply(base, merge.sum(adapters.stack(loras)), coef=0.3)
  assert not read
  assert cut.is_cut(windows.Item('w', model['w'], (301, 37)), chunk)
  parts = [x.copy() for _, x in tree.stream(model, chunk_bytes=chunk)]
  # The factors are read once for all chunks, and the base in parts.
  assert sorted(read) == ['a', 'a', 'b', 'b']
  assert len(parts) > 1 or chunk == 1 << 20
  whole = np.asarray(tree.read(model['w']))
  np.testing.assert_array_equal(np.concatenate(parts), whole.reshape(-1))
  wanted = draw(5, 301, 37).astype(np.float64)
  for t in range(2):
    a, b = (x.fetch() for x in (loras[t]['w'].a, loras[t]['w'].b))
    product = 0.15 * b.astype(np.float64) @ a.astype(np.float64)
    wanted += product if view == ROWS else product.T
  np.testing.assert_allclose(whole, wanted, rtol=0, atol=1e-5)


def test_rows_that_are_longer_than_a_chunk_are_whole() -> None:
  read: list[str] = []
  base = {'w': stored(draw(5, 70, 4096), read)}
  lora = {'w': factors((70, 4096), ROWS, 0, read)}
  model = deltas.apply(base, lora)
  assert not cut.is_cut(windows.Item('w', model['w'], (70, 4096)), 1 << 10)
  assert cut.is_cut(windows.Item('w', model['w'], (70, 4096)), 1 << 20)


def _scaled(x: Any, a: Any, b: Any) -> Any:
  return x + jnp.sort(b @ a, axis=0)


def test_a_product_whose_rows_are_mixed_is_whole() -> None:
  read: list[str] = []
  operands = [draw(0, 80, 80), draw(1, 2, 80), draw(2, 80, 2)]
  leaf = tree.Computed(_scaled, tuple(stored(x, read) for x in operands), {})
  assert not cut.is_cut(windows.Item('w', leaf, (80, 80)), 1 << 12)
