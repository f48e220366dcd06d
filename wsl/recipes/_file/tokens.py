"""Reading what a recipe says about tokenizers."""

from collections.abc import Mapping
from typing import Any

from wsl.recipes import _recipe
from wsl.recipes._file import fields


def parse(content: Mapping[str, Any], where: str) -> _recipe.Tokenizer | None:
  """Reads ``tokenizer_source``, or the ``tokenizer`` block."""
  short, block = content.get('tokenizer_source'), content.get('tokenizer')
  if short is not None and block is not None:
    raise ValueError(
      f'{where}found tokenizer_source and tokenizer: give one of them'
    )
  if short is not None:
    return _recipe.Tokenizer(
      _vocabulary(short, f'{where}tokenizer_source'), {}, None
    )
  if block is None:
    return None
  place = f'{where}tokenizer'
  block = fields.mapping(
    block, place, {'source', 'tokens', 'pad_to_multiple_of'}
  )
  source = _vocabulary(block.get('source', 'union'), f'{place}.source')
  given = fields.mapping(block.get('tokens') or {}, f'{place}.tokens')
  tokens = {
    str(token): _token(entry, f'{place}.tokens[{token!r}]')
    for token, entry in given.items()
  }
  multiple = block.get('pad_to_multiple_of')
  if multiple is not None and (type(multiple) is not int or multiple < 1):
    raise ValueError(f'{place}.pad_to_multiple_of={multiple!r}: expected >= 1')
  return _recipe.Tokenizer(source, tokens, multiple)


def _vocabulary(value: Any, place: str) -> str | _recipe.Model:
  return value if value in ('base', 'union') else fields.model(value, place)


def _token(entry: Any, place: str) -> tuple[_recipe.Row | None, bool]:
  """Reads where the row of one token comes from, and whether for all models."""
  entry = fields.mapping(entry or {}, place, {'source', 'force'})
  source = entry.get('source')
  if isinstance(source, Mapping) and 'kind' in source:
    keys = {'kind', 'model', 'token', 'token_id'}
    source = fields.mapping(source, f'{place}.source', keys)
    if source['kind'] == 'zero':
      found: _recipe.Row | None = None
    elif source['kind'] == 'model_token':
      given = [source[k] for k in ('token', 'token_id') if k in source]
      if len(given) != 1 or 'model' not in source:
        raise ValueError(f'{place}.source: give model, and token or token_id')
      model = fields.model(source['model'], f'{place}.source.model')
      found = _recipe.Row(model, given[0])
    else:
      raise ValueError(
        f'{place}.source.kind={source["kind"]!r}: expected model_token or zero'
      )
  elif source is None:
    raise ValueError(f'{place}: give its source')
  else:
    found = _recipe.Row(fields.model(source, f'{place}.source'))
  return found, bool(entry.get('force', False))
