"""Inputs that nobody would write on purpose: each is taken, or refused in one line of ours that gives nothing away.

Every failure shows a seed; `FUZZ_SEED=SEED scripts/test -n 0 tests/fuzz` runs that case alone. `scripts/test --long`
runs fifteen times as many cases as the suite does. `FUZZ_SEED=WORD` runs one round with that word.
"""
