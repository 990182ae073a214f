"""Alarm levels measured by `benchmarks/calibrate_alarms.py`; do not edit by hand."""

# (k up to, intercept, slope): ln(mean rows between false alarms) = intercept + slope * nats
LEVELS: tuple[tuple[float, float, float], ...] = (
    (0.25, 5.007, 0.421),
    (0.35, 4.811, 0.521),
    (0.5, 5.015, 0.372),
    (0.75, 1.401, 0.824),
    (1.0, 6.091, 0.356),
    (1.5, 3.374, 0.670),
    (1e9, 0.521, 1.000),
)
