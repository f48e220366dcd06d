"""Metadata of the inputs of a merge is kept."""

import numpy as np
import pytest
import safetensors
from safetensors import numpy as published

from wsl import checkpoint, deltas, merge


def _write(file, value, **metadata):
  published.save_file({'w': np.full(3, value, 'f4')}, file, metadata=metadata)
  return file


def _merge(base, *tuned):
  base = checkpoint.load(base, lazy=True)
  models = [checkpoint.load(path, lazy=True) for path in tuned]
  return deltas.apply(base, merge.mean(deltas.stack(base, models)))


def test_a_merge_keeps_keys_without_conflicts(tmp_path):
  base = _write(tmp_path / 'base', 1.0, format='pt', licence='mit', of='base')
  tuned = _write(tmp_path / 'tuned', 2.0, format='pt', of='tuned')
  merged, out = _merge(base, tuned), tmp_path / 'out.safetensors'
  checkpoint.save(out, merged)
  assert checkpoint.metadata(out) == {'format': 'pt', 'licence': 'mit'}
  with safetensors.safe_open(out, 'np') as file:
    assert file.metadata()['format'] == 'pt'
  checkpoint.save(out, merged, metadata={'format': 'np', 'how': 'mean'})
  kept = {'format': 'np', 'how': 'mean', 'licence': 'mit'}
  assert checkpoint.metadata(out) == kept
  again = checkpoint.load(out, lazy=True)
  checkpoint.save(tmp_path / 'again', again)
  assert checkpoint.metadata(tmp_path / 'again') == kept


def test_the_metadata_of_shards_is_kept(tmp_path):
  for i in (1, 2):
    published.save_file(
      {str(i): np.ones(1)},
      tmp_path / f'model-0000{i}-of-00002.safetensors',
      metadata={'format': 'pt'},
    )
  checkpoint.save(
    tmp_path / 'out', checkpoint.load(tmp_path, lazy=True), shard_bytes=8
  )
  assert checkpoint.metadata(tmp_path / 'out') == {'format': 'pt'}


def test_like_gives_the_metadata_for_arrays_in_memory(tmp_path):
  base = _write(tmp_path / 'base.safetensors', 1.0, format='pt')
  params, out = checkpoint.load(base), tmp_path / 'out.safetensors'
  checkpoint.save(out, params)
  assert checkpoint.metadata(out) == {}
  for like in (base, str(base), checkpoint.load(base, lazy=True)):
    checkpoint.save(out, params, like=like)
    assert checkpoint.metadata(out) == {'format': 'pt'}
  with pytest.raises(ValueError, match=r'save\(like=\): no leaf is on demand'):
    checkpoint.save(out, params, like=params)
  with pytest.raises(FileNotFoundError, match='there is no file'):
    checkpoint.save(out, params, like=tmp_path / 'none')


def test_an_own_tree_keeps_its_structure_over_that_of_its_inputs(tmp_path):
  checkpoint.save(
    tmp_path / 'a', {'x': [np.ones(2)]}, metadata={'format': 'np'}
  )
  lazy = checkpoint.load(tmp_path / 'a', lazy=True)
  checkpoint.save(tmp_path / 'b', {'y': (lazy['x'][0],)})
  assert isinstance(checkpoint.load(tmp_path / 'b')['y'], tuple)
  assert checkpoint.metadata(tmp_path / 'b') == {'format': 'np'}
