"""Of a sharded leaf the parts are read that devices hold, each once."""

import math
from typing import Any

import jax
import numpy as np
import pytest

from wsl import checkpoint, mesh
from wsl.checkpoint._read import file_bytes, regions

W = np.arange(16 * 6, dtype=np.float32).reshape(16, 6)


@pytest.mark.parametrize(
  ('gap', 'local', 'reads'),
  [
    # Rows are one read; two devices of one region share it.
    (0, [(slice(4, 8), slice(None))] * 2, [(24, 24)]),
    # Columns: a read for each row, or one that drops short gaps.
    (0, [(slice(4, 7), slice(1, 3))], [(25, 2), (31, 2), (37, 2)]),
    (16, [(slice(4, 7), slice(1, 3))], [(25, 14)]),
    (12, [(slice(4, 7), slice(1, 3))], [(25, 2), (31, 2), (37, 2)]),
    # Adjacent columns of several devices are read together.
    (12, [(slice(None), slice(i, i + 2)) for i in (0, 2, 4)], [(0, 96)]),
    (12, [(slice(0, 8), slice(i, i + 2)) for i in (4, 2)], [(2, 46)]),
    (4, [(slice(1, 7), slice(1, 6))], [(7, 23), (31, 11)]),
    # Blocks of 32 entries bound the memory.
    (8, [(slice(None), slice(0, 5))], [(0, 35), (36, 29), (66, 29)]),
  ],
)
def test_bytes_that_are_read(
  gap: int, local: Any, reads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(regions, '_GAP', gap)
  if len(local) == 1 and local[0][1] == slice(0, 5):
    monkeypatch.setattr(regions, '_BLOCK', 128)
  seen = []

  def read_into(start: int, out: np.ndarray) -> None:
    seen.append((start, out.size))
    out[:] = W.reshape(-1)[start : start + out.size]

  # Parts of four rows of columns are listed at once.
  monkeypatch.setattr(regions, '_LISTED', 4 if gap == 4 else 1 << 18)
  region = regions.reader(read_into, W.shape, W.dtype, local)
  for index in (*local, *local):
    np.testing.assert_array_equal(region(index), W[index])
  assert seen == reads


def test_runs_of_regions_of_every_rank() -> None:
  """The runs of a region, of random slices, are its entries in C order."""
  rng = np.random.default_rng(0)
  for rank in range(5):
    shape = tuple(rng.integers(1, 5, rank).tolist())
    x = np.arange(math.prod(shape)).reshape(shape)
    for _ in range(20):
      ends = [sorted(rng.integers(0, n + 1, 2)) for n in shape]
      index = tuple(slice(int(a), int(b)) for a, b in ends)
      starts, length = regions.runs(shape, index)
      found = (starts[:, None] + np.arange(length)).reshape(-1)
      np.testing.assert_array_equal(found, x[index].reshape(-1))


@pytest.mark.parametrize('spec', [('a',), (None, 'b'), ('a', 'b'), (), None])
@pytest.mark.needs_devices(8)
def test_a_leaf_is_read_once(
  spec: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
  m, taken = mesh.make('a:4,b:2'), []
  checkpoint.save(tmp_path, {'w': W, 'n': np.float32(1), 'e': W[:0]})
  read_into = file_bytes.FileBytes.read_into

  def count(self: Any, out: np.ndarray, *args: Any, **kwargs: Any) -> None:
    taken.append(out.nbytes)
    read_into(self, out, *args, **kwargs)

  params = checkpoint.load(tmp_path, lazy=True)
  rules = None if spec is None else [('w', jax.P(*spec)), ('', jax.P())]
  where = mesh.shardings(params, rules, m)
  monkeypatch.setattr(file_bytes.FileBytes, 'read_into', count)
  found = checkpoint.load(tmp_path, sharding=where)
  assert sum(taken) == W.nbytes + 4
  assert found['w'].sharding == where['w']
  np.testing.assert_array_equal(found['w'], W)
  assert found['n'] == 1
  assert found['e'].shape == (0, 6)
