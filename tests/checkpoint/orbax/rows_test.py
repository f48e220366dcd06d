"""A sharded leaf is read by rows: each range of bytes once."""

from typing import Any

import jax
import numpy as np
import pytest

from wsl import checkpoint, mesh
from wsl.checkpoint._read import file_bytes, rows

W = np.arange(16 * 6, dtype=np.float32).reshape(16, 6)


@pytest.mark.parametrize(
  ('index', 'reads'),
  [
    ((slice(4, 8), slice(None)), [(24, 24)]),
    ((slice(4, 8), slice(1, 3)), [(24, 24)]),
    ((slice(None), slice(3, 6)), [(0, 96)]),
  ],
)
def test_rows_of_an_index(index: Any, reads: Any) -> None:
  seen = []

  def read_into(start: int, out: np.ndarray) -> None:
    seen.append((start, out.size))
    out[:] = W.reshape(-1)[start : start + out.size]

  region = rows.reader(read_into, W.shape, W.dtype)
  for _ in range(2):
    np.testing.assert_array_equal(region(index), W[index])
  assert seen == reads


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
