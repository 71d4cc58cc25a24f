"""The integer graph and its file."""
