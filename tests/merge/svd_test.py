"""tsv, iso_c and iso_cts against their definitions, and in edge cases."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from wsl import merge

DTYPES = pytest.mark.parametrize('dtype', ['float64', 'float32'])


def draw(seed: int, *shape: int) -> np.ndarray:
  x = np.random.default_rng(seed).normal(size=shape)
  return np.float32(x).astype(np.float64)


def polar(x: np.ndarray) -> np.ndarray:
  u, _, vt = np.linalg.svd(x, full_matrices=False)
  return u @ vt


def oracle_tsv(x: np.ndarray) -> np.ndarray:
  q = min(x.shape[1:]) // len(x)
  u, s, vt = np.linalg.svd(x, full_matrices=False)
  left = polar(np.concatenate([m[:, :q] for m in u], axis=1))
  right = polar(np.concatenate([m[:q].T for m in vt], axis=1))
  return left @ np.diag(np.concatenate([v[:q] for v in s])) @ right.T


def oracle_iso_c(x: np.ndarray) -> np.ndarray:
  u, s, vt = np.linalg.svd(x.sum(0), full_matrices=False)
  return s.mean() * u @ vt


def oracle_iso_cts(x: np.ndarray, each: int) -> np.ndarray:
  """For kernels [in, out]; `each` is the number of directions of a task."""
  common = min(x.shape[1:]) - each * len(x)
  u, s, vt = np.linalg.svd(x.sum(0), full_matrices=False)
  v = vt[:common].T
  own = [np.linalg.svd(m - m @ v @ v.T, full_matrices=False) for m in x]
  left = np.concatenate([o.U[:, :each] for o in own] + [u[:, :common]], axis=1)
  right = np.concatenate([o.Vh[:each].T for o in own] + [v], axis=1)
  sizes = np.concatenate([o.S[:each] for o in own] + [s[:common]])
  return sizes.mean() * polar(left) @ polar(right).T


def close(found: Any, wanted: Any, dtype: str = 'float64') -> None:
  atol = 1e-12 if dtype == 'float64' else 3e-5
  np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


# T does not divide the rank in the second and the last.
@DTYPES
@pytest.mark.parametrize('shape', [(2, 4, 6), (3, 7, 5), (1, 4, 4), (3, 8, 9)])
def test_tsv_and_iso_c_are_the_definition(
  shape: tuple[int, ...], dtype: str
) -> None:
  x = draw(0, *shape)
  y = {'w': jnp.asarray(x, dtype), 'b': jnp.asarray(x[:, 0], dtype)}
  for method, oracle in ((merge.tsv, oracle_tsv), (merge.iso_c, oracle_iso_c)):
    merged = method(y)
    close(merged['w'], oracle(x), dtype)
    close(merged['b'], x[:, 0].mean(0), dtype)


@DTYPES
@pytest.mark.parametrize(
  ('shape', 'common', 'each'),
  [
    ((2, 5, 7), 0.5, 2),  # (5 - 2) / 2 = 1.5 rounds to 2
    ((2, 9, 9), 0.5, 2),  # (9 - 4) / 2 = 2.5 rounds to 2
    ((3, 6, 8), 0.8, 1),
    ((2, 8, 6), 0.0, 3),
    ((3, 5, 5), 0.0, 1),  # 5 / 3 rounds to 2, which is more than there are
    ((1, 4, 5), 0.5, 2),
  ],
)
def test_iso_cts_is_the_definition(
  shape: tuple[int, ...], common: float, each: int, dtype: str
) -> None:
  x = draw(0, *shape)
  merged = merge.iso_cts({'w': jnp.asarray(x, dtype)}, common=common)
  close(merged['w'], oracle_iso_cts(x, each), dtype)


def test_iso_cts_with_everything_common_is_iso_c() -> None:
  x = {'w': jnp.asarray(draw(0, 3, 6, 5)), 'b': jnp.asarray(draw(1, 3, 5))}
  one, other = merge.iso_cts(x, common=1.0), merge.iso_c(x)
  close(one['w'], other['w'])
  close(one['b'], other['b'])


def test_iso_cts_takes_the_last_axis_as_output_and_others_are_symmetric() -> (
  None
):
  x = jnp.asarray(draw(0, 2, 6, 6))
  turned = jnp.swapaxes(x, 1, 2)
  for method in (merge.tsv, merge.iso_c):
    close(method({'w': turned})['w'], method({'w': x})['w'].T)
  one = merge.iso_cts({'w': x}, common=0.5)['w']
  assert not np.allclose(merge.iso_cts({'w': turned}, common=0.5)['w'], one.T)
  # The common subspace is projected out of the outputs, not of the inputs.
  close(one, oracle_iso_cts(np.asarray(x), 2))


def orthogonal_tasks() -> np.ndarray:
  """Three tasks of rank 2 whose row and column spaces are orthogonal."""
  left = np.linalg.qr(draw(0, 8, 8))[0]
  right = np.linalg.qr(draw(1, 9, 9))[0]
  sizes = np.asarray([[5.0, 4.0], [3.0, 2.5], [2.0, 1.0]])
  place = lambda t: (left[:, 2 * t : 2 * t + 2], right[:, 2 * t : 2 * t + 2])
  return np.stack(
    [u * s @ v.T for s, (u, v) in zip(sizes, map(place, range(3)))]
  )


def test_tsv_of_orthogonal_tasks_is_their_sum() -> None:
  x = orthogonal_tasks()
  close(merge.tsv({'w': jnp.asarray(x)})['w'], x.sum(0))


def test_the_spectrum_of_tsv_is_the_union_of_the_kept_values() -> None:
  x = draw(0, 3, 7, 8)
  kept = np.linalg.svd(x, compute_uv=False)[:, :2].ravel()
  found = np.linalg.svd(merge.tsv({'w': jnp.asarray(x)})['w'], compute_uv=False)
  close(found, np.sort(np.append(kept, 0.0))[::-1])


def test_iso_c_has_a_flat_spectrum_and_the_nuclear_norm_of_the_sum() -> None:
  x = draw(0, 3, 6, 8)
  nuclear = np.linalg.svd(x.sum(0), compute_uv=False).sum()
  found = np.linalg.svd(
    merge.iso_c({'w': jnp.asarray(x)})['w'], compute_uv=False
  )
  close(found, np.full(6, nuclear / 6))
  close(merge.iso_c({'w': jnp.asarray(3 * x)})['w'], 3 * oracle_iso_c(x))


METHODS = {
  'tsv': merge.tsv,
  'iso_c': merge.iso_c,
  'iso_cts': lambda x: merge.iso_cts(x, common=0.5),
}


def hard_cases() -> dict[str, np.ndarray]:
  rank = draw(0, 2, 8, 2) @ draw(1, 2, 2, 9)
  full = draw(2, 2, 8, 9)
  return {
    'rank two': rank,
    'one model unchanged': full * np.asarray([1.0, 0.0])[:, None, None],
    'one model twice': np.stack([full[0], full[0]]),
    'models that cancel': np.stack([full[0], -full[0]]),
    'orthogonal': orthogonal_tasks(),
  }


@pytest.mark.parametrize('case', hard_cases())
@pytest.mark.parametrize('name', METHODS)
def test_merges_are_equivariant_to_a_change_of_basis(
  name: str, case: str
) -> None:
  """Singular vectors of zero singular values do not affect the result."""
  x, method = hard_cases()[case], METHODS[name]
  left = np.linalg.qr(draw(3, 8, 8))[0]
  right = np.linalg.qr(draw(4, 9, 9))[0]
  plain = np.asarray(method({'w': jnp.asarray(x)})['w'])
  turned = method({'w': jnp.asarray(left @ x @ right)})['w']
  np.testing.assert_allclose(turned, left @ plain @ right, atol=1e-11)


@pytest.mark.parametrize('name', METHODS)
def test_models_that_are_all_zero_merge_to_zero(name: str) -> None:
  for dtype in ('float64', 'float32'):
    merged = METHODS[name]({'w': jnp.zeros((2, 4, 5), dtype)})
    assert merged['w'].tolist() == np.zeros((4, 5)).tolist()


def test_low_rank_by_hand() -> None:
  x = np.zeros((2, 4, 4))
  x[0, 0, 0], x[0, 1, 1], x[1, 2, 2] = 4.0, 2.0, 3.0
  y = {'w': jnp.asarray(x)}
  close(merge.tsv(y)['w'], np.diag([4.0, 2.0, 3.0, 0.0]))
  close(merge.iso_c(y)['w'], np.diag([3.0, 3.0, 3.0, 0.0]))


def test_a_matrix_smaller_than_the_number_of_tasks_is_averaged_by_tsv() -> None:
  x = draw(0, 3, 2, 5)
  close(merge.tsv({'w': jnp.asarray(x)})['w'], x.mean(0))


def test_matrices_are_a_choice() -> None:
  conv, dense = draw(0, 2, 2, 2, 3, 5), draw(1, 2, 4, 6)
  x = {'conv': {'kernel': jnp.asarray(conv)}, 'dense': jnp.asarray(dense)}
  with pytest.raises(ValueError, match='more than two axes'):
    merge.iso_c(x)
  default = merge.iso_c(x, otherwise='mean')
  close(default['conv']['kernel'], conv.mean(0))
  close(default['dense'], oracle_iso_c(dense))
  for choice in ('kernel', lambda name, shape: len(shape) == 4):
    chosen = merge.iso_c(x, matrices=choice)
    wanted = oracle_iso_c(conv.reshape(2, 12, 5)).reshape(2, 2, 3, 5)
    close(chosen['conv']['kernel'], wanted)
    close(chosen['dense'], dense.mean(0))


def test_bfloat16_is_decomposed_in_float32() -> None:
  x = draw(0, 2, 4, 6)
  low = jnp.asarray(x, jnp.bfloat16)
  merged = merge.tsv({'w': low})['w']
  wanted = oracle_tsv(np.asarray(low.astype(jnp.float64)))
  assert merged.dtype == jnp.bfloat16
  assert bool((merged == jnp.asarray(wanted).astype(jnp.bfloat16)).mean() > 0.9)
