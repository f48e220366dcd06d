"""The training loop: start, and advance by segments of steps."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from wsl import auxiliary, optimizers, tree, types
from wsl.train import _examples, _shards


class State(NamedTuple):
  """The state of a training run.

  Attributes:
    params: the trained parameters; with ``optax.lookahead`` a pair (fast,
      slow).
    opt_state: the state of the optimizer.
    step: number of steps so far, ``[]``, int32.
    aux: arrays that the loss updates, such as running statistics, or ``None``.
  """

  params: types.Params
  opt_state: Any
  step: types.Array
  aux: types.Tree = None


def adamw(
  learning_rate: types.Scalar,
  *,
  steps: int,
  warmup: float = 0.1,
  weight_decay: float = 0.01,
  clip: float = 1.0,
) -> optax.GradientTransformation:
  """AdamW with clipped gradients, linear warm-up and cosine decay to zero.

  Create the optimizer once and pass the same object to every ``advance``: an
  equal but new object is compiled again.

  Args:
    learning_rate: the peak learning rate.
    steps: number of steps of the whole run.
    warmup: fraction of the steps with linear warm-up.
    weight_decay: decoupled weight decay, multiplied by the learning rate.
    clip: maximal global norm of gradients.

  Returns:
    The optimizer.

  Reference:
    Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2017,
    arXiv:1711.05101.
  """
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, learning_rate, round(warmup * steps), steps
  )
  return optax.chain(
    optax.clip_by_global_norm(clip),
    optax.adamw(schedule, weight_decay=weight_decay),
  )


def start(
  params: types.Params,
  *,
  optimizer: optax.GradientTransformation,
  aux: types.Tree = None,
) -> State:
  """Returns the state before the first step.

  Args:
    params: the initial parameters, float leaves ``[...]``; for
      ``optax.lookahead`` the pair ``optax.LookaheadParams.init_synced(params)``
      of parameters to train (``fast``) and to evaluate (``slow``).
    optimizer: any optax transformation.
    aux: arrays that the loss reads and returns updated, such as Flax's
      ``batch_stats``; ``None`` if it has none.

  Returns:
    The state; ``jax.vmap`` over stacked parameters gives stacked states.

  Raises:
    ValueError: if the optimizer does not accept the parameters.
  """
  for given in (params, aux):
    tree.check_not_narrowed('start', given, integers=True)
  tree.check_real('start', params, 'train its real and imaginary parts')
  opt_state = optimizers.init(optimizer, params, caller='start')
  return State(params, opt_state, jnp.zeros((), jnp.int32), aux)


def advance(
  loss_fn: Callable[..., types.Array],
  state: State,
  data: types.Tree,
  *,
  optimizer: optax.GradientTransformation,
  steps: int,
  batch_size: int,
  key: types.PRNGKey,
) -> tuple[State, types.Array]:
  """Runs ``steps`` optimizer steps.

  Every epoch is a random permutation of the examples that depends only on
  ``key`` and the epoch; the last, incomplete batch of an epoch is dropped.
  As ``state.step`` gives the position in the run, ``advance`` by 40 and then by
  60 steps with one key equals 100 steps.

  A NaN loss does not stop the run: the parameters and all later losses become
  NaN, so check ``losses[-1]``, or skip such steps by ``optax.apply_if_finite``.

  Auxiliary state, such as the running statistics of normalisation, is carried
  by ``start(aux=...)``. The loss of a Flax model with BatchNorm is::

    def loss(params, batch_stats, batch, key):
      logits, new = model.apply(
        {'params': params, 'batch_stats': batch_stats}, batch[0],
        mutable=['batch_stats'])
      return cross_entropy(logits, batch[1]), new['batch_stats']

  On a mesh (``wsl.mesh``), place the parameters before ``start`` and the
  examples before ``advance``, each once; the call is the same::

    state = start(mesh.shard(params, 'model', m), optimizer=optimizer)
    data = mesh.shard(data, jax.P('data'), m)

  The state keeps its sharding, the optimizer's and ``aux`` included: ``start``
  places them as the parameters, or where ``aux`` is. Each batch is sharded over
  ``data`` as the examples are, so that each device differentiates its part, and
  a step sums the gradients; it gathers no parameter unless one is sharded over
  the axis of the examples too. The batches, and so the results to rounding, are
  those of one device. Many runs are candidates: ``mesh.map_candidates`` of a
  function that calls ``start`` and ``advance``.

  Compiles once for each ``loss_fn``, ``optimizer``, ``steps``, ``batch_size``
  and shapes; pass the same objects again, not new lambdas.

  Args:
    loss_fn: maps (params, batch, key) to a scalar; ``batch`` is like ``data``
      with leaves ``[batch_size, ...]``, ``key`` is new at every step. If the
      state has ``aux``, maps (params, aux, batch, key) to (scalar, new aux).
    state: from ``start`` or an earlier ``advance``.
    data: examples, every leaf ``[N, ...]``.
    optimizer: the transformation given to ``start``. Its update receives those
      of ``value``, ``grad``, ``value_fn``, ``obj_fn`` and ``grad_fn`` that it
      accepts: the loss of this step, its gradient, and both as functions of the
      parameters. So line searches (``optax.lbfgs``), ``optax.polyak_sgd``,
      ``optax.contrib.reduce_on_plateau`` and ``optax.lookahead`` work. L-BFGS
      collects the curvature of different batches unless ``batch_size`` is N.
    steps: number of steps.
    batch_size: examples in a batch, at most N.
    key: seeds the permutations and the keys of ``loss_fn``; the same for all
      segments of a run.

  Returns:
    The new state, and the loss of every step before its update, ``[steps]``.

  Raises:
    ValueError: before the first step, if the data has fewer than
      ``batch_size`` examples or leaves of different lengths or shardings, if a
      number is out of range, if ``batch_size`` is no multiple of the devices
      over which examples are sharded, if the optimizer cannot run, or if the
      auxiliary state that the loss returns differs in structure, shape or
      dtype.

  Example:
    >>> loss = lambda w, x, key: jnp.mean(jnp.square(x - w))
    >>> optimizer = optax.sgd(0.1)
    >>> state = start(jnp.zeros(()), optimizer=optimizer)
    >>> state, losses = advance(
    ...   loss, state, jnp.full(8, 3.0), optimizer=optimizer,
    ...   steps=50, batch_size=4, key=jax.random.key(0))
    >>> print(f'{state.params:.3f}', losses.shape)
    3.000 (50,)
  """
  tree.check_whole('advance', steps=steps)
  if steps < 0:
    raise ValueError(f'advance: steps={steps}: expected 0 or more')
  count = _examples.count(data, batch_size, caller='advance')
  if count < batch_size:
    raise ValueError(
      f'advance: batch_size={batch_size}, but data has only {count} examples: '
      f'choose batch_size <= {count}'
    )
  for given in (state.params, state.aux):
    tree.check_not_narrowed('advance', given, integers=True)
  split = _shards.split(data, caller='advance')
  if batch_size % split.shards:
    raise ValueError(
      f'advance: batch_size={batch_size}, but the examples are sharded over '
      f'{split.shards} devices: choose a multiple'
    )
  loss_fn = tree.partial(loss_fn)
  where = _shards.places(state), split
  return _advance(
    loss_fn, state, data, key, optimizer, steps, batch_size, where
  )


@functools.partial(jax.jit, static_argnums=(4, 5, 6, 7))
def _advance(
  loss_fn: Callable[..., types.Array],
  state: State,
  data: types.Tree,
  key: types.PRNGKey,
  optimizer: optax.GradientTransformation,
  steps: int,
  batch_size: int,
  where: tuple[_shards.Places, _shards.Split],
) -> tuple[State, types.Array]:
  """Runs the steps in one scan over batch indices."""
  places, split = where
  order_key, noise_key = jax.random.split(key)
  count = len(jax.tree.leaves(data)[0])

  def step(state: State, indices: types.Array) -> tuple[State, types.Array]:
    batch = _shards.take(data, indices, split)
    noise = jax.random.fold_in(noise_key, state.step)
    loss_of = lambda params: auxiliary.loss_and_aux(
      loss_fn, params, state.aux, batch, noise, caller='advance', start='start'
    )
    (loss, aux), grads = jax.value_and_grad(loss_of, has_aux=True)(
      optimizers.fast(state.params)
    )
    params, opt_state = optimizers.step(
      optimizer,
      grads,
      state.opt_state,
      state.params,
      value=loss,
      value_fn=lambda params: loss_of(params)[0],
      caller='advance',
    )
    new = State(params, opt_state, state.step + 1, aux)
    return _shards.keep(new, places), loss

  rows = _examples.batch_indices(
    order_key, state.step, steps, count, batch_size
  )
  return jax.lax.scan(step, state, rows)
