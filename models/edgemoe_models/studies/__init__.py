"""Comparisons of quantizers and functions; nothing of the product imports them."""
