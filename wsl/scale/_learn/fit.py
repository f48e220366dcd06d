"""Learn coefficients by gradient descent."""

from collections.abc import Callable, Iterable, Iterator
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import batches as batches_lib
from wsl import deprecation, optimizers, tree, types
from wsl.scale._bank import banks, base_checks
from wsl.scale._coefs import transforms
from wsl.scale._learn import learning_step


class Fit(NamedTuple):
  """The result of ``fit``.

  Attributes:
    coefs: the coefficients, before ``transform``.
    opt_state: the optimizer's state, to resume from.
    losses: ``[steps]``, the loss of each step before its update.
    aux: the auxiliary state after the last step, or ``None``.
  """

  coefs: Any
  opt_state: Any
  losses: np.ndarray
  aux: types.Tree = None


class StoppedError(RuntimeError):
  """A fit that stopped early; ``result`` holds its last good state.

  Attributes:
    result: a ``Fit``: the last coefficients with a finite loss, and all losses,
      the non-finite one included. In a notebook, after the error:
      ``sys.last_value.result``.
  """

  def __init__(self, message: str, result: Fit) -> None:
    super().__init__(message)
    self.result = result


@deprecation.renamed_argument('scale.fit', 'optimiser', 'optimizer')
def fit(
  objective: Callable[..., types.Array],
  base: types.Params,
  bank: banks.Bank,
  coefs: Any,
  batches: Iterable[Any],
  *,
  optimizer: Any,
  steps: int,
  key: types.PRNGKey,
  transform: Callable[[Any], Any] = transforms.identity,
  project: Callable[[Any], Any] = transforms.identity,
  penalty: Callable[[Any], types.Array] | None = None,
  opt_state: Any = None,
  aux: types.Tree = None,
  progress: Callable[[int, float, Any], None] | None = None,
  stream: bool | None = None,
) -> Fit:
  r"""Minimises an objective of the composed model over the coefficients.

  .. math:: \min_\lambda\; L\bigl(\theta_0 + \textstyle\sum_i \lambda_i
    \tau_i\bigr) + R(\lambda)

  Only the coefficients are differentiated; base and bank are arguments of the
  compiled step, not constants. With ``stream`` the bank stays on the host or on
  disk and is read one leaf of one vector at a time: the coefficients are the
  same, and memory does not grow with T. Each row is read twice per step, the
  minimum: the inner products need a gradient, which needs the whole composed
  model.

  Args:
    objective: a function of (params, batch, key) to a scalar, such as
      ``supervised``; with ``aux``, of (params, aux, batch, key) to (scalar, new
      aux). Arrays bound by a ``jax.tree_util.Partial`` are arguments of the
      step too.
    base: the bank's base.
    bank: T task vectors.
    coefs: the initial value: from ``init``, or an argument of ``transform``;
      for ``optax.lookahead`` a pair ``optax.LookaheadParams`` of it.
    batches: iterated over repeatedly; an iterator is consumed once.
    optimizer: any optax transformation; in memory also one that evaluates the
      loss itself (``optax.lbfgs``). Reuse the same object to compile once; the
      same holds for ``transform``, ``project`` and ``penalty``.
    steps: the number of updates.
    key: the objective's key at step s is ``fold_in(key, s)``.
    transform: maps learned parameters to coefficients: ``softmax``, ``line``.
    project: applied to the learned parameters after each update: ``box``.
    penalty: maps coefficients (after ``transform``) to a number that is added
      to the loss: ``shrinkage``.
    opt_state: the state of an earlier fit to resume; by default a new one.
    aux: arrays that the objective reads and returns updated, such as Flax's
      ``batch_stats``, as in ``train.advance``.
    progress: called with the step, its loss, and the coefficients of that loss.
    stream: whether to read the bank row by row; by default, if any leaf of it
      is on demand. Numpy arrays stay on the host.

  Returns:
    The coefficients, every loss, and the last auxiliary state.

  Raises:
    ValueError: before the first step, if the bank's base differs from the one
      given, an argument is out of range, or the optimizer cannot run.
    StoppedError: if a loss or an update is not finite, or an iterator is
      exhausted; it names the step and holds the last good coefficients.

  Example:
    >>> import jax, jax.numpy as jnp, optax
    >>> from wsl import scale
    >>> base = {'w': jnp.zeros(2)}
    >>> bank = scale.bank(base, [{'w': jnp.ones(2)}])
    >>> distance = lambda p, batch, key: jnp.sum((p['w'] - batch) ** 2)
    >>> found = fit(
    ...   distance, base, bank, scale.init(bank, by='task'), [jnp.full(2, 3.0)],
    ...   optimizer=optax.sgd(0.1), steps=50, key=jax.random.key(0))
    >>> print(f'{found.coefs["task"][0]:.3f}')
    3.000

  Reference:
    Zhang et al., "Knowledge Composition using Task Vectors with Learned
    Anisotropic Scaling", 2024, arXiv:2407.02880.
  """
  tree.check_whole('fit', steps=steps)
  batches_lib.check_iterable(batches, name='fit')
  if steps < 0:
    raise ValueError(f'fit(steps={steps}): expected 0 or more')
  if stream is None:
    stream = tree.on_demand(bank.leaves)
  if not stream and tree.on_demand(bank.leaves):
    raise ValueError(
      'fit(stream=False): the bank has leaves on demand: read it first, or '
      'stream'
    )
  base_checks.check('fit', base, bank)
  tree.check_not_narrowed('fit', base)
  tree.check_not_narrowed('fit', aux, integers=True)
  if penalty is not None:
    value = jax.eval_shape(
      lambda c: penalty(transform(c)), optimizers.fast(coefs)
    )
    if value.shape != ():
      raise ValueError(
        f'fit: the penalty has shape {value.shape}, expected a number, ()'
      )
  step = learning_step.stepper(
    objective,
    base,
    bank,
    optimizer=optimizer,
    transform=transform,
    project=project,
    penalty=penalty,
    stream=stream,
  )
  coefs, aux = jax.tree.map(jnp.asarray, (coefs, aux))
  if opt_state is None:
    opt_state = optimizers.init(optimizer, coefs, caller='fit')
  state = learning_step.State(coefs, opt_state, aux)
  if stream:
    learning_step.check_streamed(optimizer, state)
  return _run(step, state, batches, steps, key, progress)


