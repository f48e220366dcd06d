"""Leading singular subspaces of float32 matrices, from Gram matrices."""

import functools
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree import _numerics
from wsl.tree._spectral import newton_schulz, svd

# The bases u and v, and the core between them.
Parts: TypeAlias = tuple[types.Array, types.Array, types.Array]

_DTYPE = np.dtype(np.float32)
# Singular vectors are refined where the kept singular values are at least this
# part of the largest: below it, eps / ratio^2 is no small angle.
_SMALLEST = 1 / 64
# Steps of refinement, and the error at which they end.
_STEPS = 6
_DONE = 3e-7


@functools.partial(jax.jit, static_argnums=1)
def parts(x: types.Array, k: int) -> Parts:
  """Returns ``u core v^T`` of float32 ``[..., m, n]``, m >= n.

  Products that decide small angles are in float64, also where x64 is off.
  Batching rules of JAX would narrow them to float32 there, so that a batch is
  decomposed by the same function.
  """

  @jax.custom_batching.custom_vmap
  def decompose(x: types.Array) -> Parts:
    size = jnp.max(jnp.abs(x), (-2, -1), keepdims=True)
    with jax.enable_x64(True):
      # Divided in float64: rounding x turns vectors by eps s_1 / gap.
      wide = _numerics.safe_divide(*(y.astype(np.float64) for y in (x, size)))
      u, core, v = _decompose(wide, k)
    return u, size * core, v

  @decompose.def_vmap
  def batched(
    size: int, is_batched: list[bool], x: types.Array
  ) -> tuple[Parts, tuple[bool, ...]]:
    del size, is_batched
    return decompose(x), (True, True, True)

  del batched
  return decompose(x)


def _decompose(x: types.Array, k: int) -> Parts:
  """Refines in float64, or decomposes in float64 if that is not sure.

  x is in float64, with the digits of float32; the results are in float32.
  """
  v, is_sure = refine(x, k)
  return jax.lax.cond(is_sure, _parts_of, lambda x, _: _exact(x, k), x, v)


class _State(NamedTuple):
  """A step of refinement."""

  taken: types.Array
  v: types.Array  # [..., n, k], float64
  first: types.Array  # the largest angle of the first step
  turn: types.Array  # the angle of the last step, root mean square over v
  known: types.Array  # whether the last step could tell all pairs

  @property
  def done(self) -> types.Array:
    # The rest of the basis, which no step changes, is wrong by about the first
    # angle: a step leaves this part of its own angle.
    return self.turn * self.first <= _DONE


def refine(x: types.Array, k: int) -> tuple[types.Array, types.Array]:
  r"""Returns the k leading right vectors of ``[..., m, n]``, and if sure.

  Eigenvectors of :math:`G = x^\top x` in float32 mix directions i and j by
  about eps :math:`s_1^2 / (s_i^2 - s_j^2)`. The residuals :math:`r_i = G v_i -
  \lambda_i v_i` of the kept ones, in float64, have the angles to the others,

  .. math:: \theta_{ij} = v_j^\top r_i / (\lambda_i - \lambda_j),

  to first order (Newton's method), so float32 suffices for what follows r.
  The others are those that are not kept, and those whose singular values are
  zero to rounding error. Other rotations of the subspace need not be undone.
  """
  t, product = jnp.matrix_transpose, _numerics.matmul
  eps, tolerance = float(jnp.finfo(_DTYPE).eps), svd.tolerance(x.shape, _DTYPE)
  narrow = x.astype(_DTYPE)
  values, basis = svd.eigh(product(t(narrow), narrow))
  largest, beyond = values[..., :1], values[..., k:]
  # Eigenvalues in float32 have errors of a few eps of the largest.
  least = 8 * eps * largest
  last = values[..., k - 1 :]
  is_large = last[..., :1] > _SMALLEST**2 * largest
  apart = jnp.all(last[..., :1] - beyond > least, -1, keepdims=True)
  sure = (is_large & apart) | (last[..., :1] <= 4 * least)

  def step(state: _State) -> _State:
    g = product(t(x), product(x, state.v))
    # Rayleigh quotients.
    value = jnp.sum(state.v * g, -2) / jnp.sum(jnp.square(state.v), -2)
    residual = g - value[..., None, :] * state.v
    cross = product(t(basis), residual.astype(_DTYPE))
    value = value.astype(_DTYPE)
    real = value > tolerance**2 * largest
    others = jnp.concatenate([jnp.where(real, value, 0), beyond], -1)
    cut = jnp.concatenate([~real, jnp.ones_like(beyond, bool)], -1)
    pairs = cut[..., :, None] & real[..., None, :]
    gap = value[..., None, :] - others[..., :, None]
    known = gap > jnp.maximum(least[..., None], 4 * jnp.abs(cross))
    angle = _numerics.safe_divide(cross, gap)
    angle = jnp.where(pairs & known, angle, 0)
    v = state.v + product(basis, angle).astype(np.float64)
    is_large = ~real | (value > _SMALLEST**2 * largest)
    known = jnp.all(known | ~pairs) & jnp.all(is_large)
    turn = jnp.sqrt(jnp.max(jnp.sum(jnp.square(angle), (-2, -1)) / k))
    first = jnp.max(jnp.abs(angle))
    first = jnp.where(state.taken == 0, first, state.first)
    return _State(state.taken + 1, v, first, turn, known)

  more = lambda state: state.known & ~state.done & (state.taken < _STEPS)
  one = jnp.ones((), _DTYPE)
  v = basis[..., :k].astype(np.float64)
  start = _State(jnp.asarray(0), v, one, one, jnp.all(sure))
  state = jax.lax.while_loop(more, step, start)
  return state.v, state.known & state.done


