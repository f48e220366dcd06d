"""Polar factors and singular subspaces without an SVD, against planted ones.

The tests take the path of accelerators, on any platform; those of
``svd_test.py`` and ``contract_test.py`` take that of the platform.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import traces
from tests.merge import svd_test
from wsl import jaxprs, merge, tree
from wsl.merge._spectral import matrix, programs
from wsl.tree._spectral import gram, newton_schulz, polar, svd
from wsl.tree._spectral import leading as leading_lib

draw = svd_test.draw
factor_of = jax.jit(polar.polar)
leading = jax.jit(leading_lib.leading, static_argnums=1)
decompose = jax.jit(svd.svd)
CHOOSE = svd.choose


@pytest.fixture(autouse=True, scope='module')
def products() -> Iterator[None]:
  """Takes the path of accelerators in all tests of the file."""
  with pytest.MonkeyPatch.context() as patch, traces.fresh():
    patch.setattr(svd, 'choose', _products_of_float32)
    yield


def _products_of_float32(x: Any, lapack: Any, products: Any) -> Any:
  return products(x) if x.dtype == jnp.float32 else lapack(x)


EPS = float(np.finfo(np.float32).eps)
# cuSOLVER's eigenvectors in float32 have errors of a few more eps.
ROUNDING = 1 if jax.default_backend() == 'cpu' else 4
STRICT = pytest.mark.skipif(
  not jax.config.jax_enable_x64, reason='compares with float64'
)


def orthonormal(seed: int, n: int, k: int) -> np.ndarray:
  return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, k)))[0]


def planted(seed: int, m: int, n: int, s: Any) -> np.ndarray:
  """Returns float32 values with (nearly) the singular values s."""
  u, v = orthonormal(seed, m, len(s)), orthonormal(seed + 1, n, len(s))
  return np.float32(u * np.asarray(s) @ v.T)


SPECTRA = {
  'flat': np.ones(24),
  'linear': np.linspace(1, 0.02, 24),
  'power law': (1.0 + np.arange(24)) ** -1,
  'condition 1e3': np.geomspace(1, 1e-3, 24),
  'two clusters': np.repeat([1.0, 0.25], [10, 14]),
  'one outlier': np.r_[30.0, np.linspace(1, 0.1, 23)],
  'rank five': np.asarray([5.0, 4, 2, 1, 0.5]),
  'rank one': np.ones(1),
}
SHAPES = {'square': (24, 24), 'tall': (40, 24), 'wide': (24, 60)}


def parts(x: np.ndarray) -> tuple[np.ndarray, ...]:
  """Returns the SVD in float64, cut where float32 has rounding errors."""
  u, s, vt = np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)
  real = s > max(x.shape) * EPS * s[0]
  return u[:, real], s[real], vt[real].T


def near(found: Any, wanted: np.ndarray, rtol: float) -> None:
  error = np.linalg.norm(np.asarray(found, np.float64) - wanted)
  assert error <= rtol * np.linalg.norm(wanted), error / np.linalg.norm(wanted)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', SPECTRA)
def test_the_polar_factor_is_that_of_an_svd(name: str, shape: str) -> None:
  x = planted(0, *SHAPES[shape], SPECTRA[name])
  u, s, v = parts(x)
  rtol = 1e-6 + 2 * EPS * s[0] / s[-1]
  for scale in (1.0, 1e-30, 1e30):
    found = factor_of(jnp.asarray(np.float32(scale) * x))
    assert found.dtype == jnp.float32
    near(found, u @ v.T, rtol)


def test_columns_of_zeros_and_equal_columns_in_a_batch() -> None:
  full = planted(0, 12, 8, np.linspace(1, 0.5, 8))
  empty = full * np.float32(np.arange(8) % 3 > 0)
  twice = np.concatenate([full[:, :4], full[:, :4]], 1)
  x = np.stack([full, empty, twice, 0 * full])
  found = factor_of(jnp.asarray(x))
  for one, factor in zip(x, found):
    u, _, v = parts(one)
    near(factor, u @ v.T, 2e-6)
  assert not np.asarray(found[3]).any()
  assert not np.asarray(found[1])[:, ::3].any()
  same = jax.jit(jax.vmap(polar.polar))(jnp.asarray(x))
  near(same, np.asarray(found), 2e-6)
  eager = polar.polar(jnp.asarray(x[2]))
  near(eager, np.asarray(found[2]), 2e-6)


@pytest.mark.parametrize('low', [1e-6, 1e-3, 0.2])
@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_the_schedule_maps_the_spectrum_to_one(low: float, dtype: str) -> None:
  s = np.geomspace(low, 1, 2001)
  lows, scales = newton_schulz._schedule(low, np.dtype(dtype))
  for bound, a in zip(lows, scales, strict=True):
    assert bound * (1 - 1e-9) <= s.min()
    assert s.max() <= 1 + 1e-9
    # No large singular value becomes small: its vectors keep their digits.
    assert s[-1] >= min(0.3, 0.9 * s.min() / low)
    s = a * s * (3 - a**2 * s**2) / 2
  assert abs(s - 1).max() < np.finfo(dtype).eps


@pytest.mark.parametrize('k', [1, 4, 24])
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', SPECTRA)
def test_leading_subspaces_are_those_of_an_svd(
  name: str, shape: str, k: int
) -> None:
  x = planted(2, *SHAPES[shape], SPECTRA[name])
  u, s, v = (y[..., :k] for y in parts(x))
  found = [np.asarray(y, np.float64) for y in leading(jnp.asarray(x), k)]
  spectrum = np.append(SPECTRA[name], 0)
  if len(spectrum) > k and spectrum[k - 1] == spectrum[k]:
    # Any k directions of a cluster are right.
    core = np.linalg.svd(found[1], compute_uv=False)
    np.testing.assert_allclose(core, s, atol=2e-6 * s[0])
    near(x @ found[2], found[0] @ found[1], 2e-6)
    return
  # Angles that float32 would make wrong by eps s_1 / gap are found in float64.
  rtol = 2e-6 * ROUNDING
  near(found[0] @ found[1] @ found[2].T, u * s @ v.T, rtol)
  near(found[0] @ found[0].T, u @ u.T, rtol)
  near(found[2] @ found[2].T, v @ v.T, rtol)
  near(found[0] @ found[2].T, u @ v.T, rtol)
  near(found[1], found[1].T, 1e-6)


def test_steep_spectra_take_the_other_path() -> None:
  flat = planted(0, 40, 24, np.linspace(1, 0.1, 24))
  steep = planted(0, 40, 24, np.geomspace(1, 1e-3, 24))

  @jax.jit
  def sure(x: Any) -> Any:
    with jax.enable_x64(True):
      return gram.refine(x.astype(jnp.float64), 20)[1]

  assert sure(jnp.asarray(flat))
  assert not sure(jnp.asarray(steep))
  assert not sure(jnp.asarray(np.stack([flat, steep])))
  low = planted(0, 40, 24, np.linspace(1, 0.1, 4))
  assert sure(jnp.asarray(np.stack([low, 0 * low, flat])))
  x = jnp.asarray(np.stack([flat, steep]))
  both = leading(x, 20)
  mapped = jax.jit(jax.vmap(lambda x: leading(x, 20)))(x)
  for i, one in enumerate((flat, steep)):
    u, _, v = (y[..., :20] for y in parts(one))
    for found in (both, mapped):
      left, right = np.asarray(found.u[i]), np.asarray(found.v[i])
      near(left @ right.T, u @ v.T, 2e-6)


@pytest.mark.parametrize('gap', [1e-3, 1e-4, 1e-5, 1e-6])
def test_a_small_gap_is_found_in_float64(gap: float) -> None:
  """The errors of float32 are eps / gap; eigenvectors are refined or exact."""
  s = np.r_[np.linspace(2, 1 + gap, 8), np.linspace(1, 0.1, 16)]
  x = planted(3, 40, 24, s)
  u, _, v = (y[..., :8] for y in parts(x))
  found = leading(jnp.asarray(x), 8)
  near(np.asarray(found.u) @ np.asarray(found.v).T, u @ v.T, 2e-6)


def test_small_singular_values_count_and_rounding_errors_do_not() -> None:
  n = 128
  full = planted(5, n, n, np.r_[np.geomspace(1, 1e-2, n - 1), 80 * EPS])
  left, right = (planted(seed, n, n // 2, np.ones(n // 2)) for seed in (6, 8))
  deficient = left @ right.T  # rounded: its rank is n
  for x, rank in (full, n), (deficient, n // 2):
    u, _, vt = np.linalg.svd(x.astype(np.float64))
    wanted = u[:, :rank] @ vt[:rank]
    near(factor_of(jnp.asarray(x)), wanted, 1e-5)
    near(polar._parts(svd.lapack(jnp.asarray(x)), x)[0], wanted, 1e-5)


@pytest.mark.parametrize('name', SPECTRA)
def test_svd_from_the_polar_factor(name: str) -> None:
  for shape in SHAPES.values():
    x = planted(4, *shape, SPECTRA[name])
    _, s, _ = parts(x)
    u, found, vt = map(np.asarray, decompose(jnp.asarray(x)))
    atol = 1e-6 * ROUNDING * s[0]
    np.testing.assert_allclose(found[: len(s)], s, atol=atol)
    assert np.all(found[len(s) :] <= max(shape) * EPS * s[0])
    near((u * found) @ vt, x, 2e-6 * ROUNDING)


METHODS: dict[str, tuple[Callable[..., Any], Any]] = {
  'tsv': (merge.tsv, svd_test.oracle_tsv),
  'iso_c': (merge.iso_c, svd_test.oracle_iso_c),
  'iso_cts': (
    lambda x, **how: merge.iso_cts(x, common=0.5, **how),
    lambda x: svd_test.oracle_iso_cts(x, each=_each(x)),
  ),
}


def _each(x: np.ndarray) -> int:
  rank = min(x.shape[1:])
  return min(round((rank - int(0.5 * rank)) / len(x)), rank // len(x))


def tasks(seed: int, models: int, m: int, n: int) -> np.ndarray:
  """Stacks task matrices with power-law spectra and a common part."""
  s = 1e-3 * (1.0 + np.arange(min(m, n))) ** -0.6
  common = planted(seed, m, n, 0.3 * s)
  each = [planted(10 * seed + 3 * t + 7, m, n, s) for t in range(models)]
  return np.stack([x + common for x in each])


@pytest.mark.parametrize('name', METHODS)
@pytest.mark.parametrize(
  'shape', [(8, 64, 64), (8, 24, 64), (3, 64, 24), (1, 20, 30), (5, 16, 3)]
)
def test_float32_is_near_float64(name: str, shape: tuple[int, ...]) -> None:
  x = tasks(1, *shape)
  method, oracle = METHODS[name]
  wanted = oracle(x.astype(np.float64))
  if name == 'tsv' and min(shape[1:]) < len(x):
    wanted = x.mean(0)
  found = method({'w': jnp.asarray(x)})['w']
  assert found.dtype == jnp.float32
  near(found, wanted, 1e-5)


@STRICT
@pytest.mark.parametrize('case', svd_test.hard_cases())
@pytest.mark.parametrize('name', METHODS)
def test_float32_equals_float64_in_hard_cases(name: str, case: str) -> None:
  x, (method, _) = svd_test.hard_cases()[case], METHODS[name]
  wanted = np.asarray(method({'w': jnp.asarray(x)})['w'])
  found = method({'w': jnp.asarray(x, jnp.float32)})['w']
  np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
@pytest.mark.parametrize('name', METHODS)
def test_narrow_leaves_are_merged_in_float32(name: str, dtype: str) -> None:
  x = jnp.asarray(1e3 * tasks(2, 2, 12, 20), dtype)
  method, oracle = METHODS[name]
  found = method({'w': x})['w']
  assert found.dtype == dtype
  near(found, oracle(np.asarray(x, np.float64)), float(jnp.finfo(dtype).eps))


def loss(name: str, weight: np.ndarray) -> Callable[[Any], Any]:
  method, _ = METHODS[name]
  inner = lambda x: jnp.sum(
    method({'w': x})['w'] * jnp.asarray(weight, x.dtype)
  )
  return inner


@STRICT
@pytest.mark.parametrize('name', METHODS)
def test_gradients_of_float32_are_those_of_float64(name: str) -> None:
  x, weight = 1e3 * tasks(3, 3, 12, 18), draw(5, 12, 18)
  slope = jax.grad(loss(name, weight))
  wanted = np.asarray(slope(jnp.asarray(x, jnp.float64)))
  near(slope(jnp.asarray(x, jnp.float32)), wanted, 2e-4)


@STRICT
@pytest.mark.parametrize('shape', [(2, 6, 9), (2, 9, 6), (2, 2, 7, 7)])
@pytest.mark.parametrize('k', [0, 2, 6])
def test_the_slope_of_the_leading_part(shape: tuple[int, ...], k: int) -> None:
  """Of functions that no rotation of the basis changes."""
  x, dx = (jnp.asarray(draw(seed, *shape)) for seed in (0, 1))

  def both(h: float) -> Any:
    u, core, v = leading(x + h * dx, k)
    t = jnp.matrix_transpose
    return (u @ core @ t(v), u @ t(v), u @ core @ core @ t(u))

  h = 1e-5
  _, found = jax.jvp(both, (0.0,), (1.0,))
  for slope, up, down in zip(found, both(h), both(-h)):
    difference = np.asarray(up - down) / (2 * h)
    np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-8)


@STRICT
@pytest.mark.parametrize('name', METHODS)
def test_gradients_where_singular_values_coincide(name: str) -> None:
  """Their vectors have no derivative, but the merge has one."""
  s = np.repeat([2.0, 1.0], 4)
  x = np.stack(
    [orthonormal(t, 8, 8) * s @ orthonormal(t + 5, 8, 8).T for t in range(2)]
  )
  step, weight, h = draw(7, *x.shape), draw(8, 8, 8), 1e-5
  call = loss(name, weight)
  slope = jax.grad(call)(jnp.asarray(x))
  found = float(jnp.sum(slope * step))
  up, down = (float(call(jnp.asarray(x + d * step))) for d in (h, -h))
  np.testing.assert_allclose(found, (up - down) / (2 * h), rtol=1e-5)


@pytest.mark.parametrize('case', svd_test.hard_cases())
@pytest.mark.parametrize('name', METHODS)
def test_gradients_are_finite_at_any_rank(name: str, case: str) -> None:
  x = svd_test.hard_cases()[case]
  weight = draw(9, *x.shape[1:])
  for dtype in (np.float32, jnp.ones(()).dtype):
    for y in (x, 0 * x):
      slope = jax.grad(loss(name, weight))(jnp.asarray(y, dtype))
      assert np.isfinite(np.asarray(slope)).all()


def many(leaves: int, dtype: Any = np.float32) -> dict[str, Any]:
  shapes = [(8, 12)] * leaves + [(12, 8), (5,)]
  return {
    f'layer_{i}': jnp.asarray(draw(i, 2, *shape), dtype)
    for i, shape in enumerate(shapes)
  }


@pytest.mark.parametrize('name', METHODS)
def test_leaves_of_one_shape_are_one_program(name: str) -> None:
  method = METHODS[name][0]
  size = lambda n: len(list(_equations(jax.make_jaxpr(method)(many(n)))))
  # Each further leaf adds its cast and view, and no decomposition.
  assert size(9) - size(8) == size(3) - size(2) <= 12
  compiled = traces.programs()
  alone = {k: method({k: x})[k] for k, x in many(4).items()}
  together = method(many(4))
  # One for (8, 12), one for (12, 8) and one for vectors; then one for all.
  assert traces.programs() - compiled <= 4
  jitted = jax.jit(method)(many(4))
  for key, x in alone.items():
    np.testing.assert_allclose(together[key], x, atol=2e-5)
    np.testing.assert_allclose(jitted[key], x, atol=2e-5)


@pytest.mark.parametrize('name', METHODS)
def test_wide_matrices_are_decomposed_with_tall_ones(name: str) -> None:
  """Except where the method depends on the side."""
  wide = many(2)
  tall = {k: jnp.swapaxes(x, 1, 2) for k, x in many(1).items() if x.ndim > 2}

  def decompositions(x: Any) -> int:
    found = jax.make_jaxpr(METHODS[name][0])(x)
    names = [eqn.primitive.name for eqn in _equations(found)]
    return names.count('eigh') + names.count('cholesky')

  together = wide | {f'{k}/wide': x for k, x in tall.items()}
  groups = 2 if name == 'iso_cts' else 1
  alone = decompositions({'layer_0': wide['layer_0']})
  assert decompositions(together) == groups * alone > 0


def test_blocks_of_one_size_for_stacks_of_one_side() -> None:
  fit = lambda *shapes: programs.share_block(
    [(8, count, m, n) for count, m, n in shapes]
  )
  # The kernels of ViT-B/32: 28 and 7 matrices fit, and six divide both counts.
  assert fit((48, 768, 768), (24, 3072, 768)) == [6, 6]
  assert fit((24, 768, 3072), (48, 768, 768), (9, 64, 64)) == [6, 6, None]
  # A table of one matrix, and matrices of which few fit, have their own.
  assert fit((48, 768, 768), (1, 49408, 768)) == [None, None]
  assert fit((9, 4096, 4096), (9, 8192, 4096)) == [None, None]


def test_calls_of_one_program_take_leaves_of_each_kind() -> None:
  names = [f'{i}' for i in range(11)]
  assert matrix._calls([names[:6], names[6:]], 11) == [names]
  four = [['0', '6'], ['1', '7'], ['2', '8'], ['3', '9']]
  assert matrix._calls([names[:4], names[6:10]], 2) == four
  # One leaf of the second kind would be in each of four calls.
  calls = [['0', '1'], ['2', '3'], ['4', '4'], ['6'], ['7']]
  assert matrix._calls([names[:5], ['6'], ['7']], 2) == calls


def _equations(program: Any) -> Any:
  """Yields the equations of a program and of all programs inside it."""
  for eqn in getattr(program, 'jaxpr', program).eqns:
    yield eqn
    for inner in jaxprs.inner(eqn):
      yield from _equations(inner)


@pytest.mark.parametrize('name', METHODS)
def test_programs_for_a_gpu_have_no_svd(name: str) -> None:
  """The choice of the path itself, which the other tests here replace."""
  method = METHODS[name][0]

  def lowered(platform: str, dtype: Any) -> str:
    with pytest.MonkeyPatch.context() as patch, traces.fresh():
      patch.setattr(svd, 'choose', CHOOSE)
      export = jax.export.export(jax.jit(method), platforms=[platform])
      return str(export(many(1, dtype)).mlir_module())

  gpu, cpu = (lowered(platform, np.float32) for platform in ('cuda', 'cpu'))
  assert 'gesvd' not in gpu
  assert 'gesdd' not in gpu
  assert 'potrf' in gpu
  assert 'gesdd' in cpu


@pytest.mark.parametrize('name', METHODS)
@traces.fresh()
def test_blocks_change_no_result(
  name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  x, method = many(5), METHODS[name][0]
  with traces.fresh():
    wanted = method(x)
  # Two matrices in a block: the last block of five repeats one.
  monkeypatch.setattr(programs, 'BLOCK', 2 * 2 * 8 * 12)
  compiled = traces.programs()
  found = method(x)
  assert traces.programs() - compiled <= 3
  jitted = jax.jit(method)(x)
  stacked = jnp.stack([x[f'layer_{i}'] for i in range(5)], 1)
  views = {'w': tree.Matrix(batch=(0,), rows=(1,), columns=(2,))}
  scanned = method({'w': stacked}, matrices=views)['w']
  for i in range(5):
    key = f'layer_{i}'
    for y in (found[key], jitted[key], scanned[i]):
      np.testing.assert_allclose(y, wanted[key], atol=2e-5)


@pytest.mark.parametrize('name', METHODS)
def test_vmap_equals_a_loop(name: str) -> None:
  full = draw(0, 3, 2, 6, 9)
  full[1] = full[1] * np.asarray([1.0, 0.0])[:, None, None]
  full[2, 1] = full[2, 0]
  call = lambda x: METHODS[name][0]({'w': x})['w']
  for dtype in (np.float32, jnp.ones(()).dtype):
    x = jnp.asarray(full, dtype)
    mapped = jax.jit(jax.vmap(call))(x)
    for one, y in zip(x, mapped):
      np.testing.assert_allclose(y, call(one), atol=3e-5)
