"""Checksums of runs: recorded for each shard, verified before a use."""

import hashlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import checkpoint, tree

P = jax.sharding.PartitionSpec


def _state() -> dict[str, Any]:
  rng = np.random.default_rng(0)
  return {
    'a': {'w': rng.normal(size=(40, 30)).astype('f4')},
    'opt': (np.arange(5), None, jnp.ones(3, jnp.bfloat16)),
    'step': 7,
    'key': jax.random.key(3),
  }


def _recorded(item: pathlib.Path) -> dict[str, Any]:
  found = json.loads((item / '_METADATA').read_text())
  return dict(found['custom_metadata']['wsl.sha256'])


def _flip(item: pathlib.Path) -> None:
  """Flips a bit in the middle of the largest file, which holds values."""
  file = max(item.rglob('d/*'), key=lambda file: file.stat().st_size)
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)


def test_a_flipped_bit_is_found_and_its_leaf_named(
  tmp_path: pathlib.Path,
) -> None:
  state = _state()
  checkpoint.save_run(tmp_path, state, step=1, checksums=True)
  item = tmp_path / '1' / 'default'
  w = state['a']['w']
  whole = [[0, 0], [40, 30], hashlib.sha256(w.tobytes()).hexdigest()]
  assert _recorded(item)['a/w'] == [whole]
  assert _recorded(item).keys() == tree.named(state).keys()
  # The dtypes of `like` are not those of the file.
  like = {**state, 'a': {'w': np.zeros((40, 30), jnp.bfloat16)}}
  good = checkpoint.restore_run(tmp_path, like)
  np.testing.assert_array_equal(good['a']['w'], w.astype(jnp.bfloat16))
  assert good['step'] == 7
  np.testing.assert_array_equal(checkpoint.load(tmp_path)['a']['w'], w)
  _flip(item)
  lazy = checkpoint.load(tmp_path, lazy=True)
  assert tree.read(lazy['step']) == 7
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  for call, caller in (
    (lambda: checkpoint.restore_run(tmp_path, like), 'restore_run'),
    (lambda: checkpoint.load(tmp_path), 'load'),
    (lambda: checkpoint.load(tmp_path, sharding=device), 'load'),
    (lambda: tree.read(lazy['a']['w']), 'load'),
    (lambda: tree.read(lazy['a']['w']), 'load'),  # not verified by an error
  ):
    with pytest.raises(
      ValueError, match=f"^{caller}: leaf 'a/w' of .* have the SHA-256"
    ) as caught:
      call()
    assert '\n' not in str(caught.value)


@pytest.mark.needs_devices(8)
def test_shards_are_verified_when_they_are_read(
  tmp_path: pathlib.Path,
) -> None:
  mesh = jax.sharding.Mesh(np.reshape(jax.devices()[:8], (4, 2)), ('a', 'b'))
  place = jax.sharding.NamedSharding(mesh, P('a'))
  w = np.random.default_rng(0).normal(size=(8, 400)).astype('f4')
  state = {'w': jax.device_put(w, place), 'v': np.ones(2)}
  checkpoint.save_run(tmp_path, state, step=1, checksums=True)
  item = tmp_path / '1' / 'default'
  shards = _recorded(item)['w']
  assert [(start, stop) for start, stop, _ in shards] == [
    ([i, 0], [i + 2, 400]) for i in (0, 2, 4, 6)
  ]
  digest = hashlib.sha256(w[2:4].tobytes()).hexdigest()
  assert shards[1][2] == digest
  found = checkpoint.restore_run(tmp_path, state)['w']
  assert found.sharding == place
  np.testing.assert_array_equal(found, w)
  # A wrong hash is that of one shard: the others can be read.
  file = item / '_METADATA'
  file.write_text(file.read_text().replace(digest, '0' * 64))
  leaf = checkpoint.load(tmp_path, lazy=True)['w']
  region = leaf.fetch.parts.region
  columns = slice(100, 300)
  np.testing.assert_array_equal(region((slice(4, 8), columns)), w[4:, columns])
  for rows in (slice(0, 3), slice(3, 4), slice(None)):
    with pytest.raises(ValueError, match=r"leaf 'w' of .* the SHA-256"):
      region((rows, columns))
  for like in (state, {**state, 'w': w}):
    with pytest.raises(ValueError, match=r"^restore_run: leaf 'w' of .*SHA"):
      checkpoint.restore_run(tmp_path, like)


@pytest.mark.parametrize('record', [3, {'w': 3}, {'w': [[0]]}])
def test_malformed_hashes(tmp_path: pathlib.Path, record: Any) -> None:
  file = tmp_path / '_METADATA'
  file.write_text(json.dumps({'custom_metadata': {'wsl.sha256': record}}))
  with pytest.raises(ValueError, match=r"hashes 'wsl\.sha256' are malformed"):
    checkpoint.load(tmp_path)
