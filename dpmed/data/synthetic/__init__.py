"""Synthetic chest radiographs: the data set that ships with dpmed and needs no download.

`cohort` says who the patients are, `body` what each picture shows in numbers; `anatomy`, `bones`,
`texture`, `findings` and `devices` draw it; `acquisition` holds the sites' scanners and `film` is
what they make of it; `render` composes all, `contact_sheet` lays the result out.
"""

from dpmed.data.synthetic.cohort import LABELS, PUBLIC_SITE, SITES, synthetic_cohort
from dpmed.data.synthetic.contact_sheet import captions, contact_sheet
from dpmed.data.synthetic.render import (
    GENERATOR_VERSION,
    iterate_radiographs,
    render_radiographs,
)

__all__ = [
    "GENERATOR_VERSION",
    "LABELS",
    "PUBLIC_SITE",
    "SITES",
    "captions",
    "contact_sheet",
    "iterate_radiographs",
    "render_radiographs",
    "synthetic_cohort",
]
