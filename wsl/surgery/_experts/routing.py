"""Statistics of the routers of a mixture of experts."""

from collections.abc import Callable, Iterable, Mapping
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import batches as batches_lib
from wsl import models, tree, types


class Routing(NamedTuple):
  """How the tokens of some data are routed in one layer.

  Attributes:
    tokens: the number N of tokens.
    usage: the fraction of the choices that are each expert, ``[E]``; sums to 1.
    mass: the mean gate of each expert, ``[E]``; sums to 1 if gates do.
    gram: the mean of the products of logits, ``[E, E]``.
  """

  tokens: types.Array
  usage: types.Array
  mass: types.Array
  gram: types.Array


def routing(
  logits_fn: Callable[[types.Params, Any], Mapping[str, types.Array]],
  params: types.Params,
  batches: Iterable[Any],
  *,
  top_k: int = 1,
  normalise: bool = True,
) -> dict[str, Routing]:
  r"""Measures how often experts are chosen, and how similar their logits are.

  .. math:: f_e = \frac{1}{k N} \sum_{i=1}^{N} [e \in K_i], \qquad
    G_{ef} = \frac{1}{N} \sum_{i=1}^{N} s_{ie} s_{if}

  with the logits s of N tokens and the k best experts :math:`K_i` of each.
  Streams over batches.

  Args:
    logits_fn: a hashable function from (params, inputs) to the logits
      ``[..., E]`` of each layer, by name: ``lambda p, x:
      models.router_logits(model, p, x)[1]``.
    params: of the model.
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``.
    top_k: k; 1 in M-SMoE, whatever the model uses.
    normalise: whether the gates of ``mass`` sum to 1 for each token.

  Returns:
    A ``Routing`` for each layer, in float32 or wider.

  Raises:
    ValueError: if there are no batches, or ``top_k`` is out of range.

  Example:
    >>> logits = lambda params, x: {'layer': x}
    >>> x = jnp.asarray([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [1.0, 0.0]])
    >>> found = routing(logits, {}, [x[:3], x[3:]])['layer']
    >>> int(found.tokens), found.usage.tolist(), found.gram.tolist()
    (4, [0.75, 0.25], [[3.5, 0.5], [0.5, 0.5]])

  Reference:
    Li et al., "Merge, Then Compress: Demystify Efficient SMoE with Hints from
    Its Routing Policy", 2023, arXiv:2310.01334.
  """
  total: dict[str, Routing] | None = None
  for batch in batches_lib.stream(batches, name='routing'):
    sums = _sums(
      logits_fn, top_k, normalise, params, batches_lib.inputs_of(batch)
    )
    total = sums if total is None else jax.tree.map(jnp.add, total, sums)
  return {} if total is None else _means(total)


def router_similarity(routing: Routing) -> np.ndarray:
  r"""Returns the similarity of experts by their logits on the same tokens.

  .. math:: S_{ef} = \tfrac{1}{2} \Big( 1 + \frac{G_{ef}}{\sqrt{G_{ee} G_{ff}}}
    \Big)

  the cosine of two columns of the matrix of logits, mapped to 0 .. 1. An expert
  whose logits are all 0 has cosine 0 to all.

  Args:
    routing: of one layer.

  Returns:
    float64 ``[E, E]``.

  Example:
    >>> gram = np.asarray([[1.0, -1.0], [-1.0, 1.0]])
    >>> router_similarity(Routing(1, np.ones(2), np.ones(2), gram)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]

  Reference:
    Li et al., "Merge, Then Compress: Demystify Efficient SMoE with Hints from
    Its Routing Policy", 2023, arXiv:2310.01334.
  """
  # The columns of the token x expert matrix of logits have the products G and
  # the norms sqrt(G_ee), up to 1 / N: no logits have to be kept.
  gram = np.asarray(routing.gram, np.float64)
  norm = np.sqrt(np.diag(gram))
  scale = norm[:, None] * norm
  cosine = gram / np.where(scale > 0, scale, 1)
  return 0.5 * (1 + cosine)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sums(
  logits_fn: Callable[..., Mapping[str, types.Array]],
  top_k: int,
  normalise: bool,
  params: types.Params,
  inputs: Any,
) -> dict[str, Routing]:
  """Returns the sums over the tokens of a batch."""
  return {
    name: _layer_sums(logits, top_k, normalise)
    for name, logits in logits_fn(params, inputs).items()
  }


def _layer_sums(logits: types.Array, top_k: int, normalise: bool) -> Routing:
  """Returns the sums over the tokens of one layer."""
  s = tree.wide(logits.reshape(-1, logits.shape[-1]))
  gates = models.top_k_gates(s, top_k=top_k, normalise=normalise)
  # A gate is positive where the expert is chosen, unless exp underflows: the
  # choice itself is counted.
  best = jax.lax.top_k(s, top_k)[1]
  hot = jax.nn.one_hot(best, s.shape[-1], dtype=s.dtype)
  usage = jnp.sum(hot, (0, 1)) / top_k
  return Routing(
    jnp.asarray(len(s), s.dtype), usage, jnp.sum(gates, 0), tree.matmul(s.T, s)
  )


@jax.jit
def _means(total: dict[str, Routing]) -> dict[str, Routing]:
  """Divides sums by the number of tokens."""
  return {
    name: Routing(t.tokens, *(x / t.tokens for x in t[1:]))
    for name, t in total.items()
  }
