"""Per-unit clipping: every unit's gradient norm and the clipped sum, in one backward pass.

Start at `dpmed.privacy.clipping.clipper.make_clipper`. The method, its equations and its costs
are in docs/clipping.md. This package clips and sums; it adds no noise and accounts for nothing.
"""
