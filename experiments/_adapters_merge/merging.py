"""Merges of the LoRAs of a pool, and the scores of all tasks."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from experiments._adapters_merge import problems, settings, training
from wsl import adapters, merge, tree, types

Stack: TypeAlias = dict[str, adapters.Factors]


def call(
  setting: settings.Setting, name: str, rank: int | None = None
) -> Callable[[Stack], Any]:
  """Returns a merge as a function of the LoRAs of one seed, ``[T, ...]``.

  Args:
    setting: config and tasks.
    name: of the merge.
    rank: of the result of ``lego`` and ``truncated``; that of a LoRA by
      default.

  Returns:
    A function that returns the task vector of each task by the name of the
    leaf, ``[T, ...]``; those of a merge are equal.
  """
  config, count = setting.config, len(setting.problem.names)
  ties = functools.partial(merge.ties, density=config.density)

  def family(stack: Stack) -> Any:
    found = merge.rmm(stack, basis=config.basis)
    return tree.stack(
      [adapters.dense(merge.materialize(found, t)) for t in range(count)]
    )

  if name == 'experts':
    return adapters.dense
  if name == 'rmm':
    return family
  methods: dict[str, Callable[[Stack], Any]] = {
    'sum': merge.sum,
    'separate': functools.partial(_on_factors, method=merge.sum),
    'ties': ties,
    'ties_factors': functools.partial(_on_factors, method=ties),
    'knots': functools.partial(merge.knots, method=ties),
    'tsv': merge.tsv,
    'lego': functools.partial(adapters.lego, rank=rank),
    'lego_invariant': functools.partial(
      adapters.lego, rank=rank, invariant=True
    ),
    'truncated': functools.partial(
      _truncated, rank=config.lora.rank if rank is None else rank
    ),
  }

  def merged(stack: Stack) -> Any:
    found = adapters.dense(methods[name](stack))
    repeat = lambda x: jnp.broadcast_to(x, (count, *x.shape))
    return jax.tree.map(repeat, found)

  return merged


def _on_factors(stack: Stack, *, method: Callable[..., Any]) -> Any:
  """Merges A and B separately, as arrays: the product has cross terms.

  This is no merge of task vectors; it is a control.
  """
  merged = method({k: {'a': x.a, 'b': x.b} for k, x in stack.items()})
  return {
    k: dataclasses.replace(x, a=merged[k]['a'], b=merged[k]['b'], scale=1.0)
    for k, x in stack.items()
  }


def _truncated(stack: Stack, *, rank: int) -> Any:
  """Returns the nearest matrices of a rank to the exact sums."""
  found, before = {}, jnp.zeros(0)
  for name, x in adapters.dense(merge.sum(stack)).items():
    # Decompositions of one program have to follow each other on a CPU.
    part = tree.leading(tree.after(x, before), rank)
    left = tree.matmul(part.u, part.core)
    found[name] = tree.matmul(left, jnp.matrix_transpose(part.v))
    before = found[name]
  return found


def measure(
  setting: settings.Setting,
  base: types.Params,
  stack: Stack,
  merged: Callable[[Stack], Any],
  coefs: Sequence[float],
  every: bool = False,
) -> dict[str, Any]:
  """Scores a merge at every coefficient, seed and task.

  The coefficient is chosen on the validation examples, for all seeds together.

  Args:
    setting: config and tasks.
    base: ``[S, ...]``.
    stack: the LoRAs, ``[S, T, ...]``.
    merged: from ``call``.
    coefs: L coefficients.
    every: whether the test has all coefficients, not the chosen one alone.

  Returns:
    ``validation`` scores ``[L][S][T]``, the chosen ``coef``, and ``test``
    scores of the ``tested`` coefficients.
  """
  problem = setting.problem
  delta = jax.jit(jax.vmap(merged))(stack)
  score = _scores(problem.score)
  heads = problems.heads_of(problem, base)

  def of(coefs: Sequence[float], examples: Any) -> np.ndarray:
    values = jnp.asarray(coefs, jnp.float32)
    found = score(base['body'], delta, heads, examples, values)
    return np.asarray(found, np.float64)

  validation = of(coefs, problem.validation)
  coef = float(coefs[int(validation.mean((1, 2)).argmax())])
  tested = list(coefs) if every else [coef]
  return {
    'coef': coef,
    'tested': tested,
    'validation': validation.tolist(),
    'test': of(tested, problem.test).tolist(),
  }


@functools.lru_cache(maxsize=2)
def _scores(score: Callable[..., types.Array]) -> Callable[..., types.Array]:
  """Returns the program of all scores, ``[L, S, T]``."""

  @jax.jit
  def run(
    bodies: types.Params,
    delta: Any,
    heads: types.Params,
    examples: Any,
    coefs: types.Array,
  ) -> types.Array:
    def at(coef: types.Array) -> types.Array:
      def of_seed(operands: Any) -> types.Array:
        body, delta, heads = operands

        def of_task(operands: Any) -> types.Array:
          delta, head, own = operands
          return score(training.add(body, delta, coef), head, own)

        return jax.lax.map(of_task, (delta, heads, examples))

      return jax.lax.map(of_seed, (bodies, delta, heads))

    return jax.lax.map(at, coefs)

  return run
