"""Metrics, and accuracy on held-out pictures."""
