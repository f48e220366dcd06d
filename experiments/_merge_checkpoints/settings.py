"""The config, the opened folders and the merged model on demand."""

import pathlib
from typing import Any, NamedTuple

import jax
import ml_collections
import yaml

from experiments._merge_checkpoints import by_method, coefs, random_models
from experiments._merge_checkpoints import inputs as inputs_lib
from experiments._run import checks
from wsl import recipes, tree

_UNMATCHED = {'recipe': ('error', 'copy', 'drop'),
              'method': ('error', 'base', 'zero')}  # fmt: skip
_DTYPES = ('float64', 'float32', 'bfloat16', 'float16')
# Fields of the config that describe a merge by a method.
_SHOWN = ('method', 'base', 'models', 'coef', 'coef_by_layer', 'coef_by_regex')


class Setting(NamedTuple):
  """A merge that is ready to be computed.

  Attributes:
    config: of the run.
    recipe: the recipe, or the method and its models in the form of one.
    text: the recipe as it is shown.
    folders: the models.
    merged: the merged model, leaves on demand.
    template: the chat template, or None.
  """

  config: ml_collections.ConfigDict
  recipe: recipes.Recipe
  text: str
  folders: dict[recipes.Model, recipes.Folder]
  merged: recipes.Merged
  template: str | None


def check(config: ml_collections.ConfigDict) -> None:
  """Checks the config as far as it can be without the models.

  Raises:
    ValueError: naming the field, and the nearest valid name.
    FileNotFoundError: if there is no such recipe, base or model.
  """
  kind = 'recipe' if config.recipe else 'method'
  checks.choice('unmatched', config.unmatched, _UNMATCHED[kind])
  if config.dtype:
    checks.choice('dtype', config.dtype, _DTYPES)
  checks.sizes({'shard_bytes': (config.shard_bytes, 1, None)})
  if config.recipe:
    if config.models or config.base:
      raise ValueError('recipe: it names its models: leave base and models out')
    if not pathlib.Path(config.recipe).is_file():
      raise FileNotFoundError(
        f"recipe: there is no file '{config.recipe}'; or give method, base and "
        'models'
      )
    if config.dtype:
      raise ValueError('dtype: the recipe states it: leave it out')
    recipes.read(config.recipe)
    return
  by_method.parse(config.method, config.arguments)
  coefs.check(config)
  if config.random.layers:
    return
  if not config.models:
    raise ValueError(
      'models: none given: --config.recipe=FILE, or --config.models='
      "\"('FOLDER','FOLDER')\" and --config.base=FOLDER"
    )
  plain = config.coef == 1 and not config.coef_by_regex
  if not config.base and not (plain and not config.coef_by_layer.depth):
    raise ValueError('coef: without a base there is no task vector to scale')
  for text in filter(None, [config.base, *config.models]):
    for part in text.split('+'):
      if not pathlib.Path(part).expanduser().exists():
        raise FileNotFoundError(f"models: there is no folder '{part}'")


def load(config: ml_collections.ConfigDict, folder: pathlib.Path) -> Setting:
  """Opens the models and builds the merged one; only headers are read.

  Args:
    config: checked by ``check``.
    folder: of the run; the random models of the variant ``tiny`` are written
      there.

  Returns:
    The setting.

  Raises:
    ValueError: naming the parameter, tensor or model that does not fit.
  """
  if config.recipe:
    return _of_recipe(config)
  if config.random.layers:
    random_models.write(
      folder, layers=config.random.layers, seed=config.random.seed
    )
  return _of_method(config, folder if config.random.layers else None)


def describe(setting: Setting) -> str:
  """Returns the method and the sizes in one line."""
  params = setting.merged.params
  return (
    f'{setting.recipe.method} of {len(setting.folders)} models: {len(params)} '
    f'tensors, {sum(x.size for x in params.values()):,} parameters'
  )


def _of_recipe(config: ml_collections.ConfigDict) -> Setting:
  """Builds the merge of a recipe."""
  recipe = recipes.read(config.recipe)
  text = pathlib.Path(config.recipe).read_text(encoding='utf-8')
  places = dict(pair.split('=', 1) for pair in config.at)
  folders = recipes.open_all(recipes.models(recipe), places)
  merged = recipes.build(
    recipe,
    folders,
    key=jax.random.key(config.seed),
    unmatched=config.unmatched,
  )
  template = recipes.chat_template(recipe, folders)
  return Setting(config, recipe, text, folders, merged, template)


def _of_method(
  config: ml_collections.ConfigDict, folder: pathlib.Path | None
) -> Setting:
  """Builds the merge of a method; models may be in a folder."""
  method = by_method.parse(config.method, config.arguments)
  base = _model(config.base, None, folder) if config.base else None
  models = [_model(text, base, folder) for text in config.models]
  sources = tuple(recipes.Source(x, None, {}) for x in models)
  part = recipes.Slice(sources, None, {})
  recipe = recipes.Recipe(
    method=f'wsl.merge: {config.method}',
    base=base,
    modules=(recipes.Module(None, (part,), {}),),
    parameters={},
    dtype=None,
    out_dtype=config.dtype or None,
    tokenizer=None,
    chat_template=None,
  )
  folders = recipes.open_all(recipes.models(recipe))
  own = None if base is None else folders[base].params
  others = [folders[x].params for x in models]
  names = inputs_lib.floats(others[0] if own is None else own)
  notes = inputs_lib.check_unmatched(
    own, dict(zip(models, others)), config.unmatched
  )
  factors = coefs.resolve(config, names)
  params = by_method.build(
    method,
    own,
    others,
    factors,
    key=jax.random.key(config.seed),
    unmatched=config.unmatched,
  )
  inputs = inputs_lib.inputs(base, own, dict(zip(models, others)))
  values = {name: [value] for name, value in factors.values.items()}
  shown = {k: config[k] for k in _SHOWN}
  shown['arguments'] = {
    call.__name__: dict(given)
    for call, given in zip(method.calls, method.arguments)
  }
  if config.dtype:
    params = tree.cast(params, config.dtype)
  merged = recipes.Merged(params, notes, None, values if base else {}, inputs)
  return Setting(config, recipe, _yaml(shown), folders, merged, None)


def _model(
  text: str, base: recipes.Model | None, folder: pathlib.Path | None
) -> recipes.Model:
  """Reads a reference: a folder, a file, or ``folder+adapter``.

  An adapter alone is added to the base.
  """
  parts = [str(folder / x) if folder else x for x in text.split('+')]
  path, lora = parts[0], parts[1] if len(parts) > 1 else None
  alone = (pathlib.Path(path).expanduser() / 'adapter_config.json').is_file()
  if alone and base is not None and lora is None:
    return recipes.Model(base.path, path)
  return recipes.Model(path, lora)


def _yaml(content: dict[str, Any]) -> str:
  """Formats fields of a config."""
  plain = ml_collections.ConfigDict(content, convert_dict=True).to_json()
  return yaml.safe_dump(
    yaml.safe_load(plain), sort_keys=False, default_flow_style=None
  )
