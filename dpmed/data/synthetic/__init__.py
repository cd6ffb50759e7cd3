"""Synthetic chest radiographs: the data set that ships with dpmed and needs no download.

`cohort` says who the patients are, `body` what each picture shows, `anatomy`, `texture` and
`findings` draw it, `acquisition` is the site's scanner, `render` composes them.
"""

from dpmed.data.synthetic.cohort import LABELS, PUBLIC_SITE, SITES, synthetic_cohort
from dpmed.data.synthetic.render import iterate_radiographs, render_radiographs

__all__ = [
    "LABELS",
    "PUBLIC_SITE",
    "SITES",
    "iterate_radiographs",
    "render_radiographs",
    "synthetic_cohort",
]
