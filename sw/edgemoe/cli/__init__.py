"""The command line: ``edgemoe``."""