def _run(
  step: Callable[..., tuple[learning_step.State, types.Array, types.Array]],
  state: learning_step.State,
  batches: Iterable[Any],
  steps: int,
  key: types.PRNGKey,
  progress: Callable[[int, float, Any], None] | None,
) -> Fit:
  """Runs the steps; a loss is read while the next step is computed."""
  losses: list[float] = []
  good = state  # the last whose loss is known to be finite
  pending: Any = None  # (state before, state after, loss, is finite)

  def check_pending() -> None:
    nonlocal good
    before, _, loss, finite = pending
    s = len(losses)
    losses.append(float(loss))
    if not math.isfinite(losses[s]):
      raise _stopped(f'the loss of step {s} is {losses[s]}', good, losses)
    good = before
    if not finite:
      raise _stopped(f'the update of step {s} is not finite', good, losses)
    if progress is not None:
      progress(s, losses[s], before.coefs)

  feed = _cycle(batches)
  for s in range(steps):
    try:
      batch = next(feed)
    except StopIteration:
      if pending is not None:
        check_pending()
        good = state
      raise _stopped(
        f'batches ran out after {s} of {steps} steps, give a list or an '
        'endless iterator',
        good,
        losses,
      ) from None
    after, loss, finite = step(state, batch, jax.random.fold_in(key, s))
    if pending is not None:
      check_pending()
    pending = (state, after, loss, finite)
    state = after
  if pending is not None:
    check_pending()
  return Fit(state.coefs, state.opt_state, np.asarray(losses), state.aux)


def _stopped(
  what: str, state: learning_step.State, losses: list[float]
) -> StoppedError:
  """Returns the error that carries the last good state."""
  return StoppedError(
    f"fit: {what}; this error's result holds the last good coefficients",
    Fit(state.coefs, state.opt_state, np.asarray(losses), state.aux),
  )


def _cycle(batches: Iterable[Any]) -> Iterator[Any]:
  """Cycles over ``batches``; a one-shot iterator is consumed once."""
  again = True
  while again:
    again = False
    for batch in batches:
      again = True
      yield batch
