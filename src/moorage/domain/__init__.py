"""The words and rules of Moorage as plain values and pure functions: no I/O, no clock, no framework."""
