"""ComPEFT: the ternary task vector, its codes, its size."""

import dataclasses
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest

from wsl import adapters, codecs, deltas, merge, tree

CHUNK = 1 << 18  # entries that are coded together


def draw(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
  return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def model(dtype: Any = np.float32) -> dict[str, Any]:
  return {
    'a': draw(7, 9, dtype=dtype),
    'b': [draw(5, seed=1, dtype=dtype) * np.asarray(3, dtype), None],
  }


def oracle(leaves: list[np.ndarray], density: float, scale: float) -> Any:
  """The paper: sigma of all entries, one threshold, signs."""
  flat = np.concatenate([x.reshape(-1) for x in leaves]).astype(np.float64)
  threshold = np.sort(np.abs(flat))[-int(density * len(flat))]
  size = scale * np.std(flat, ddof=1)
  return [
    np.where(np.abs(x) >= threshold, size * np.sign(x), 0) for x in leaves
  ]


@pytest.mark.parametrize('dtype', [np.float32, np.float64, ml_dtypes.bfloat16])
def test_it_is_the_formula_of_the_paper(dtype: Any) -> None:
  delta = model(dtype)
  packed = codecs.compeft(delta, density=0.3, scale=1.5)
  found = tree.read(codecs.decode(packed))
  assert jax.tree.structure(found) == jax.tree.structure(delta)
  wanted = oracle(jax.tree.leaves(delta), 0.3, 1.5)
  for x, y in zip(jax.tree.leaves(found), wanted):
    assert x.dtype == dtype
    tight = {2: 1e-2, 4: 1e-6, 8: 1e-12}[x.dtype.itemsize]
    np.testing.assert_allclose(x.astype(np.float64), y, rtol=tight)


@pytest.mark.parametrize('size', [1e-30, 1e30])
def test_squares_beyond_the_range_of_float32(size: float) -> None:
  delta = {'w': draw(9) * np.float32(size)}
  packed = codecs.compeft(delta, density=0.5)
  (wanted,) = oracle([delta['w']], 0.5, 1.0)
  found = tree.read(codecs.decode(packed))['w']
  np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_scope_leaf_ranks_and_scales_in_each_leaf() -> None:
  delta = model()
  packed = codecs.compeft(delta, density=0.4, scope='leaf')
  found = jax.tree.leaves(tree.read(codecs.decode(packed)))
  for x, y in zip(found, jax.tree.leaves(delta)):
    np.testing.assert_allclose(x, oracle([y], 0.4, 1.0)[0], rtol=1e-6)


def test_the_mean_scale_has_the_least_error() -> None:
  delta = {'w': draw(400)}
  decoded = tree.read(
    codecs.decode(codecs.compeft(delta, density=0.2, scale='mean'))
  )['w']
  error = lambda c: float(np.sum((delta['w'] - c * decoded) ** 2))
  assert error(1.0) < min(error(0.98), error(1.02))


def test_it_is_equivariant_to_scale_and_permutation() -> None:
  x = draw(300)
  order = np.random.default_rng(1).permutation(300)
  read = lambda y: tree.read(
    codecs.decode(codecs.compeft({'w': y}, density=0.1))
  )
  found = read(x)['w']
  np.testing.assert_allclose(read(4 * x)['w'], 4 * found, rtol=1e-6)
  np.testing.assert_array_equal(read(x[order])['w'], found[order])
  assert np.all(found * x >= 0)


@pytest.mark.parametrize('density', [0.0005, 0.05, 0.25, 0.5, 0.9, 1.0])
def test_codes_are_exact_and_near_the_entropy(density: float) -> None:
  n = CHUNK + 12345  # two chunks
  rng = np.random.default_rng(3)
  ternary = rng.choice([-2.0, 2.0], n) * (rng.random(n) < density)
  delta = {'w': ternary.astype(np.float32)}
  kept = np.count_nonzero(ternary) / n
  packed = codecs.compeft(delta, density=min(kept + 0.5 / n, 1), scale='mean')
  found = tree.read(codecs.decode(packed))['w']
  np.testing.assert_array_equal(found, delta['w'])
  size = codecs.size(packed)
  share = np.asarray([1 - kept, kept / 2, kept / 2])
  share = share[share > 0]
  entropy = -n * np.sum(share * np.log2(share))
  np.testing.assert_allclose(size.bound, entropy, rtol=1e-3, atol=40)
  # Above a half, places cost one bit and not their entropy.
  most = n * (1 + kept) if density > 0.5 else 1.03 * entropy
  assert size.leaves['w'].bits <= most + 300


def test_windows_of_any_place_read_the_same_entries() -> None:
  n = 2 * CHUNK + 77
  packed = codecs.compeft({'w': draw(n)}, density=0.1)
  leaf = codecs.decode(packed)['w']
  whole = tree.read(leaf)
  assert leaf.read_into is not None
  at = 0
  for length in (1000, CHUNK, 3, CHUNK - 900, n):
    out = np.empty(min(length, n - at), np.float32)
    leaf.read_into(at, out)
    np.testing.assert_array_equal(out, whole[at : at + len(out)])
    at += len(out)
  assert at == n


@pytest.mark.parametrize('shape', [(), (0, 3), (1,)])
def test_leaves_without_entries_or_axes(shape: tuple[int, ...]) -> None:
  delta = {'w': np.ones(shape, np.float32), 'v': np.full(3, -1, np.float32)}
  packed = codecs.compeft(delta, density=1, scale='mean')
  found = tree.read(codecs.decode(packed))
  np.testing.assert_array_equal(found['w'], delta['w'])
  np.testing.assert_array_equal(found['v'], delta['v'])


def test_a_zero_task_vector_takes_no_codes() -> None:
  packed = codecs.compeft({'w': np.zeros(1000, np.float32)}, density=0.1)
  assert packed.leaves['w'].data.size == 0
  assert not np.any(tree.read(codecs.decode(packed))['w'])


def test_leaves_on_demand_give_the_same_pack() -> None:
  delta = model()
  lazy = codecs.compeft(tree.defer(delta), density=0.3)
  eager = codecs.compeft(delta, density=0.3)
  for x, y in zip(jax.tree.leaves(lazy), jax.tree.leaves(eager)):
    np.testing.assert_array_equal(x, y)


def test_factors_are_compressed_as_the_paper_does() -> None:
  view = tree.Matrix(rows=(1,), columns=(0,))
  lora = {
    'q': deltas.Factors(draw(2, 30), draw(20, 2, seed=1), 0.5, (20, 30), view)
  }
  packed = codecs.compeft(lora, density=0.5, scale=2.0)
  factors = codecs.decode(packed, dense=False)['q']
  assert isinstance(factors, adapters.Factors)
  assert factors.scale == 0.5
  a, b = oracle([lora['q'].a, lora['q'].b], 0.5, 2.0)
  np.testing.assert_allclose(tree.read(factors.a), a, rtol=1e-6)
  dense = tree.read(codecs.decode(packed))['q']
  np.testing.assert_allclose(dense, 0.5 * b @ a, rtol=1e-5, atol=1e-6)


def test_merges_take_decoded_leaves() -> None:
  packs = [codecs.compeft({'w': draw(50, seed=s)}, density=0.4) for s in (0, 1)]
  decoded = [codecs.decode(packed) for packed in packs]
  found = tree.read(merge.ties(tree.stack(decoded), density=1))
  eager = merge.ties(tree.stack([tree.read(d) for d in decoded]), density=1)
  np.testing.assert_array_equal(found['w'], eager['w'])


@pytest.mark.parametrize(
  ('change', 'match'),
  [
    ({'density': 0.0}, 'density'),
    ({'density': 1.5}, 'density'),
    ({'scale': 0.0}, r'compeft\(scale=0.0\): expected a number above 0'),
    ({'scale': np.inf}, r'compeft\(scale=inf\): expected a number above 0'),
    ({'scale': 'mode'}, "scale='mode'.*: expected a number or 'mean'"),
    ({'scope': 'layer'}, 'scope'),
  ],
)
def test_bad_arguments(change: dict[str, Any], match: str) -> None:
  with pytest.raises(ValueError, match=match):
    codecs.compeft({'w': draw(9)}, **({'density': 0.5} | change))


def test_bad_leaves_are_named() -> None:
  with pytest.raises(ValueError, match="'n' has dtype int32, no float"):
    codecs.compeft({'n': np.ones(3, np.int32)}, density=0.5)
  with pytest.raises(ValueError, match=r"'w'.*complex"):
    codecs.compeft({'w': np.ones(3, np.complex64)}, density=0.5)
  with pytest.raises(ValueError, match=r"'w' has 1 NaN"):
    codecs.compeft({'w': np.asarray([1.0, np.nan])}, density=0.5)
  with pytest.raises(ValueError, match="'w' is traced"):
    jax.eval_shape(lambda x: codecs.compeft({'w': x}, density=0.5), draw(9))
  with pytest.raises(ValueError, match=r"'w' has the value .* float16"):
    codecs.compeft({'w': draw(9, dtype=np.float16)}, density=0.5, scale=1e6)
  packed = codecs.compeft({'w': draw(9)}, density=0.5)
  with pytest.raises(ValueError, match=r"decode: leaf 'w' is ternary.* outs"):
    jax.jit(lambda p: tree.read(codecs.decode(p)))(packed)
  leaf = packed.leaves['w']
  for bad in (leaf.data[:-1], np.zeros_like(leaf.data)):
    broken = codecs.Packed(
      {'w': dataclasses.replace(leaf, data=bad)}, 'compeft'
    )
    with pytest.raises(ValueError, match="leaf 'w' is damaged"):
      tree.read(codecs.decode(broken))
