"""Helpers that are part of the documented interface."""
