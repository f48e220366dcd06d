"""Training in which stages of the model are lost at random."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple, TYPE_CHECKING

import jax
import jax.numpy as jnp

from wsl import optimizers, tree, types
from wsl.surgery._recover import repair as repair_lib
from wsl.surgery._recover import stages as stages_lib

if TYPE_CHECKING:
  import optax

RECOVERIES = ('average', 'uniform', 'copy', 'initial', 'checkpoint')


class Failures(NamedTuple):
  """A training run with failures.

  Attributes:
    params: after the last step.
    losses: before each step, ``[N]``; after a failure that of the repaired
      model.
    failed: the stages that were lost before each step, bools ``[N, S]``.
    redone: for each step how many steps were lost: those since the last
      checkpoint, ``[N]``, int32; 0 unless ``recovery='checkpoint'``.
  """

  params: types.Params
  losses: types.Array
  failed: types.Array
  redone: types.Array


def simulate_failures(
  loss_fn: Callable[[types.Params, Any], types.Array],
  params: types.Params,
  optimizer: 'optax.GradientTransformation',
  batches: Any,
  *,
  rate: float,
  key: types.PRNGKey,
  blocks: str = 'blocks',
  recovery: str = 'average',
  swap: bool = False,
  rescale: float = 1.1,
  every: int = 100,
) -> Failures:
  r"""Trains a model whose pipeline stages are lost at random.

  Before each step every stage is lost with probability ``rate``, unless all of
  them would be. Lost stages are replaced, their state of the optimizer starts
  again, and their updates are multiplied by ``rescale`` from then on. The rest
  of the model, embedding and head, is not lost. One program, compiled once; a
  run without failures has ``rate=0``.

  Args:
    loss_fn: a hashable function ``(params, batch) -> loss``.
    params: a dict with the leaves ``[S, ...]`` of S stages in ``blocks``, such
      as ``models.segments`` returns.
    optimizer: of optax.
    batches: leaves ``[N, ...]``, one batch for each of the N steps.
    rate: the probability of a failure, of a stage and a step, 0 to 1.
    key: a random key of the failures.
    blocks: the name of the subtree with the stages.
    recovery: how a stage is replaced.

      - ``'average'``: CheckFree, by the mean of its neighbours with the norms
        of their last gradients as weights, plus 1e-4;
      - ``'uniform'``: the mean with equal weights;
      - ``'copy'``: the nearest stage before it, or after it at the start;
      - ``'initial'``: its initial value;
      - ``'checkpoint'``: all of the model and of the optimizer's state return
        to the copy that is made every ``every`` steps, and ``redone`` counts
        the steps that this costs.

    swap: whether every second step runs the stages in ``swapped_order``, as
      CheckFree+ does for half of its micro-batches.
    rescale: the factor of the learning rate of recovered stages; 1.1 in the
      official code for the smallest model, 1 with a checkpoint.
    every: the number of steps between checkpoints, at least 1.

  Returns:
    The parameters, the losses and the failures.

  Raises:
    ValueError: if an argument is out of range, or the leaves of ``blocks`` do
      not stack the same number of stages.

  Example:
    >>> import jax, jax.numpy as jnp, optax
    >>> params = {'blocks': {'w': jnp.zeros(3)}}
    >>> loss = lambda p, x: jnp.sum((p['blocks']['w'] - x) ** 2)
    >>> found = simulate_failures(
    ...   loss, params, optax.sgd(0.25), jnp.ones(20), rate=0.1,
    ...   key=jax.random.key(0),
    ... )
    >>> found.failed.shape, bool(found.losses[-1] < 1e-3)
    ((20, 3), True)

  Reference:
    Blagoev et al., "All is Not Lost: LLM Recovery without Checkpoints", 2025,
    arXiv:2506.15461.

  Differs from the official code in the norms, which are clipped at 1 there, so
  that the mean is often a plain one; and in several failures at once, for which
  the nearest survivors are taken here.
  """
  tree.check_scalars('simulate_failures', rate=rate, rescale=rescale)
  tree.check_whole('simulate_failures', every=every)
  if not 0 <= rate <= 1:
    raise ValueError(f'simulate_failures: rate={rate}: expected 0 to 1')
  if recovery not in RECOVERIES:
    hint = tree.nearest(recovery, RECOVERIES)
    raise ValueError(
      f'simulate_failures: recovery={recovery!r}: expected one of '
      f'{list(RECOVERIES)}{hint}'
    )
  if every < 1:
    raise ValueError(f'simulate_failures: every={every}: expected at least 1')
  if not isinstance(params, dict) or blocks not in params:
    raise ValueError(
      f"simulate_failures: params have no subtree '{blocks}': name the stages "
      'by blocks='
    )
  stages_lib.count('simulate_failures', params[blocks])
  run = functools.partial(_train, loss_fn, optimizer, blocks, recovery, swap)
  rate *= 1.0  # the probability of a draw is a float, also 0 and 1
  return run(params, batches, key, rate=rate, rescale=rescale, every=every)


class _Carry(NamedTuple):
  """The state of a run between two steps.

  Attributes:
    params, state: of the model and of the optimizer.
    saved: the last checkpoint of both.
    norms: the gradient norm of each stage in the last step, ``[S]``.
    factors: by which the updates of each stage are multiplied, ``[S]``.
  """

  params: types.Params
  state: Any
  saved: Any
  norms: types.Array
  factors: types.Array


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _train(
  loss_fn: Callable[[types.Params, Any], types.Array],
  optimizer: Any,
  blocks: str,
  recovery: str,
  swap: bool,
  params: types.Params,
  batches: Any,
  key: types.PRNGKey,
  *,
  rate: types.Array,
  rescale: types.Array,
  every: types.Array,
) -> Failures:
  """Runs the steps in one scan."""
  steps = len(jax.tree.leaves(batches)[0])
  count = len(jax.tree.leaves(params[blocks])[0])
  failed = jax.random.bernoulli(key, rate, (steps, count))
  failed &= ~jnp.all(failed, axis=1, keepdims=True)
  order = jnp.asarray(stages_lib.swapped_order(count) if swap else range(count))
  fresh = optimizers.init(optimizer, params, caller='simulate_failures')
  initial = params[blocks]

  def repair(run: _Carry, lost: types.Array) -> _Carry:
    """Replaces the lost stages and their state of the optimizer."""
    if recovery == 'checkpoint':
      model, state = repair_lib.choose(jnp.any(lost), run.saved, run[:2])
      return run._replace(params=model, state=state)
    factors = jnp.where(lost, rescale.astype(run.factors.dtype), run.factors)
    stages = repair_lib.replaced(
      run.params[blocks], initial, lost, run.norms, recovery
    )
    inside = {k: jax.tree.map(lambda _: False, v) for k, v in params.items()}
    inside[blocks] = jax.tree.map(
      lambda x: repair_lib.by_stage(lost, x), stages
    )
    marked = repair_lib.of_state(optimizer, run.state, inside)
    state = jax.tree.map(jnp.where, marked, fresh, run.state)
    return _Carry(
      {**run.params, blocks: stages}, state, run.saved, run.norms, factors
    )

  def step(run: _Carry, now: Any) -> tuple[_Carry, Any]:
    k, batch, lost = now
    if recovery == 'checkpoint':
      run = run._replace(
        saved=repair_lib.choose(k % every == 0, run[:2], run.saved)
      )
    run = repair(run, lost)
    # The gradient flows back through the index: stages keep their places.
    turn = jnp.where(k % 2 == 1, order, jnp.arange(count))

    def value_fn(params: types.Params) -> types.Array:
      if swap:
        turned = jax.tree.map(lambda x: x[turn], params[blocks])
        params = {**params, blocks: turned}
      return loss_fn(params, batch)

    value, gradient = jax.value_and_grad(value_fn)(run.params)
    moved, state = optimizers.step(
      optimizer, gradient, run.state, run.params,
      value=value, value_fn=value_fn, caller='simulate_failures',
    )  # fmt: skip
    moved[blocks] = jax.tree.map(
      lambda old, new: repair_lib.scaled(old, new, run.factors),
      run.params[blocks],
      moved[blocks],
    )
    norms = repair_lib.norms(gradient[blocks])
    redone = jnp.where(jnp.any(lost), k % every, 0)
    run = _Carry(moved, state, run.saved, norms, run.factors)
    return run, (value, redone if recovery == 'checkpoint' else 0 * redone)

  begin = _Carry(
    params,
    fresh,
    (params, fresh),
    repair_lib.norms(initial) * 0,
    jnp.ones(count),
  )
  now = jnp.arange(steps), batches, failed
  end, (losses, redone) = jax.lax.scan(step, begin, now)
  return Failures(end.params, losses, failed, redone)