def _parts_of(x: types.Array, v: types.Array) -> Parts:
  """Returns the part of x in a right subspace, with a symmetric core."""
  product = _numerics.matmul
  v = _nearly_orthonormal(v)
  b = product(x, v)
  s = _sizes(x, b)
  b, v = (jnp.where(s[..., None, :] > 0, y, 0) for y in (b, v))
  u = _nearly_orthonormal(_numerics.safe_divide(b, s[..., None, :]))
  u, v, b, s = (y.astype(_DTYPE) for y in (u, v, b, s))
  core = product(jnp.matrix_transpose(u), b)
  turn = symmetric(core, s)
  return u, core + product(core, turn), v + product(v, turn)


def _exact(x: types.Array, k: int) -> Parts:
  """Decomposes the Gram matrix in float64.

  Its relative errors are eps s_1^2 / s_k^2: all singular values that float32
  tells from rounding errors are right.
  """
  gram = _numerics.matmul(jnp.matrix_transpose(x), x)
  v = svd.eigh(gram)[1][..., :k]
  b = _numerics.matmul(x, v)
  s = _sizes(x, b)
  u = _numerics.safe_divide(b, s[..., None, :])
  v = jnp.where(s[..., None, :] > 0, v, 0)
  u, s, v = (y.astype(_DTYPE) for y in (u, s, v))
  core = s[..., None] * newton_schulz.identity(
    jnp.broadcast_to(s[..., None], (*s.shape, k))
  )
  return u, core, v


def _sizes(x: types.Array, b: types.Array) -> types.Array:
  """Returns singular values, the sizes of ``x v``; rounding errors are 0."""
  s = jnp.sqrt(jnp.sum(jnp.square(b), -2))
  # They descend, to a rounding error. A maximum over the last axis would be
  # taken for a softmax, which XLA compiles slowly for a GPU.
  return jnp.where(s > svd.tolerance(x.shape, _DTYPE) * s[..., :1], s, 0)


def symmetric(core: types.Array, s: types.Array) -> types.Array:
  r"""Returns the skew turn that makes a core near diag(s) symmetric.

  To first order :math:`C (I + \Omega)` is symmetric for :math:`\Omega_{ij} =
  (C_{ji} - C_{ij}) / (s_i + s_j)`.
  """
  sums = s[..., None, :] + s[..., :, None]
  return _numerics.safe_divide(jnp.matrix_transpose(core) - core, sums)


def _nearly_orthonormal(x: types.Array) -> types.Array:
  """Restores orthonormal columns in float64, to first order in their error.

  The correction is small, so that its products are in float32.
  """
  narrow = x.astype(np.float32)
  gram = _numerics.matmul(jnp.matrix_transpose(narrow), narrow)
  error = newton_schulz.identity(gram) - gram
  return x + _numerics.matmul(narrow, error / 2).astype(x.dtype)
