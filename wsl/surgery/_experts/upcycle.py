"""Sparse upcycling: experts that start as copies of a dense perceptron."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types


def upcycle(
  params: types.Params,
  *,
  experts: int,
  width: int,
  key: types.PRNGKey,
  mlps: str = r'^block_\d+/mlp/',
  deviation: types.Scalar = 0.02,
  noise: types.Scalar = 0.0,
) -> types.Params:
  r"""Replaces perceptrons by mixtures of copies of themselves.

  .. math:: \theta_e = \theta \odot (1 + \nu z_e), \qquad
    W \sim \mathcal N(0, \sigma^2)

  The function of the model does not change if :math:`\nu = 0`, the gates of
  every token sum to 1 (``models.MoE(normalise=True)``, any k) and no token is
  dropped (no capacity, or one of E / k at least): then the gates weight equal
  values. It changes by a factor of each token otherwise: with gates that are
  not normalised the perceptron's output is multiplied by their sum, and a
  dropped token has output 0.

  Args:
    params: a dense model, such as a ``models.LanguageModel`` or
      ``models.ViT``; in memory or on demand.
    experts: E, ``>= 1``.
    width: the size d of a token, which is the input of the routers.
    key: a random key.
    mlps: a regular expression. The leaves whose names it matches are copied;
      the name up to the end of the match, or of its first group, is that of a
      perceptron, and ends with ``/`` (``.`` in flat dicts of PyTorch):
      ``r'^(encoder\.layer\.\d+\.)(intermediate|output)\.dense'`` for BERT.
      ``''`` if ``params`` is one.
    deviation: the standard deviation sigma of the routers, ``>= 0``. With 0 all
      experts tie, and every token is routed to the first k.
    noise: nu, the relative standard deviation of noise in the experts,
      ``>= 0``. Tokens that are routed differently make experts differ without
      any noise.

  Returns:
    The model in nested dicts, with ``router/kernel`` ``[d, E]`` and, under
    ``experts``, leaves ``[E, ...]`` in the place of each perceptron: the
    parameters of the model with ``experts=E``.

  Raises:
    ValueError: if a number is out of range or no leaf matches.

  Example:
    >>> from wsl import models
    >>> dense = models.ViT(outputs=3, width=8, depth=1, heads=2)
    >>> x = jnp.ones((1, 14, 14, 1))
    >>> params = jax.eval_shape(dense.init, jax.random.key(0), x)['params']
    >>> found = jax.eval_shape(lambda p: upcycle(
    ...   p, experts=4, width=8, key=jax.random.key(1)), params)
    >>> mlp = found['block_0']['mlp']
    >>> mlp['experts']['up']['kernel'].shape, mlp['router']['kernel'].shape
    ((4, 8, 16), (8, 4))

  Reference:
    Komatsuzaki et al., "Sparse Upcycling: Training Mixture-of-Experts from
    Dense Checkpoints", 2022, arXiv:2212.05055.

  Differs from the official code in that it converts every matched perceptron,
  where the paper's models convert every other or the last ones: write the
  expression for those.
  """
  for name, value in (('experts', experts), ('width', width)):
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < 1:
      raise ValueError(f'upcycle({name}={value!r}): expected an integer >= 1')
  tree.check_scalars('upcycle', deviation=deviation, noise=noise)
  for name, scale in (('deviation', deviation), ('noise', noise)):
    if not tree.is_traced(scale) and scale < 0:
      raise ValueError(f'upcycle({name}={scale}): expected a number >= 0')
  # sum_e g_e f(x) = f(x) sum_e g_e: copies weighted by gates that sum to 1 are
  # the perceptron, whatever the router.
  pattern = tree.compiled(mlps)
  leaves = tree.named(params)
  prefixes = {name: _prefix(pattern, name) for name in leaves}
  if not any(p is not None for p in prefixes.values()):
    raise ValueError(
      f'upcycle(mlps={mlps!r}): no leaf matches, the names are '
      f'{list(leaves)[:3]}'
    )
  for name, leaf in leaves.items():
    if prefixes[name] is not None and not tree.is_float(leaf):
      raise ValueError(
        f"upcycle: leaf '{name}' is {leaf.dtype}: quantised? dequantise first"
      )
  found: dict[str, Any] = {}
  dtypes: dict[str, Any] = {}
  for name, leaf in leaves.items():
    prefix = prefixes[name]
    if prefix is None:
      found[name] = leaf
      continue
    joined = f'{prefix}experts{_separator(prefix)}{name[len(prefix) :]}'
    count = tree.Static(int(experts))
    if not tree.is_traced(noise) and noise == 0:
      found[joined] = tree.apply_kernel(_copies, leaf, count=count)
    else:
      words = jax.random.key_data(tree.name_key(key, name))
      found[joined] = tree.apply_kernel(
        _noisy_copies, leaf, words, noise=noise, count=count
      )
    known = dtypes.get(prefix, leaf.dtype)
    dtypes[prefix] = np.promote_types(known, leaf.dtype)
  for prefix, dtype in dtypes.items():
    draw = jax.random.normal(
      tree.name_key(key, f'{prefix}router'), (width, experts), jnp.float32
    )
    kernel = draw * jnp.asarray(deviation).astype(draw.dtype)
    joined = f'{prefix}router{_separator(prefix)}kernel'
    cast = tree.Static(dtype)
    found[joined] = tree.apply_kernel(tree.cast_leaf, kernel, dtype=cast)
  return tree.nest(found, separator='/')


def _separator(prefix: str) -> str:
  """Returns the separator of a name: ``/``, or ``.`` in flat dicts."""
  return prefix[-1:] or '/'


def _prefix(pattern: re.Pattern[str], name: str) -> str | None:
  """Returns the name of the perceptron of a leaf, with its separator."""
  match = pattern.search(name)
  if match is None:
    return None
  prefix = name[: match.end(1 if pattern.groups else 0)]
  if prefix and prefix[-1] not in '/.':
    raise ValueError(
      f"upcycle: mlps matches '{prefix}' of leaf '{name}': end the expression "
      "with '/' (or '.'), where the name of the perceptron ends"
    )
  return prefix


def _copies(x: types.Array, *, count: int) -> types.Array:
  """Returns copies ``[E, ...]`` of a leaf."""
  return jnp.broadcast_to(x[None], (count, *x.shape))


def _noisy_copies(
  x: types.Array, words: types.Array, *, noise: types.Scalar, count: int
) -> types.Array:
  """Returns copies ``[E, ...]`` of a leaf, each with noise of its own."""
  wide = _copies(tree.wide(x), count=count)
  key = jax.random.wrap_key_data(words)
  z = jax.random.normal(key, wide.shape, wide.dtype)
  scale = 1 + jnp.asarray(noise).astype(wide.dtype) * z
  return (wide * scale).astype(x.dtype)
