"""Fetches commands, orders them, counts, and stops what goes wrong."""
