"""Keys of dicts: numbers, tuples, dots, order, and a reserved name."""

import collections
import dataclasses

from flax import nnx
from flax.core import frozen_dict
import jax
import numpy as np
import pytest
from safetensors import numpy as published

from wsl import checkpoint, deltas, merge


def _assert_equal(got, want):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  jax.tree.map(np.testing.assert_array_equal, got, want)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class _Node:
  w: np.ndarray
  parts: dict


_TREES = {
  'integers': {'layers': {i: {'w': np.full(2, i)} for i in range(12)}},
  'negative': {-1: np.ones(1), 0: np.zeros(1)},
  'tuples': {
    ('a', 1): np.ones(1),
    ('a', 10): np.zeros(2),
    ('b', 0): np.ones(3),
  },
  'nested tuples': {('a', ('b', 2)): np.ones(1)},
  'floats': {0.5: np.ones(1), 1.5: np.zeros(1)},
  'bools': {False: np.ones(1), True: np.zeros(1)},
  'dots': {'a.b': np.ones(1), 'a': {'b.c': np.zeros(1), 'd': np.ones(2)}},
  'slashes': {'a/b': {'c': np.ones(1)}, 'd': {'e/f': np.zeros(1)}},
  'digits': {'3': np.ones(1), '10': np.zeros(1)},
  'odd': {'': np.ones(1), ' ': np.ones(2), 'ü': np.ones(3), '"': np.ones(4)},
  'nothing': {0: None, 1: {}, 2: [np.ones(1), (), []]},
}


@pytest.mark.parametrize('lazy', [False, True])
@pytest.mark.parametrize('kind', _TREES)
def test_dicts_are_exact(tmp_path, kind, lazy):
  saved = _TREES[kind]
  for shards in (None, 16):
    checkpoint.save(tmp_path / f'{shards}', saved, shard_bytes=shards)
    loaded = checkpoint.load(tmp_path / f'{shards}', lazy=lazy)
    jax.tree.map(
      lambda x, y: np.testing.assert_array_equal(x.shape, y.shape),
      loaded,
      saved,
    )
    _assert_equal(checkpoint.load(tmp_path / f'{shards}', like=saved), saved)
    _assert_equal(checkpoint.load(tmp_path / f'{shards}'), saved)


@pytest.mark.parametrize(
  'saved',
  [
    frozen_dict.freeze({'a': {1: np.ones(1)}}),
    collections.OrderedDict(b=np.ones(1), a=np.zeros(1)),
    collections.defaultdict(dict, {3: np.ones(1)}),
    _Node(np.ones(1), {10: np.zeros(1), 2: np.ones(2)}),
    nnx.state(nnx.List([nnx.Linear(2, 2, rngs=nnx.Rngs(0))]), nnx.Param),
    {frozenset({1}): np.ones(1)},
    {b'bytes': np.ones(1)},
  ],
  ids=lambda saved: type(saved).__name__,
)
def test_other_containers_and_keys_are_exact_with_like(tmp_path, saved):
  checkpoint.save(tmp_path, saved)
  _assert_equal(checkpoint.load(tmp_path, like=saved), saved)
  loaded = checkpoint.load(tmp_path)
  assert type(loaded) is dict
  assert len(jax.tree.leaves(loaded)) == len(jax.tree.leaves(saved))


def test_the_layers_of_nnx_can_be_merged_after_a_round_trip(tmp_path):
  pure = lambda seed: nnx.to_pure_dict(
    nnx.state(
      nnx.List([nnx.Linear(2, 2, rngs=nnx.Rngs(seed)) for _ in range(11)]),
      nnx.Param,
    )
  )
  base, tuned = pure(0), pure(1)
  checkpoint.save(tmp_path, tuned)
  merged = merge.mean(deltas.stack(base, [checkpoint.load(tmp_path)]))
  kernel = merged[10]['kernel']
  want = tuned[10]['kernel'] - base[10]['kernel']
  np.testing.assert_array_equal(kernel, want)


def test_layers_are_in_numeric_order(tmp_path):
  names = [f'layers_{i}.w' for i in range(12)] + ['z', 'layers.x']
  file = tmp_path / 'a.safetensors'
  published.save_file({name: np.ones(1) for name in names}, file)
  loaded = checkpoint.load(file)
  assert list(loaded) == ['layers.x', *names[:12], 'z']


def test_like_may_nest_dotted_names(tmp_path):
  file = tmp_path / 'a.safetensors'
  flat = {f'layers.{i}.w': np.full(2, i) for i in range(11)} | {'b': np.ones(1)}
  published.save_file(flat, file)
  like = {'layers': [{'w': np.zeros(2)}] * 11, 'b': np.zeros(1)}
  loaded = checkpoint.load(file, like=like)
  assert [int(layer['w'][0]) for layer in loaded['layers']] == list(range(11))
  published.save_file({'layers.0.w.value': np.ones(2)}, file)
  loaded = checkpoint.load(file, like={'layers': ({'w': np.zeros(2)},)})
  assert loaded['layers'][0]['w'].tolist() == [1.0, 1.0]
  published.save_file({'a.b': np.ones(1), 'a/b': np.ones(1)}, file)
  with pytest.raises(ValueError, match=r"has a leaf 'a\.b' that like="):
    checkpoint.load(file, like={'a': {'b': np.ones(1)}})


def test_the_reserved_name_is_refused(tmp_path):
  for params in (
    {'__metadata__': np.ones(1)},
    {'a': np.ones(1), '__metadata__': 2},
  ):
    with pytest.raises(ValueError, match=r"named '__metadata__'.*rename it"):
      checkpoint.save(tmp_path / 'a.safetensors', params)
  assert not any(tmp_path.iterdir())
  checkpoint.save(
    tmp_path / 'a.safetensors', {'a': {'__metadata__': np.ones(1)}}
  )
  assert 'a' in checkpoint.load(tmp_path / 'a.safetensors')
