"""What runs jobs on real machines: one protocol, one contract test suite, several engines."""
