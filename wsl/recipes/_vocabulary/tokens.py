"""The tokens of the output, and the row of each in every model."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from wsl.recipes import _folder, _recipe


class Vocabulary(NamedTuple):
  """The rows of the output.

  Attributes:
    tokenizer: the tokenizer of the output, of the package ``tokenizers``.
    tokens: its tokens by row.
    size: the number of rows, those of padding included.
    rows: the row of each token in each model, -1 if it has none.
    models: the row of each of its own tokens in every model.
    lengths: the number of rows of each model.
    notes: what the recipe did not state.
  """

  tokenizer: Any
  tokens: dict[str, int]
  size: int
  rows: dict[_recipe.Model, np.ndarray]
  models: dict[_recipe.Model, dict[str, int]]
  lengths: dict[_recipe.Model, int]
  notes: list[str]


def read(
  recipe: _recipe.Recipe, folders: Mapping[_recipe.Model, _folder.Folder]
) -> Vocabulary | None:
  """Returns the vocabulary that a recipe asks for, or None.

  Raises:
    ValueError: if a model has no tokenizer.json, or no number of rows.
  """
  asked = recipe.tokenizer
  if asked is None:
    return None
  loaded = {m: _tokenizer(m, folder) for m, folder in folders.items()}
  lengths = {m: _length(m, folder) for m, folder in folders.items()}
  leader = recipe.base or next(iter(folders))
  source = asked.source if isinstance(asked.source, _recipe.Model) else leader
  # A copy: tokens are added to it.
  out = type(loaded[source]).from_str(loaded[source].to_str())
  notes = []
  if asked.source == 'union':
    order = [leader, *(m for m in folders if m != leader)]
    added = _add_all(
      out, [loaded[m] for m in order], [lengths[m] for m in order]
    )
    notes.append(f'vocabulary: {added} tokens are added to those of {leader}')
  out.add_tokens([t for t in asked.tokens if out.token_to_id(t) is None])
  tokens = out.get_vocab(with_added_tokens=True)
  count = max(tokens.values(), default=-1) + 1
  multiple = asked.multiple or 1
  vocabularies = {m: _vocabulary(loaded[m], lengths[m]) for m in folders}
  rows = {m: np.full(count, -1) for m in folders}
  for model, vocabulary in vocabularies.items():
    for token, row in tokens.items():
      rows[model][row] = vocabulary.get(token, -1)
  size = -(-count // multiple) * multiple
  return Vocabulary(out, tokens, size, rows, vocabularies, lengths, notes)


def _tokenizer(model: _recipe.Model, folder: _folder.Folder) -> Any:
  """Reads tokenizer.json."""
  try:
    import tokenizers
  except ImportError:
    raise ValueError(
      'tokenizer: needs the package tokenizers: pip install tokenizers'
    ) from None
  file = _folder.beside(folder.path) / 'tokenizer.json'
  if not file.is_file():
    raise ValueError(
      f'tokenizer: {model} has no tokenizer.json: save its fast tokenizer there'
    )
  try:
    return tokenizers.Tokenizer.from_file(str(file))
  except Exception as error:  # the package raises plain exceptions
    reason = ' '.join(str(error).split())
    raise ValueError(f'tokenizer: {file} is not read: {reason}') from None


def _length(model: _recipe.Model, folder: _folder.Folder) -> int:
  """Returns the number of rows of a model's vocabulary."""
  found = (folder.config or {}).get('vocab_size')
  if type(found) is not int:
    raise ValueError(f"tokenizer: the config of {model} has no 'vocab_size'")
  return found


def _vocabulary(tokenizer: Any, length: int) -> dict[str, int]:
  """Returns the row of each token that has one."""
  vocabulary = tokenizer.get_vocab(with_added_tokens=True)
  return {token: row for token, row in vocabulary.items() if row < length}


def _add_all(out: Any, loaded: Sequence[Any], lengths: Sequence[int]) -> int:
  """Adds the tokens of all models: regular ones first, in order of rows."""
  before = out.get_vocab_size(with_added_tokens=True)
  regular: list[str] = []
  added: list[Any] = []
  for tokenizer, length in zip(loaded, lengths):
    special = tokenizer.get_added_tokens_decoder()
    names = {token.content for token in special.values()}
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    ordered = sorted(vocabulary.items(), key=lambda item: item[1])
    regular += [t for t, i in ordered if t not in names and i < length]
    added += [special[i] for i in sorted(special) if i < length]
  has = lambda token: out.token_to_id(token) is not None
  names = {token.content for token in added}
  out.add_tokens(
    [t for t in dict.fromkeys(regular) if not has(t) and t not in names]
  )
  for token in added:
    if not has(token.content):
      out.add_special_tokens([token]) if token.special else out.add_tokens(
        [token]
      )
  return out.get_vocab_size(with_added_tokens=True) - before
