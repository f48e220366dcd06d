"""Search over merges by evaluations: soups, evolution, Pareto fronts.

A search gets a black box and proposes points. The loss of a batch of points is
one call, so that candidates can be mapped over a mesh in one compiled program;
``journal`` stores the evaluations and lets an interrupted search resume::

    merged = lambda c: deltas.apply(base, merge.sum(tau), coef=c['coef'])
    each = lambda c: loss(merged(c))
    on = mesh.make({'candidates': 1})
    values = lambda x: mesh.map_candidates(each, {'coef': x[:, 0]}, mesh=on)
    found = search.cmaes(search.journal(values, 'search.jsonl'), [0.3],
                         sigma=0.1, evaluations=200, key=key)
"""

from wsl.search._archive import Archive as Archive
from wsl.search._archive import archive as archive
from wsl.search._archive import niche_shares as niche_shares
from wsl.search._cmaes import cmaes as cmaes
from wsl.search._crossover import crossover as crossover
from wsl.search._evo_merging import evo_merging as evo_merging
from wsl.search._evo_merging import Evolved as Evolved
from wsl.search._evo_merging import merge_factors as merge_factors
from wsl.search._fronts.map_front import map_front as map_front
from wsl.search._fronts.mm_mo import mm_mo as mm_mo
from wsl.search._fronts.nested import map_nested as map_nested
from wsl.search._fronts.nested import Nested as Nested
from wsl.search._fronts.pareto import Front as Front
from wsl.search._fronts.pareto import hypervolume as hypervolume
from wsl.search._fronts.pareto import non_dominated as non_dominated
from wsl.search._fronts.surrogate import fit_surrogate as fit_surrogate
from wsl.search._fronts.surrogate import Surrogate as Surrogate
from wsl.search._journal import journal as journal
from wsl.search._layerwise import Layered as Layered
from wsl.search._layerwise import layerwise as layerwise
from wsl.search._levels import at_levels as at_levels
from wsl.search._levels import level_switch as level_switch
from wsl.search._m2n2 import m2n2 as m2n2
from wsl.search._pbt import pbt as pbt
from wsl.search._pbt import Population as Population
from wsl.search._points import Search as Search
from wsl.search._random import random_search as random_search
from wsl.search._soup import greedy_soup as greedy_soup
from wsl.search._soup import Soup as Soup
