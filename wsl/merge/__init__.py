"""Merging: task vectors in, one task vector out.

Leaves may be factors of LoRAs (``adapters.stack``). ``sum``, ``mean``, ``cat``,
and ``weighted_mean`` with a weight for each model, give factors of a higher
rank, exactly; ``knots``, ``rmm`` and ``materialize`` work on factors as they
say. All other methods act on the products: one leaf at a time is computed,
together with the method, and no product of the whole model is stored.
"""

from wsl.merge._cat import cat as cat
from wsl.merge._families.emr import emr as emr
from wsl.merge._families.materialize import materialize as materialize
from wsl.merge._families.reversible import Reversible as Reversible
from wsl.merge._families.reversible import rmm as rmm
from wsl.merge._families.router import fit_router as fit_router
from wsl.merge._families.router import route as route
from wsl.merge._families.router import Router as Router
from wsl.merge._families.tall import consensus as consensus
from wsl.merge._families.tall import tall_masks as tall_masks
from wsl.merge._families.tall import TallMasks as TallMasks
from wsl.merge._families.twins import Twins as Twins
from wsl.merge._families.twins import twins as twins
from wsl.merge._fisher import fisher as fisher
from wsl.merge._layerwise import layerwise as layerwise
from wsl.merge._learned.doge import doge as doge
from wsl.merge._learned.frank_wolfe import frank_wolfe as frank_wolfe
from wsl.merge._learned.localize import localize as localize
from wsl.merge._learned.regmean_plus import regmean_plus as regmean_plus
from wsl.merge._learned.stitch import localize_and_stitch as localize_and_stitch
from wsl.merge._linear import mean as mean
from wsl.merge._linear import sum as sum
from wsl.merge._linear import weighted_mean as weighted_mean
from wsl.merge._metrics import metric_weighted as metric_weighted
from wsl.merge._model_stock import model_stock as model_stock
from wsl.merge._regmean import regmean as regmean
from wsl.merge._sparse.breadcrumbs import breadcrumbs as breadcrumbs
from wsl.merge._sparse.dare import dare as dare
from wsl.merge._sparse.della import della as della
from wsl.merge._sparse.elect import elect_sign as elect_sign
from wsl.merge._sparse.elect import mean_nonzero as mean_nonzero
from wsl.merge._sparse.magmax import magmax as magmax
from wsl.merge._sparse.pcb import pcb as pcb
from wsl.merge._sparse.ram import ram as ram
from wsl.merge._sparse.ram import ram_plus as ram_plus
from wsl.merge._sparse.rescale import rescale as rescale
from wsl.merge._sparse.sce import sce as sce
from wsl.merge._sparse.ties import ties as ties
from wsl.merge._sparse.trim import trim as trim
from wsl.merge._spectral.compress import tsv_compress as tsv_compress
from wsl.merge._spectral.iso import iso_c as iso_c
from wsl.merge._spectral.iso import iso_cts as iso_cts
from wsl.merge._spectral.knots import knots as knots
from wsl.merge._spectral.tsv import tsv as tsv
from wsl.merge._spectral.wudi import wudi as wudi
from wsl.merge._spherical.karcher import karcher as karcher
from wsl.merge._spherical.multislerp import multislerp as multislerp
from wsl.merge._spherical.nuslerp import nuslerp as nuslerp
from wsl.merge._spherical.slerp import slerp as slerp
from wsl.merge._streams.averages import AverageState as AverageState
from wsl.merge._streams.averages import exponential_mean as exponential_mean
from wsl.merge._streams.averages import running_mean as running_mean
from wsl.merge._streams.opcm import opcm as opcm
from wsl.merge._streams.opcm import OpcmState as OpcmState
from wsl.merge._streams.orders import fold as fold
from wsl.merge._streams.orders import order_sensitivity as order_sensitivity
from wsl.merge._streams.orders import OrderSensitivity as OrderSensitivity
from wsl.merge._swap import arcee_fusion as arcee_fusion
from wsl.merge._swap import nearswap as nearswap
from wsl.merge._swap import passthrough as passthrough
from wsl.merge._variance import variance_corrected as variance_corrected
