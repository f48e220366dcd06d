"""SkillPack: singular vectors of few bits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import codecs, deltas, tree, types

VIEW = tree.Matrix(rows=(0,), columns=(1,))


def draw(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).standard_normal(shape)


def decoded(packed: codecs.Packed) -> np.ndarray:
  return np.asarray(tree.read(codecs.decode(packed))['w'], np.float64)


def error(x: np.ndarray, **settings: Any) -> float:
  found = decoded(codecs.skillpack({'w': x}, **settings))
  return float(np.linalg.norm(found - x) / np.linalg.norm(x))


def test_many_bits_and_full_rank_are_exact() -> None:
  x = draw(24, 18)
  bits = [(None, 16)]
  assert error(x, rank=18, bits=bits, run=8) < 1e-4
  errors = [error(x, rank=r, bits=bits) for r in (6, 18)]
  s = np.linalg.svd(x, compute_uv=False)
  wanted = [np.sqrt(np.sum(s[r:] ** 2) / np.sum(s**2)) for r in (6, 18)]
  np.testing.assert_allclose(errors, wanted, rtol=1e-4, atol=1e-4)


def test_leading_directions_deserve_the_bits() -> None:
  x = draw(24, 18) * np.logspace(0, -2, 18)
  first = error(x, rank=18, bits=[(3, 8), (None, 2)])
  last = error(x, rank=18, bits=[(15, 2), (None, 8)])
  assert first < 0.5 * last
  errors = [error(x, rank=18, bits=[(None, b)]) for b in (1, 2, 4, 8)]
  assert np.all(np.diff(errors) < 0)


def test_steps_of_two_bits_are_near_the_best_for_a_gaussian() -> None:
  # The best uniform quantiser of four levels has 0.1188 times the variance;
  # the one that reaches the largest of 128 entries about 0.2.
  factors = deltas.Factors(draw(1, 4096), draw(5, 1), 1.0, (4096, 5), VIEW)
  packed = codecs.skillpack({'w': factors}, bits=[(None, 2)])
  found = tree.read(codecs.decode(packed, dense=False)['w'].a)
  scale = packed.leaves['w'].scale
  assert np.log2(scale) == np.round(np.log2(scale))
  part = found * (np.vdot(found, factors.a) / np.vdot(found, found))
  assert np.mean((part - factors.a) ** 2) / np.var(factors.a) < 0.13


def oracle(w: np.ndarray, gram: np.ndarray, step: np.ndarray) -> np.ndarray:
  """Rounds in order; the rest solves its least squares after each column."""
  h = gram + 0.01 * np.mean(np.diag(gram)) * np.eye(len(gram))
  w, out = w.copy(), np.zeros(w.shape)
  for j in range(w.shape[1]):
    code = np.clip(np.floor(w[:, j] / step + 2), 0, 3)
    out[:, j] = (code - 1.5) * step
    rest = slice(j + 1, None)
    change = np.linalg.solve(h[rest, rest], h[rest, j])
    w[:, rest] -= np.outer(out[:, j] - w[:, j], change)
  return out


def test_errors_are_compensated_as_by_least_squares() -> None:
  inputs = draw(40, 18) @ draw(18, 18, seed=1)
  gram = inputs.T @ inputs / 40
  a = draw(3, 18, seed=2)
  factors = deltas.Factors(a, draw(24, 3), 1.0, (18, 24), VIEW)
  moments = types.Gram(jnp.asarray(gram)[None])
  packed = codecs.skillpack(
    {'w': factors}, bits=[(None, 2)], run=18, grams={'w': moments}
  )
  node = packed.leaves['w']
  found = np.asarray(tree.read(codecs.decode(packed, dense=False)['w'].a))
  step = np.asarray(node.a.segments[0].steps, np.float64)[:, 0]
  power = 2.0 ** (np.frexp(np.max(np.abs(a)))[1] - 8)
  np.testing.assert_allclose(found, oracle(a / power, gram, step), atol=1e-12)
  # B is fitted to it on the inputs, and better than B as it was.
  plain = codecs.skillpack({'w': factors}, bits=[(None, 2)], run=18)
  dense = np.asarray(deltas.dense(factors))
  lost = lambda p: np.linalg.norm(inputs @ (decoded(p) - dense))
  assert lost(packed) < 0.85 * lost(plain)


def test_layers_small_values_and_zeros() -> None:
  scanned = {'w': tree.Matrix(batch=(0,), rows=(1,), columns=(2,))}
  x = draw(2, 24, 18) * 1e-7
  settings: Any = {'rank': 18, 'bits': [(None, 12)], 'matrices': scanned}
  assert error(x, **settings) < 1e-2
  np.testing.assert_array_equal(
    decoded(codecs.skillpack({'w': 0 * x}, **settings)), 0 * x
  )
  vector = {'b': draw(3).astype(np.float32)}
  assert codecs.size(codecs.skillpack(vector)).leaves['b'].bits == 3 * 32


def test_sizes_are_bits_of_codes_and_steps() -> None:
  packed = codecs.skillpack(
    {'w': draw(24, 18)}, rank=6, bits=[(2, 8), (None, 3)], run=8
  )
  size = codecs.size(packed).leaves['w']
  codes = (2 * 8 + 4 * 3) * (24 + 24)  # 18 entries take three bytes a plane
  assert size.bits == codes + 16 * 6 * (3 + 3) + 32
  assert 0.7 * size.bits < size.bound < size.bits
  assert size.entries == 24 * 18


def test_codes_are_never_larger_than_the_matrix() -> None:
  x = draw(3, 2)
  pack = lambda bits: codecs.skillpack({'w': x}, rank=2, bits=[(None, bits)])
  assert pack(2).leaves['w'] is not x
  assert pack(16).leaves['w'] is x


def test_codes_are_decoded_in_a_trace() -> None:
  x = draw(24, 18).astype(np.float32)
  packed = codecs.skillpack({'w': x}, rank=6)
  found = jax.jit(codecs.decode)(packed)['w']
  np.testing.assert_allclose(found, decoded(packed), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ('change', 'match'),
  [
    ({'rank': None}, r'skillpack: extract: give rank='),
    ({'bits': [(None, 17)]}, r'bits has \(None, 17\): expected'),
    ({'bits': [(None, 2.5)]}, r'bits has \(None, 2.5\): expected'),
    ({'bits': 4}, r'bits has \(4, 0\): expected'),
    ({'bits': [(2, 4)]}, r"do not cover the rank 3 of leaf 'w': end with"),
    ({'run': 0}, r'skillpack\(run=0\): expected an integer >= 1'),
    ({'matrices': 'q'}, r'skillpack: matrices'),
  ],
)
def test_bad_arguments(change: dict[str, Any], match: str) -> None:
  with pytest.raises(ValueError, match=match):
    codecs.skillpack({'w': draw(5, 4)}, **({'rank': 3} | change))
