"""Rotary embeddings, as libraries write them."""

import jax
import jax.numpy as jnp
import numpy as np

RNG = np.random.default_rng(0)
B, S, D, H, F = 2, 5, 4, 2, 3  # batch, positions, inputs, heads, frequencies
X = jnp.asarray(RNG.normal(size=(B, S, D)))
POSITIONS = jnp.asarray([[0, 1, 2, 3, 4], [2, 3, 4, 5, 6]])


def shapes(**sizes):
  return {n: jax.ShapeDtypeStruct(s, jnp.float64) for n, s in sizes.items()}


PLAIN = {'q': (D, 12), 'k': (D, 12), 'v': (D, 12), 'o': (12, D)}
GROUPED = {**PLAIN, 'q': (D, 24), 'o': (24, D)}


def angles(positions=None, count=F):
  frequencies = 100.0 ** -(jnp.arange(count, dtype=X.dtype) / count)
  if positions is None:
    return jnp.arange(S, dtype=X.dtype)[:, None, None] * frequencies[None, None]
  positions = positions.astype(X.dtype)[:, :, None, None]
  return positions * frequencies[None, None, None]


def turn(a, b, angle):
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  return a * cos - b * sin, b * cos + a * sin


def on_all(angle):
  return angle if angle.ndim == 4 else angle[None]


def split(x, angle):
  a, b = jnp.split(x, 2, -1)
  return jnp.concatenate(turn(a, b, on_all(angle)), -1)


def rotate_half(x, angle):
  half = x.shape[-1] // 2
  angle = on_all(jnp.concatenate([angle, angle], -1))
  other = jnp.concatenate([-x[..., half:], x[..., :half]], -1)
  return x * jnp.cos(angle) + other * jnp.sin(angle)


def rolled(x, angle):
  half = x.shape[-1] // 2
  sign = jnp.where(jnp.arange(2 * half) < half, -1.0, 1.0)
  angle = on_all(jnp.concatenate([angle, angle], -1))
  other = jnp.roll(x, half, -1) * sign[None, None, None]
  return x * jnp.cos(angle) + other * jnp.sin(angle)


def interleaved(x, angle):
  pair = turn(x[..., ::2], x[..., 1::2], on_all(angle))
  return jnp.stack(pair, -1).reshape(x.shape)


def pairs(x, angle):
  y = x.reshape(*x.shape[:-1], -1, 2)
  pair = turn(y[..., 0], y[..., 1], on_all(angle))
  return jnp.stack(pair, -1).reshape(x.shape)


def repeated(x, angle):
  other = jnp.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)
  angle = on_all(jnp.repeat(angle, 2, -1))
  return x * jnp.cos(angle) + other * jnp.sin(angle)


def complexly(x, angle):
  half = x.shape[-1] // 2
  z = jax.lax.complex(x[..., :half], x[..., half:])
  angle = on_all(angle)
  z = z * jax.lax.complex(jnp.cos(angle), jnp.sin(angle))
  return jnp.concatenate([z.real, z.imag], -1)


def partly(x, angle):
  turned = split(x[..., :4], angle[..., :2])
  return jnp.concatenate([turned, x[..., 4:]], -1)


def partly_interleaved(x, angle):
  turned = interleaved(x[..., :4], angle[..., :2])
  return jnp.concatenate([turned, x[..., 4:]], -1)
