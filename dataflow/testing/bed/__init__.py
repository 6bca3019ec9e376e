"""Bed: real sites on this machine, with links, faults and counters, for tests that need the truth."""
