"""Fixtures from the official RichSem code, for the tests in crates/richsem/tests/golden."""
