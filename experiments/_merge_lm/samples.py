"""Text that models write after the first bytes of a held-out window."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from experiments._merge_lm import settings
from experiments._shared import side_by_side
from experiments._shared.texts import language
from wsl import types


def write(
  setting: settings.Setting, models: dict[str, types.Params]
) -> list[dict[str, str]]:
  """Lets models continue a test window of each domain.

  Args:
    setting: config, texts and model.
    models: by name; a domain's own expert has the name of the domain and
      continues its window only.

  Returns:
    A dict for each domain and model: ``domain``, ``model``, ``prompt`` and
    ``text``.
  """
  config, corpus = setting.config, setting.corpus
  prompts = jnp.asarray(corpus.test[:, 0, 1:])
  run = _continue(
    setting.model, config.samples.bytes, config.samples.temperature
  )
  key = side_by_side.keys(config.seed, 7, 1)[0]
  found = []
  for name, params in models.items():
    texts = run(params, prompts, key)
    found += [
      {
        'domain': domain,
        'model': name,
        'prompt': _text(corpus.test[d, 0, 1:]),
        'text': _text(texts[d]),
      }
      for d, domain in enumerate(corpus.names)
      if name == domain or name not in corpus.names
    ]
  return sorted(found, key=lambda row: corpus.names.index(row['domain']))


@functools.lru_cache(maxsize=2)
def _continue(
  model: Any, count: int, temperature: float
) -> Callable[..., types.Array]:
  """Returns a function from (params, prompts ``[D, S]``, key) to bytes.

  The last S bytes are the context of the next, so that all steps are one
  program.
  """

  @jax.jit
  def run(
    params: types.Params, prompts: types.Array, key: types.PRNGKey
  ) -> types.Array:
    def step(
      context: types.Array, key: types.PRNGKey
    ) -> tuple[types.Array, types.Array]:
      logits = language.apply_fn(model)(params, context)[:, -1]
      drawn = jax.random.categorical(key, logits / temperature)
      drawn = drawn.astype(jnp.int32)
      return jnp.concatenate([context[:, 1:], drawn[:, None]], 1), drawn

    keys = jax.random.split(key, count)
    _, drawn = jax.lax.scan(step, prompts.astype(jnp.int32), keys)
    return drawn.T.astype(jnp.uint8)

  return run


def _text(tokens: Any) -> str:
  """Decodes bytes as UTF-8; wrong ones are replaced."""
  return bytes(tokens.tolist()).decode('utf-8', errors='replace')
