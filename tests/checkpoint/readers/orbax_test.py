"""Orbax, leaf by leaf: the same tree as at once, one array in memory."""

import shutil

from flax import serialization
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.checkpoint import writers
from wsl import checkpoint, deltas, merge, tree


def _is_lazy(leaf):
  return isinstance(leaf, (tree.Stored, str))


@pytest.mark.parametrize('kind', writers.SINGLE)
def test_every_writer_is_read_leaf_by_leaf(tmp_path, kind):
  writers.SINGLE[kind](tmp_path / 'a', writers.params())
  lazy = checkpoint.load(tmp_path / 'a', lazy=True)
  assert all(map(_is_lazy, jax.tree.leaves(lazy)))
  at_once = checkpoint.load(tmp_path / 'a')
  assert jax.tree.structure(lazy) == jax.tree.structure(at_once)
  for name, leaf in tree.named(lazy).items():
    want = tree.named(at_once)[name]
    assert (leaf.shape, leaf.dtype) == (want.shape, want.dtype)
  writers.assert_equal(tree.read(lazy), at_once)


@pytest.mark.parametrize('kind', writers.RUNS)
def test_every_run_is_read_leaf_by_leaf(tmp_path, kind):
  writers.RUNS[kind](tmp_path)
  for step in (None, 9):
    options = {'step': step, 'item': 'model' if kind == 'with JSON' else None}
    lazy = checkpoint.load(tmp_path, lazy=True, **options)
    assert all(map(_is_lazy, jax.tree.leaves(lazy)))
    writers.assert_equal(tree.read(lazy), checkpoint.load(tmp_path, **options))


@pytest.mark.parametrize('kind', writers.SINGLE)
def test_strings_numbers_and_odd_keys(tmp_path, kind):
  params = {'n': {'steps': 3, 'rate': 0.5}}
  if kind != 'StandardCheckpointer':
    params |= {'tag': 'vit', 'm': {'x': 'é'}}
  params |= {'a.b': {'c': np.ones(2)}, 'empty': {}, 'list': [np.zeros(1)]}
  if kind != 'v1':
    params['none'] = None
  writers.SINGLE[kind](tmp_path / 'a', params)
  lazy = checkpoint.load(tmp_path / 'a', lazy=True)
  at_once = checkpoint.load(tmp_path / 'a')
  assert jax.tree.structure(lazy) == jax.tree.structure(at_once)
  for name, leaf in tree.named(tree.read(lazy)).items():
    np.testing.assert_array_equal(leaf, tree.named(at_once)[name])


@pytest.mark.parametrize('aggregate', [False, True])
def test_a_checkpoint_of_before_2024(tmp_path, aggregate):
  saved = {'w': np.full(2, 3.0), 'n': {'b': np.arange(3, dtype=np.int32)}}
  with ocp.PyTreeCheckpointer(use_ocdbt=False) as checkpointer:
    checkpointer.save(tmp_path / 'a', saved)
  for mark in ('_METADATA', '_CHECKPOINT_METADATA'):
    (tmp_path / 'a' / mark).unlink()
  names = {'w': 'PLACEHOLDER://w', 'n': {'b': 'PLACEHOLDER://n.b'}}
  content = serialization.msgpack_serialize(saved if aggregate else names)
  (tmp_path / 'a' / 'checkpoint').write_bytes(content)
  lazy = checkpoint.load(tmp_path / 'a', lazy=True)
  assert all(map(_is_lazy, jax.tree.leaves(lazy)))
  writers.assert_equal(tree.read(lazy), saved)
  odd = serialization.msgpack_serialize({'w': 'zarr'})
  (tmp_path / 'a' / 'checkpoint').write_bytes(odd)
  with pytest.raises(ValueError, match=r"leaf 'w' of .* is 'zarr', not an"):
    checkpoint.load(tmp_path / 'a', lazy=True)


def test_merges_stream_from_orbax(tmp_path):
  for i in range(3):
    params = {'w': np.full((3, 2), float(i)), 'b': {'x': np.arange(4.0) * i}}
    writers.SINGLE['StandardCheckpointer'](tmp_path / f'{i}', params)
  load = lambda lazy: [
    checkpoint.load(tmp_path / f'{i}', lazy=lazy) for i in range(3)
  ]

  def merged(lazy):
    base, *models = load(lazy)
    return deltas.apply(base, merge.mean(deltas.stack(base, models)))

  checkpoint.save(tmp_path / 'out', merged(lazy=True))
  want = tree.named(jax.device_get(merged(lazy=False)))
  for name, leaf in tree.named(checkpoint.load(tmp_path / 'out')).items():
    np.testing.assert_array_equal(leaf, want[name])


def test_like_and_sharding(tmp_path):
  writers.SINGLE['PyTreeCheckpointer'](tmp_path / 'a', writers.params())
  like = writers.params(0.0)
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  lazy = checkpoint.load(tmp_path / 'a', lazy=True, like=like, sharding=place)
  assert jax.tree.structure(lazy) == jax.tree.structure(like)
  found = tree.read(lazy['dense']['kernel'])
  assert isinstance(found, jax.Array)
  assert found.sharding == place
  np.testing.assert_array_equal(found, np.ones((2, 3)))


def test_values_that_are_not_finite_are_named(tmp_path):
  saved = {'n': {'w': np.asarray([1.0, np.nan])}}
  writers.SINGLE['StandardCheckpointer'](tmp_path / 'a', saved)
  lazy = checkpoint.load(tmp_path / 'a', lazy=True)
  with pytest.raises(ValueError, match=r"leaf 'n/w' of .* is nan at \[1\]"):
    tree.read(lazy)
  lazy = checkpoint.load(tmp_path / 'a', lazy=True, check_finite=False)
  assert np.isnan(tree.read(lazy)['n']['w'][1])


@pytest.mark.parametrize('kind', ['StandardCheckpointer', 'without OCDBT'])
def test_a_damaged_array_is_one_line(tmp_path, kind):
  writers.SINGLE[kind](tmp_path / 'a', {'w': np.arange(1000.0)})
  lazy = checkpoint.load(tmp_path / 'a', lazy=True)
  for folder in ('d', 'ocdbt.process_0', 'w'):
    shutil.rmtree(tmp_path / 'a' / folder, ignore_errors=True)
  with pytest.raises(ValueError, match='cannot be read, take an') as caught:
    tree.read(lazy)
  assert len(str(caught.value).splitlines()) == 1
