"""Runs with faults: cameras that fail, disks that fill, sinks that raise. Each has a deadline."""
