"""How long the parts of a pipeline may take to end, and how often its owner looks after them."""

ABORT_GRACE_S = 5.0
"""How long threads may take to end once everything was given up, before they are named as survivors."""

OVERDUE_GRACE_S = 1.0
"""The same behind a drain that did not end in its time: a hung source has had its chance."""

SIGNAL_INTERVAL_S = 0.25
"""How often the main thread heeds signals: one that the system gives to another thread does not wake it."""

PUMP_INTERVAL_S = 0.02
"""How often a window is served while no result comes."""
