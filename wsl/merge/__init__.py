"""Merging: task vectors in, one task vector out."""

from wsl.merge._fisher import fisher as fisher
from wsl.merge._linear import mean as mean
from wsl.merge._linear import sum as sum
from wsl.merge._linear import weighted_mean as weighted_mean
from wsl.merge._regmean import regmean as regmean
from wsl.merge._slerp import slerp as slerp
from wsl.merge._sparse.breadcrumbs import breadcrumbs as breadcrumbs
from wsl.merge._sparse.dare import dare as dare
from wsl.merge._sparse.elect import elect_sign as elect_sign
from wsl.merge._sparse.elect import mean_nonzero as mean_nonzero
from wsl.merge._sparse.tall import consensus as consensus
from wsl.merge._sparse.tall import materialize as materialize
from wsl.merge._sparse.tall import tall_masks as tall_masks
from wsl.merge._sparse.tall import TallMasks as TallMasks
from wsl.merge._sparse.ties import ties as ties
from wsl.merge._sparse.trim import trim as trim
from wsl.merge._spectral.iso import iso_c as iso_c
from wsl.merge._spectral.iso import iso_cts as iso_cts
from wsl.merge._spectral.tsv import tsv as tsv
