"""The accelerator in Amaranth; one component a file.

Importing this package does not import Amaranth, so that the host can use its configuration.
"""
