"""BitStack: signs and magnitudes of low rank, prefixes, budgets."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import codecs, tree, types


def draw(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def oracle(x: np.ndarray, blocks: int, rank: int) -> list[np.ndarray]:
  """The paper, in float64: the sums of the first 1, 2, ... blocks."""
  scale = 2.0 ** np.frexp(np.max(np.abs(x)))[1]  # of the largest entry
  half = lambda y: y.astype(np.float16).astype(np.float64)
  total, sums = np.zeros(x.shape), []
  for _ in range(blocks):
    rest = x / scale - total
    u, s, vt = np.linalg.svd(np.abs(rest))
    root = np.sqrt(s[:rank])
    near = half(u[:, :rank] * root) @ half(root[:, None] * vt[:rank])
    total = total + np.where(rest >= 0, near, -near)
    sums.append(scale * total)
  return sums


def first(packed: codecs.Packed, name: str, blocks: int) -> np.ndarray:
  """Decodes the first blocks of a leaf."""
  order = [(name, i) for i in range(blocks)]
  part = codecs.truncate(packed, nbytes=10**9, order=order)
  return np.asarray(tree.read(codecs.decode(part))[name])


@pytest.fixture(scope='module')
def packed() -> codecs.Packed:
  delta = {'w': draw(24, 18), 'v': draw(24, 18, seed=1) * 5, 'b': draw(18)}
  return codecs.bitstack(delta, blocks=4, rank=2)


def test_prefixes_are_those_of_the_paper() -> None:
  x = draw(24, 18).astype(np.float64)
  packed = codecs.bitstack({'w': x}, blocks=3, rank=2)
  for i, wanted in enumerate(oracle(x, 3, 2)):
    found = first(packed, 'w', i + 1)
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    norm = packed.leaves['w'].norms[i + 1]
    np.testing.assert_allclose(norm, np.linalg.norm(x - wanted), rtol=1e-6)


def test_errors_decrease_with_each_block(packed: codecs.Packed) -> None:
  for leaf in (packed.leaves['w'], packed.leaves['v']):
    assert np.all(np.diff(leaf.norms) < 0)
  np.testing.assert_array_equal(tree.read(codecs.decode(packed))['b'], draw(18))


def test_signs_are_worth_more_than_singular_values(
  packed: codecs.Packed,
) -> None:
  # The signs of a block take the bytes of m n / (16 (m + n)) of them.
  s = np.linalg.svd(draw(24, 18), compute_uv=False)
  plain = np.sqrt(np.sum(s[2 + 24 * 18 // (16 * 42) :] ** 2))
  assert packed.leaves['w'].norms[1] < 0.8 * plain


def test_small_leaves_of_few_bits() -> None:
  x: Any = (draw(24, 18) * 1e-6).astype(jnp.bfloat16)
  packed = codecs.bitstack({'w': x}, blocks=4, rank=2)
  found = tree.read(codecs.decode(packed))['w']
  assert found.dtype == x.dtype
  wide = x.astype(np.float64)
  error = np.linalg.norm(np.asarray(found, np.float64) - wide)
  wanted = np.linalg.norm(oracle(wide, 3, 2)[-1] - wide)
  np.testing.assert_allclose(error, wanted, rtol=0.02)
  zero = codecs.bitstack({'w': 0 * x}, blocks=4, rank=2)
  assert not np.any(tree.read(codecs.decode(zero))['w'])


def test_convolutions_and_stacks_of_layers() -> None:
  x = draw(3, 24, 18)
  scanned = {'w': tree.Matrix(batch=(0,), rows=(1,), columns=(2,))}
  packed = codecs.bitstack({'w': x}, blocks=6, rank=2, matrices=scanned)
  found = tree.read(codecs.decode(packed))['w']
  for one, layer in zip(np.asarray(found), x):
    wanted = oracle(layer.astype(np.float64), 6, 2)[-1]
    assert np.linalg.norm(one - layer) < 0.1 * np.linalg.norm(layer)
    assert np.linalg.norm(one - wanted) < 0.02 * np.linalg.norm(layer)


def test_blocks_are_never_larger_than_the_matrix() -> None:
  delta = {'low': draw(2, 2), 'flat': draw(1, 400)}
  packed = codecs.bitstack(delta, blocks=99, rank=2)
  assert packed.leaves['flat'].blocks == 1  # of 852 bytes, in 1600
  assert packed.leaves['low'] is delta['low']
  for name, row in codecs.size(packed).leaves.items():
    assert row.bits <= 8 * delta[name].nbytes + 400


def test_grams_weigh_the_rows() -> None:
  x, size = draw(24, 18), np.logspace(-1, 1, 24)
  gram = types.Gram(jnp.asarray(np.diag(size**2), jnp.float32)[None])
  weighted = codecs.bitstack({'w': x}, blocks=4, rank=2, grams={'w': gram})
  plain = codecs.bitstack({'w': x}, blocks=4, rank=2)
  error = lambda packed: np.linalg.norm(
    size[:, None] * (np.asarray(tree.read(codecs.decode(packed))['w']) - x)
  )
  assert error(weighted) < 0.8 * error(plain)
  np.testing.assert_allclose(
    weighted.leaves['w'].norms[-1], error(weighted) / size.mean(), rtol=1e-3
  )


def test_order_by_error_and_by_losses(packed: codecs.Packed) -> None:
  order = codecs.block_order(packed)
  for name in ('v', 'w'):
    assert [i for n, i in order if n == name] == [0, 1, 2, 3]
  assert order[0] == ('v', 0)  # five times as large
  assert order.index(('v', 3)) < order.index(('w', 3))
  losses = {'w': [0.1, 0.5, 0.2, 0.2], 'v': [0.2, 0.4, np.nan, 0.1]}
  wanted = ['w', 'v', 'v', 'w', 'w', 'v', 'v', 'w']
  found = codecs.block_order(packed, losses=losses)
  assert found == [(n, i // 2) for i, n in enumerate(wanted)]


def test_budgets_are_kept_and_errors_decrease(
  packed: codecs.Packed, tmp_path: pathlib.Path
) -> None:
  delta = {'w': draw(24, 18), 'v': draw(24, 18, seed=1) * 5}
  errors = []
  least = codecs.size(codecs.truncate(packed, nbytes=10**9, order=[])).bits // 8
  for nbytes in range(least + 20, least + 2600, 430):
    part = codecs.truncate(packed, nbytes=nbytes)
    file = tmp_path / f'{nbytes}.safetensors'
    codecs.save(file, part)
    assert nbytes - 500 < file.stat().st_size <= nbytes
    found = tree.read(codecs.decode(codecs.load(file)))
    errors.append(sum(np.sum((found[n] - delta[n]) ** 2) for n in delta))
  assert np.all(np.diff(errors) < 0)
  with pytest.raises(ValueError, match='bytes are needed without any block'):
    codecs.truncate(packed, nbytes=100)


def test_prefixes_of_a_file_read_the_first_blocks(
  packed: codecs.Packed,
  tmp_path: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  from wsl.codecs import _layout

  monkeypatch.setattr(_layout, '_OWN_TENSOR', 1)
  file = tmp_path / 'a.safetensors'
  codecs.save(file, packed)
  lazy = codecs.load(file, lazy=True)
  found = first(lazy, 'w', 2)
  np.testing.assert_array_equal(found, first(packed, 'w', 2))
  part = codecs.truncate(lazy, nbytes=10**9, order=[('w', 0)])
  assert isinstance(part.leaves['w'].signs, tree.Stored)
  assert part.leaves['w'].signs.shape == (1, 1, 54)


def test_sizes_are_those_of_the_paper(packed: codecs.Packed) -> None:
  m, n, k, size = 24, 18, 2, codecs.size(packed)
  block = m * n // 8 + 2 * k * (m + n)
  assert size.leaves['w'].bits == 8 * (4 * block + 4 * 5 + 4)
  assert size.leaves['w'].bound <= size.leaves['w'].bits
  assert size.leaves['b'].bits == 32 * 18


def test_blocks_are_decoded_in_a_trace(packed: codecs.Packed) -> None:
  found = jax.jit(codecs.decode)(packed)
  np.testing.assert_array_equal(found['w'], first(packed, 'w', 4))


def test_integers_are_stored_as_they_are() -> None:
  x = np.arange(32 * 64, dtype=np.int32).reshape(32, 64)
  for packed in (codecs.bitstack({'n': x}), codecs.skillpack({'n': x}, rank=1)):
    assert packed.leaves['n'] is x


def test_bad_arguments(packed: codecs.Packed) -> None:
  for change in ({'blocks': 0}, {'rank': 1.5}):
    with pytest.raises(ValueError, match=r'expected an integer'):
      codecs.bitstack({'w': draw(3, 3)}, **change)  # type: ignore[arg-type]
  with pytest.raises(ValueError, match=r'otherwise=.* expected .refuse. or'):
    codecs.bitstack({'w': draw(3, 3)}, otherwise='skip')
  with pytest.raises(ValueError, match=r"bitstack: leaf 'w' of shape"):
    codecs.bitstack({'w': draw(3, 3, 3)})
  gram = types.Gram(jnp.eye(4)[None])
  with pytest.raises(ValueError, match=r"on axes \(0,\) does not fit leaf 'w'"):
    codecs.bitstack({'w': draw(3, 3)}, grams={'w': gram})
  bad = types.Gram(jnp.full((1, 3, 3), np.nan))
  with pytest.raises(ValueError, match=r"matrix of leaf 'w' is not finite"):
    codecs.bitstack({'w': draw(3, 3)}, grams={'w': bad})
  with pytest.raises(ValueError, match=r"a leaf 'q' that the task vector does"):
    codecs.bitstack({'w': draw(3, 3)}, grams={'q': gram})
  with pytest.raises(ValueError, match=r"block 1 of 'w' out of turn"):
    codecs.truncate(packed, nbytes=10**6, order=[('w', 1)])
  with pytest.raises(ValueError, match=r'of leaf .* have shape \(0,\)'):
    codecs.block_order(packed, losses={})
  with pytest.raises(ValueError, match='no leaf has blocks'):
    codecs.block_order(codecs.compeft({'w': draw(9)}, density=0.5))
