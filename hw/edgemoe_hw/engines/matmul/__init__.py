"""The array and what stands behind it."""
