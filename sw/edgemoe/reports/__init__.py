"""Figures and pictures for people."""
