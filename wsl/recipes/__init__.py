"""Recipes: merges of checkpoints described in a file, run leaf by leaf.

The file format is mergekit's YAML. Every method computes what mergekit 0.1.5
does, in float32 or wider, by the functions of ``wsl.merge``::

    recipe = recipes.read('config.yml')
    folders = recipes.open_all(recipes.models(recipe))
    merged = recipes.build(recipe, folders)
    checkpoint.save('out', merged.params)
    recipes.write_companions(...)  # config, tokenizer, card
"""

from wsl.recipes._build import build as build
from wsl.recipes._build import Inputs as Inputs
from wsl.recipes._build import Merged as Merged
from wsl.recipes._card import CardEntry as CardEntry
from wsl.recipes._card import describe_inputs as describe_inputs
from wsl.recipes._companions import chat_template as chat_template
from wsl.recipes._companions import write_companions as write_companions
from wsl.recipes._file.parse import parse as parse
from wsl.recipes._file.parse import read as read
from wsl.recipes._folder import Folder as Folder
from wsl.recipes._folder import open_all as open_all
from wsl.recipes._layers import Place as Place
from wsl.recipes._layers import place as place
from wsl.recipes._parameters import describe_parameters as describe_parameters
from wsl.recipes._parameters import group_parameters as group_parameters
from wsl.recipes._parameters import Value as Value
from wsl.recipes._recipe import Model as Model
from wsl.recipes._recipe import models as models
from wsl.recipes._recipe import Module as Module
from wsl.recipes._recipe import Recipe as Recipe
from wsl.recipes._recipe import Row as Row
from wsl.recipes._recipe import Slice as Slice
from wsl.recipes._recipe import Source as Source
from wsl.recipes._recipe import Tokenizer as Tokenizer
from wsl.recipes._statistics import statistics as statistics
from wsl.recipes._statistics import write_statistics as write_statistics
