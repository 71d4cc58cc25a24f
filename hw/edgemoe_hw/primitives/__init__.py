"""Small blocks that units are made of."""
