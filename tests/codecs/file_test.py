"""Packs in files."""

import base64
import json
import os
import pathlib
from typing import Any
import zlib

import jax
import numpy as np
import pytest

from wsl import checkpoint, codecs, deltas, merge, tree


def draw(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def packs() -> dict[str, codecs.Packed]:
  delta = {
    'a': [draw(40, 9), None],
    'b/c': (draw(5), draw(3).astype(np.float64)),
  }
  view = tree.Matrix(rows=(1,), columns=(0,))
  lora = {'q': deltas.Factors(draw(2, 8), draw(9, 2), 0.5, (9, 8), view)}
  stack = {'w': draw(3, 6, 4)}
  return {
    'compeft': codecs.compeft(delta, density=0.2),
    'lora': codecs.compeft(lora, density=0.5),
    'bitstack': codecs.bitstack({'w': draw(24, 18)}, blocks=4, rank=2),
    'skillpack': codecs.skillpack({'w': draw(24, 18), 'b': draw(3)}, rank=6),
    'tall_masks': codecs.masks(merge.tall_masks(stack, threshold=0.4)),
    'emr': codecs.masks(merge.emr(stack)),
  }


KINDS = ('compeft', 'lora', 'bitstack', 'skillpack', 'tall_masks', 'emr')


@pytest.fixture(scope='module')
def made() -> dict[str, codecs.Packed]:
  return packs()


@pytest.mark.parametrize('lazy', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_a_pack_is_restored(
  kind: str,
  lazy: bool,
  made: dict[str, codecs.Packed],
  tmp_path: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  from wsl.codecs import _layout

  if lazy:  # small arrays have tensors of their own
    monkeypatch.setattr(_layout, '_OWN_TENSOR', 1)
  packed, file = made[kind], tmp_path / 'a.safetensors'
  codecs.save(file, packed, checksums=lazy)
  found = codecs.load(file, lazy=lazy)
  assert found.codec == packed.codec
  assert tree.on_demand(found) == lazy
  assert jax.tree.structure(found) == jax.tree.structure(packed)
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(packed)):
    np.testing.assert_array_equal(tree.read(x), y)
  decoded = [tree.read(codecs.decode(p)) for p in (found, packed)]
  for x, y in zip(*map(jax.tree.leaves, decoded)):
    np.testing.assert_array_equal(x, y)
  if not lazy:
    size = codecs.size(found)
    assert size == codecs.size(packed)
    assert size.bits == 8 * os.path.getsize(file)
    rows = size.leaves.values()
    assert size.header == sum(row.header for row in rows)
    assert size.bits == size.header + sum(row.bits for row in rows)


def test_a_lazy_pack_streams_into_a_checkpoint(tmp_path: pathlib.Path) -> None:
  delta, base = {'w': draw(700, 500)}, {'w': draw(700, 500, seed=1)}
  packed = codecs.compeft(delta, density=0.2)
  file = tmp_path / 'a.safetensors'
  codecs.save(file, packed)
  assert os.path.getsize(file) * 8 / 350_000 < 0.96
  decoded = codecs.decode(codecs.load(file, lazy=True))
  checkpoint.save(tmp_path / 'm.safetensors', deltas.apply(base, decoded))
  wanted = base['w'] + tree.read(codecs.decode(packed))['w']
  found = checkpoint.load(tmp_path / 'm.safetensors')['w']
  np.testing.assert_array_equal(found, wanted)


def test_lazy_families_are_written_leaf_by_leaf(tmp_path: pathlib.Path) -> None:
  stack = {'w': draw(2, 300, 300)}
  eager = codecs.masks(merge.tall_masks(stack, threshold=0.4))
  lazy = codecs.masks(merge.tall_masks(tree.defer(stack), threshold=0.4))
  for name, packed in {'a': eager, 'b': lazy}.items():
    codecs.save(tmp_path / f'{name}.safetensors', packed)
  one, other = ((tmp_path / f'{n}.safetensors').read_bytes() for n in 'ab')
  assert one == other


def rewrite(file: pathlib.Path, **notes: str) -> None:
  tensors = checkpoint.load(file)
  checkpoint.save(file, tensors, metadata=checkpoint.metadata(file) | notes)


def test_foreign_and_damaged_files(
  made: dict[str, codecs.Packed], tmp_path: pathlib.Path
) -> None:
  file = tmp_path / 'a.safetensors'
  with pytest.raises(FileNotFoundError):
    codecs.load(file)
  checkpoint.save(file, {'w': np.ones(2)})
  with pytest.raises(ValueError, match=r'is no pack of wsl\.codecs: check'):
    codecs.load(file)
  codecs.save(file, made['compeft'])
  whole = file.read_bytes()
  for end in (len(whole) - 1, len(whole) // 2, 100, 4):
    file.write_bytes(whole[:end])
    with pytest.raises(ValueError, match=r'a\.safetensors') as error:
      codecs.load(file)
    assert '\n' not in str(error.value)
  file.write_bytes(whole)
  rewrite(file, **{'wsl.codecs': 'compeft 2'})
  with pytest.raises(ValueError, match=r'is of version 2 .* reads 1: update'):
    codecs.load(file)
  text = checkpoint.metadata(file)['wsl.codecs.tree']
  good: Any = json.loads(zlib.decompress(base64.b85decode(text)))
  for bad in (
    good,  # truncated
    [],
    {**good, 'leaves': good['leaves'][1:]},
    {**good, 'leaves': [{'other': {}}, *good['leaves'][1:]]},
    {**good, 'leaves': [['float32', [1]], *good['leaves'][1:]]},
  ):
    record = zlib.compress(json.dumps(bad).encode())
    text = base64.b85encode(record[: -1 if bad is good else None]).decode()
    rewrite(file, **{'wsl.codecs': 'compeft 1', 'wsl.codecs.tree': text})
    with pytest.raises(ValueError, match='damaged, copy it again') as error:
      codecs.load(file)
    assert len(str(error.value)) < 300
    assert '\n' not in str(error.value)


def test_headers_of_loras_are_a_few_percent() -> None:
  view = tree.Matrix(rows=(1,), columns=(0,))
  lora = {
    f'model.layers.{i}.self_attn.{name}.weight': deltas.Factors(
      draw(16, 512, seed=i), draw(512, 16, seed=i), 2.0, (512, 512), view
    )
    for i in range(8)
    for name in ('q_proj', 'v_proj')
  }
  size = codecs.size(codecs.compeft(lora, density=0.1))
  assert size.header < 0.12 * size.bits


def test_nothing_is_written_for_what_is_no_pack(tmp_path: pathlib.Path) -> None:
  file = tmp_path / 'a.safetensors'
  with pytest.raises(ValueError, match=r'save: got a dict, expected a cod'):
    codecs.save(file, {'w': np.ones(2)})  # type: ignore[arg-type]
  for function in (codecs.size, codecs.decode, codecs.block_order):
    with pytest.raises(ValueError, match=r': got a dict, expected a cod'):
      function({'w': np.ones(2)})  # type: ignore[arg-type]
  packed = codecs.compeft({'w': draw(4)}, density=0.5)
  with pytest.raises(ValueError, match=r"has to end with '\.safetensors'"):
    codecs.save(tmp_path / 'folder', packed)
  assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize('kind', packs())
def test_leaves_are_decoded_when_they_are_read(
  kind: str, made: dict[str, codecs.Packed]
) -> None:
  packed = made[kind].leaves
  nodes = jax.tree.leaves(packed, is_leaf=lambda x: hasattr(x, 'shape'))
  found = codecs.decode(made[kind])
  decoded = found.masks if kind in ('tall_masks', 'emr') else found
  on_demand = [tree.on_demand(x) for x in jax.tree.leaves(decoded)]
  assert any(on_demand)
  # Only what is stored as it is can be in memory.
  plain = sum(isinstance(x, np.ndarray) for x in nodes)
  assert len(on_demand) - sum(on_demand) <= plain
