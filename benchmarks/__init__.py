"""How fast the platform is, measured by one command: ``make bench`` or ``python -m benchmarks``.

Figures are medians; comparisons are ratios of pairs that ran in turn, so that a machine whose speed
drifts does not decide them. Nothing here is a test: no figure fails a build.
"""
