"""Test equipment: benches, random graphs, golden functions."""
